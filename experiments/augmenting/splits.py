"""Few-shot splits: a test part that nothing else sees, some classes made rare, a validation part for tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.augmenting.labelled import Labelled, take


class FewShot(NamedTuple):
    """Three parts that share no picture.

    Attributes:
      train: `shots` pictures of each rare class, and those of the other classes that are in no other part.
      validation: what hyperparameters may be chosen on.
      test: seen by nothing but the final scores.
      rare: the rare classes, in rising order.
    """

    train: Labelled
    validation: Labelled
    test: Labelled
    rare: tuple[int, ...]


def of_classes(part: Labelled, labels: Sequence[int]) -> Labelled:
    """The pictures of some classes, such as the rare ones."""
    return take(part, np.isin(part.labels, labels))


def few_shot(
    pool: Labelled,
    seed: int,
    rare: int | Sequence[int] = 3,
    shots: int | None = 5,
    test: float | Labelled | None = 0.5,
    validation: float = 0.0,
    classes: int | None = None,
) -> FewShot:
    r"""Draws a test part of each class, then the rare classes, then their shots, then a validation part.

    One seed gives one test part, whatever the other arguments are. The test part has the pool's class shares. The
    validation part has a share of what the test leaves of each class: of a rare class, out of those that are not among
    its shots, and all of these where they are fewer. What is then left of a rare class is not used.

    Args:
      pool: every class from 0 on, with 2 pictures at least.
      seed: of all draws.
      rare: how many classes are drawn to be rare, or which they are.
      shots: training pictures of a rare class; None for all that the other parts leave.
      test: the share of the pool that is for testing, between 0 and 1; each class keeps a picture on either side. Or
        the test's pictures themselves, which are none of the pool's; or None for no test at all.
      validation: the share of the rest that is for validation, from 0 (none, and the frequent classes keep all) to
        below 1.
      classes: how many there are; by default as many as the labels tell.

    Raises ValueError for shares out of range, labels out of range, places that repeat, a class with fewer pictures
    than 2, rare classes that are not there or leave no frequent one, and more shots than a rare class has.
    """
    _require_pool(pool, classes)
    _require_shares(test, validation)
    if isinstance(test, Labelled) and np.intersect1d(test.ids, pool.ids).size:
        raise ValueError("test has pictures of the pool; give pictures that are in no other part")
    rng, share = np.random.default_rng(seed), test if isinstance(test, float | int) else None
    tested, rest = zip(*(_parted(rng, own, share) for own in _places(pool.labels)), strict=True)
    chosen = _drawn(rng, rare, [len(own) for own in rest], 1 if shots is None else shots)
    parts = [_kept(own, shots if label in chosen else None, validation) for label, own in enumerate(rest)]
    train, held = zip(*parts, strict=True)
    found = FewShot(*(take(pool, np.sort(np.concatenate(places))) for places in (train, held, tested)), chosen)
    return found._replace(test=test) if isinstance(test, Labelled) else found


def _places(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]


def _parted(rng: np.random.Generator, own: np.ndarray, share: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The test's pictures of one class, and the others in a random order."""
    own = rng.permutation(own)
    count = 0 if share is None else int(np.clip(round(share * len(own)), 1, len(own) - 1))
    return own[:count], own[count:]


def _kept(own: np.ndarray, shots: int | None, validation: float) -> tuple[np.ndarray, np.ndarray]:
    """What is trained on and what is held for validation, of one class; `shots` of a rare one."""
    held = min(round(validation * len(own)), len(own) - (shots or 1))
    return own[: len(own) - held if shots is None else shots], own[len(own) - held :]


def _drawn(rng: np.random.Generator, rare: int | Sequence[int], counts: Sequence[int], shots: int) -> tuple[int, ...]:
    """The rare classes, each with shots enough."""
    named = not isinstance(rare, int | np.integer)
    many = len(set(rare)) if named else rare
    if not 1 <= many < len(counts):
        raise ValueError(f"rare is {rare} of {len(counts)} classes; give one at least, and leave a frequent one")
    possible = sorted(set(rare)) if named else range(len(counts))
    if outside := [label for label in possible if not 0 <= label < len(counts)]:
        raise ValueError(f"rare names the class {outside[0]}; the classes are 0 to {len(counts) - 1}")
    if shots < 1:
        raise ValueError(f"shots is {shots}; give a rare class one picture at least")
    for label in possible:
        if counts[label] < shots:
            has = f"class {label} has {counts[label]} pictures outside the test"
            raise ValueError(f"shots is {shots}, and {has}; lower shots or test, or name the rare classes")
    return tuple(int(label) for label in (possible if named else np.sort(rng.permutation(len(counts))[:rare])))


def _require_shares(test: float | Labelled | None, validation: float) -> None:
    if isinstance(test, float | int) and not 0 < test < 1:
        raise ValueError(f"test is {test}; give a share between 0 and 1")
    if not 0 <= validation < 1:
        raise ValueError(f"validation is {validation}; give a share from 0 to below 1")


def _require_pool(pool: Labelled, classes: int | None) -> None:
    labels = pool.labels
    many = (labels.max() + 1 if len(labels) else 0) if classes is None else classes
    if wrong := labels[(labels < 0) | (labels >= many)].tolist():
        raise ValueError(f"labels has {wrong[0]}; they must be whole numbers from 0 to {many - 1}")
    if many < 2:
        raise ValueError(f"the data have {many} classes; give pictures of two at least")
    counts = np.bincount(labels, minlength=many)
    if counts.min() < 2:
        label = int(np.argmin(counts))
        raise ValueError(f"class {label} has {counts[label]} pictures; give 2 at least, one to train and one to test")
    if len(np.unique(pool.ids)) < len(pool.ids):
        raise ValueError("ids repeat: a picture would be in two parts; give each picture one place")

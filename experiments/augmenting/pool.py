"""The pictures of a configuration, and their split of each seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffinv import data
from experiments.augmenting.labelled import Labelled, join, labelled, take
from experiments.augmenting.splits import FewShot, few_shot
from experiments.common import reading, runtime


class Pool(NamedTuple):
    """What there is.

    Attributes:
      pictures: of both parts of the data, or of its training part alone where `held_out` is the test.
      held_out: the data's own held-out part, or None where tests are drawn from the pictures.
      classes: their names.
      skipped: pictures that could not be read, with the reason.
      name: what a picture is called in the user's data, by its id.
    """

    pictures: Labelled
    held_out: Labelled | None
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    name: Callable[[int], str]


def pool(config, watch=iter) -> Pool:
    """The pictures of `config.data`. Raises ValueError for fewer than two classes, and for a class of one picture."""
    folder = config.data_folder or str(runtime.cache_folder().parent / "data")
    given = (folder, config.channels, False, reading.reading())
    sources = [data.source(config.data, config.size, split, *given, watch=watch) for split in ("train", "validation")]
    parts, first = [], 0
    for source in sources:
        found = data.resident(source).take(range(len(source)))
        parts.append(labelled(np.asarray(data.to_unit(found["image"])), found["label"], first + np.arange(len(source))))
        first += len(source)
    classes = sources[0].classes
    require_classes(parts, classes)
    pictures, held = (parts[0], parts[1]) if config.test == 0 else (join(*parts), None)
    chosen = capped(pictures, config.per_class)
    skipped = tuple(dict.fromkeys(skip for source in sources for skip in source.skipped))

    def name(number: int) -> str:
        source, place = (sources[0], number) if number < len(sources[0]) else (sources[1], number - len(sources[0]))
        known = source.records[place].get("name", "")
        return known.decode() if isinstance(known, bytes) else str(known)

    return Pool(chosen, held, classes, skipped, name)


def require_classes(parts: list[Labelled], classes: tuple[str, ...]) -> None:
    """ValueError, with names, where there is nothing to tell apart or to learn a class from."""
    counts = sum(np.bincount(part.labels, minlength=len(classes)) for part in parts)
    if len(classes) < 2:
        raise ValueError(f"the data have {len(classes)} class; give a folder with one folder a class")
    if small := [f"{name!r} has {count}" for name, count in zip(classes, counts) if count < 2]:
        raise ValueError(f"a class needs 2 pictures at least: {', '.join(small[:5])}; add some, or leave the class out")


def capped(pictures: Labelled, most: int) -> Labelled:
    """At most so many of each class, drawn once for all seeds; 0 for every one."""
    if not most:
        return pictures
    order = np.random.default_rng(0).permutation(len(pictures.labels))
    rank = np.empty(len(order), int)
    for label in np.unique(pictures.labels):
        own = order[pictures.labels[order] == label]
        rank[own] = np.arange(len(own))
    return take(pictures, rank < most)


def rare_classes(config, classes: tuple[str, ...], counts: np.ndarray, known: tuple[str, ...] = ()) -> Any:
    """The rare classes, or how many are drawn.

    They are those of `config.names`; else those that a given prior does not know; else, where a rare class keeps all of
    its pictures, those that have fewer than the mean of `counts`; else drawn ones. Raises ValueError for a name that is
    none of the classes, and where no class is rarer than another.
    """
    named = [name.strip() for name in config.names.split(",") if name.strip()]
    if unknown := [name for name in named if name not in classes]:
        raise ValueError(f"config.names has {unknown[0]!r}; the classes are {', '.join(classes)}")
    if named:
        return tuple(sorted(classes.index(name) for name in named))
    if known:
        return tuple(i for i, name in enumerate(classes) if name not in known)
    if config.shots:
        return config.rare
    if not (fewer := np.flatnonzero(counts < counts.mean())).size:
        raise ValueError("config.shots is 0 and all classes have as many pictures; name the rare ones in config.names")
    return tuple(map(int, fewer))


def split(config, found: Pool, seed: int, rare: Any) -> FewShot:
    """The split of one seed."""
    shots, test = config.shots or None, config.test if found.held_out is None else found.held_out
    test = test if config.seeds else None
    return few_shot(found.pictures, seed, rare, shots, test, config.validation, len(found.classes))

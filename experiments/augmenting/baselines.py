"""What diffusion augmentation has to beat: arms from a few-shot split to a training set.

An arm is `(rng, split, count) -> Training`: `count` pictures more of each rare class, by default as many as bring it to
the mean of the frequent ones. All else is as it was; class weights add nothing. Every arm works for every classifier
that honours weights, as those of `classifiers` do.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from experiments.augmenting.labelled import Labelled, Training, class_counts, join, made, take, training
from experiments.augmenting.randaugment import rand_augment
from experiments.augmenting.splits import FewShot

ALONE = "none"
"""The arm of the real pictures alone."""


class Arm(Protocol):
    """From a split to a training set; see the module's head."""

    def __call__(self, rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training: ...


def balance(split: FewShot) -> int:
    """How many pictures bring a rare class, on average, to the mean of the frequent ones; 0 where it has as many."""
    counts = class_counts(split.train.labels)
    frequent = np.delete(counts, split.rare)
    return max(round(float(frequent.mean() - counts[list(split.rare)].mean())), 0)


def repeats(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Labelled:
    """`count` pictures of each rare class, each of its real ones as often as the others, or once more."""
    many = balance(split) if count is None else count
    own = [rng.permutation(np.flatnonzero(split.train.labels == label)) for label in split.rare]
    return take(split.train, np.concatenate([np.resize(places, many) for places in own]))


def added(split: FewShot, images: np.ndarray, labels: np.ndarray) -> Training:
    """The real training pictures, and those that were made, all with the weight 1."""
    return training(join(split.train, made(np.asarray(images, np.float32).clip(-1, 1), labels)))


def none(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
    """The real pictures alone."""
    return training(split.train)


def oversampling(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
    """Pictures of rare classes again."""
    return training(join(split.train, repeats(rng, split, count)))


def class_weights(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
    """The real pictures, each weighing `N / (classes N_class)`: all classes weigh the same, `count` or not.

    Source: King & Zeng 2001, doi:10.1093/oxfordjournals.pan.a004868; scikit-learn's "balanced".
    """
    labels, counts = split.train.labels, class_counts(split.train.labels)
    return training(split.train)._replace(weights=len(labels) / (len(counts) * counts[labels]))


def jitter(sigma: float = 0.3) -> Arm:
    """Repeats with Gaussian noise of `sigma`, on [-1, 1], which may leave that range."""

    def arm(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
        again = repeats(rng, split, count)
        noise = sigma * rng.standard_normal(again.images.shape, np.float32)
        return training(join(split.train, again._replace(images=again.images + noise)))

    return arm


def shift_flip(pixels: int = 1, flip: bool = False, turn: bool = False) -> Arm:
    """Repeats moved by up to so many pixels along either axis, their border continued; mirrored or not, if `flip`; of
    squares also turned by quarters, if `turn`."""

    def moved(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        top, left = rng.integers(0, 2 * pixels + 1, 2)
        wide = np.pad(x, ((pixels, pixels), (pixels, pixels), (0, 0)), "edge")
        cut = wide[top : top + x.shape[0], left : left + x.shape[1]]
        cut = cut[:, ::-1] if flip and rng.random() < 0.5 else cut
        return np.rot90(cut, rng.integers(4)) if turn else cut

    return _each(moved)


def randaugment(number: int = 2, magnitude: float = 9.0) -> Arm:
    """Repeats after `rand_augment`."""
    return _each(lambda rng, x: rand_augment(rng, x, number, magnitude))


def _each(change: Any) -> Arm:
    """Repeats, each changed by `(rng, x) -> x`."""

    def arm(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
        again = repeats(rng, split, count)
        changed = np.array([change(rng, x) for x in again.images]).reshape(again.images.shape)
        return added(split, changed, again.labels)

    return arm


def mixup(alpha: float = 1.0) -> Arm:
    r"""Mixtures of repeats with pictures of any class, which the oversampled set is drawn from.

        x = lambda x_i + (1 - lambda) x_j,    lambda ~ Beta(alpha, alpha)

    Each mixture stands there twice, with the label of i and the weight lambda, and with that of j and 1 - lambda: the
    cross entropy of its soft label for a classifier that takes whole ones. A support vector machine has no such loss,
    and is taught both labels. The source mixes every picture; here the real ones stay, which did better.

    Source: Zhang et al. 2018, arXiv:1710.09412, eq. 2; alpha as for CIFAR-10.
    """

    def arm(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
        again, among = repeats(rng, split, count), oversampling(rng, split, count)
        other = rng.integers(0, len(among.labels), len(again.labels))
        share = rng.beta(alpha, alpha, len(other))
        weight = share.astype(np.float32)[:, None, None, None]
        mixed = weight * again.images + (1 - weight) * among.images[other]
        twice = added(split, np.concatenate([mixed, mixed]), np.concatenate([again.labels, among.labels[other]]))
        return twice._replace(weights=np.concatenate([np.ones(len(split.train.labels)), share, 1 - share]))

    return arm


def smote(neighbours: int = 5) -> Arm:
    """Random points between repeats and one of their nearest neighbours in the class.

    A class of no more than `neighbours` pictures takes all others; one of a single picture repeats it.

    Source: Chawla et al. 2002, arXiv:1106.1813, section 4.2.
    """

    def between(rng: np.random.Generator, own: np.ndarray, count: int) -> np.ndarray:
        rows = own.reshape(len(own), -1).astype(np.float64)
        far = np.sum((rows[:, None] - rows[None]) ** 2, -1) + np.diag(np.full(len(rows), np.inf))
        near = np.argsort(far, 1)[:, : max(min(neighbours, len(own) - 1), 1)]
        first = np.resize(rng.permutation(len(own)), count)
        second = near[first, rng.integers(0, near.shape[1], count)]
        return own[first] + rng.random((count, 1, 1, 1)) * (own[second] - own[first])

    def arm(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
        many, train = balance(split) if count is None else count, split.train
        images = [between(rng, train.images[train.labels == label], many) for label in split.rare]
        return added(split, np.concatenate(images), np.repeat(split.rare, many))

    return arm


def shrinkage(deviations: np.ndarray) -> float:
    r"""Ledoit and Wolf's rho for rows of mean 0, (n, d), from the smaller of `D D^T` and `D^T D`; 0 of rows of zeros.

    scikit-learn's takes `D^T D` always, 12,288 numbers a side for colours of 64 x 64.
    """
    n, d = deviations.shape
    product = deviations @ deviations.T if n < d else deviations.T @ deviations
    squared = np.sum(product**2) / n**2
    lengths = np.sum(deviations**2, 1)
    beta, delta = np.mean(lengths**2) - squared, squared - lengths.mean() ** 2 / d
    return float(np.clip(beta / n / delta, 0, 1)) if delta > 0 else 0.0


def class_gaussian(rng: np.random.Generator, split: FewShot, count: int | None = None) -> Training:
    r"""Draws from `N(mean of the class, S)`, S the covariance within classes, of all training pictures, shrunk.

        S = (1 - rho) D^T D / N + rho mu I,    mu = tr(D^T D) / (N d)

    with D, (N, d), the pictures' deviations from their classes' means, and Ledoit and Wolf's rho. S is not formed:
    `sqrt((1 - rho) / N) D^T g + sqrt(rho mu) z` of standard normal g and z has it. Clipped to [-1, 1].

    Source: Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4; as augmentation, original.
    """
    many, train = balance(split) if count is None else count, split.train
    counts, rows = class_counts(train.labels), train.images.reshape(len(train.labels), -1).astype(np.float64)
    means = np.stack([rows[train.labels == label].mean(0) for label in range(len(counts))])
    deviations = rows - means[train.labels]
    rho = shrinkage(deviations)
    labels = np.repeat(split.rare, many)
    along = rng.standard_normal((len(labels), len(rows))) @ deviations * np.sqrt((1 - rho) / len(rows))
    aside = rng.standard_normal((len(labels), rows.shape[1])) * np.sqrt(rho * np.mean(deviations**2))
    return added(split, (means[labels] + along + aside).reshape(-1, *train.images.shape[1:]), labels)


def baselines(shift: int = 1, flip: bool = False, turn: bool = False) -> dict[str, Arm]:
    """The arms by name; `shift` in pixels, `flip` and `turn` as the data allow: a mirrored digit is none. 0 and False:
    no arm.

    Raises ValueError for a shift below 0.
    """
    if shift < 0:
        raise ValueError(f"shift is {shift}; give a number of pixels, 0 for none")
    moves = " and ".join(["shift"] * bool(shift) + ["flip"] * flip + ["turn"] * turn)
    return {
        ALONE: none,
        "oversampling": oversampling,
        "class weights": class_weights,
        "jitter": jitter(),
        **({moves: shift_flip(shift, flip, turn)} if moves else {}),
        "RandAugment": randaugment(),
        "mixup": mixup(),
        "SMOTE": smote(),
        "class Gaussian": class_gaussian,
    }


BASELINES = baselines()
"""For pictures that may be moved by a pixel and not mirrored."""

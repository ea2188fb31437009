"""What a cell is computed on: pictures with names of their content, each so many times.

An item is a picture and a draw. Its number is made of the picture's pixels, and its noise and its solver's randomness
of this number and the draw: the same picture gets the same ones at any place of any data set, in any batch.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import data
from diffinv.typing import Key
from experiments.common import reading


class Item(NamedTuple):
    """A picture by the digest of its pixels, 32 hexadecimal digits, and a draw from 0."""

    picture: str
    draw: int


class Set(NamedTuple):
    """Pictures uint8 (N, H, W, C), their names and digests, and a note on what was found."""

    pixels: np.ndarray
    names: list[str]
    digests: list[str]
    note: str

    def place(self, picture: str) -> int:
        """Where the picture of this digest is."""
        return self.digests.index(picture)

    def items(self, draws: int) -> list[Item]:
        """All pictures once, then a second time, and so on."""
        return [Item(digest, draw) for draw in range(draws) for digest in self.digests]

    def with_others(self, other: Set) -> Set:
        """Both, these first."""
        pixels = np.concatenate([self.pixels, other.pixels])
        return Set(pixels, self.names + other.names, self.digests + other.digests, self.note)

    def part(self, index: int, count: int) -> Set:
        """Every `count`-th picture from the `index`-th on."""
        return Set(self.pixels[index::count], self.names[index::count], self.digests[index::count], self.note)


def digest(pixels: np.ndarray) -> str:
    """Of one picture, uint8 (H, W, C)."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]


def number(picture: str) -> int:
    """The number of a digest, 32 bits."""
    return int(picture[:8], 16)


def pictures(path: str, shape: tuple[int, ...], first: int, count: int, seed: int) -> tuple[Set, Set]:
    """`first` held-out pictures at `shape`, drawn, by which settings are chosen, and `count` others.

    Of a source with a split those for validation. With the same seed fewer pictures are the first of more. A picture
    that is there twice is taken once, and is in one of both. Raises ValueError where there are fewer.
    """
    rules = reading.reading()
    held = any(record.split == 1 for record in data.catalogue(path, rules).records())
    found = data.read(path, shape[:2], 1 if held else None, first + count, shape[2], rules, seed=seed)
    if len(found.names) < first + count:
        wanted = f"config.first={first} and config.pictures={count} are asked for"
        raise ValueError(f"config.data holds {len(found.names)} pictures, and {wanted}; lower one of them")
    digests = [digest(each) for each in found.pixels]
    once = [i for i, each in enumerate(digests) if digests.index(each) == i]
    twice = len(digests) - len(once)
    notes = [f"{twice} pictures are there twice, and taken once"] if twice else []
    notes += [f"{len(found.skipped)} cannot be read, and are left out"] if found.skipped else []

    def part(places: list[int]) -> Set:
        note = "; ".join([f"{len(places)} {'held-out ' if held else ''}pictures", *notes])
        return Set(found.pixels[places], [found.names[i] for i in places], [digests[i] for i in places], note)

    return part([i for i in once if i < first]), part([i for i in once if i >= first])


def measurement_keys(base: Key, items: list[Item]) -> Key:
    """Of the noise of y, the same for every draw of a picture."""
    return jax.vmap(lambda n: jax.random.fold_in(jax.random.fold_in(base, 2), n))(_numbers(items))


def solver_keys(base: Key, items: list[Item]) -> Key:
    """Of the solver's own randomness."""
    draws = jnp.asarray([item.draw for item in items], jnp.uint32)
    one = lambda n, draw: jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(base, 3), n), draw)
    return jax.vmap(one)(_numbers(items), draws)


def _numbers(items: list[Item]) -> jax.Array:
    return jnp.asarray([number(item.picture) for item in items], jnp.uint32)

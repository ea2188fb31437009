"""From a source to batches: grain pipelines whose batch k is a function of (seed, k), on any number of hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.typing import Array, Key


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError('batches are made with grain; pip install "diffinv[train]"') from error
    return grain


def augment(key: Key, image: Array, flip: bool = True, shift: int = 0, turn: bool = False) -> Array:
    """One picture (H, W, C), changed at random; runs on the device, inside the training step.

    Args:
      flip: mirror left to right with probability 1/2.
      shift: move by up to so many pixels either way along both axes, by reflection at the border.
      turn: by a multiple of 90 degrees, for square pictures without an upright.
      All three are static.
    """
    mirror, move, quarter = jax.random.split(key, 3)
    if flip:
        image = jnp.where(jax.random.bernoulli(mirror), image[:, ::-1], image)
    if shift:
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)), "reflect")
        top, left = jax.random.randint(move, (2,), 0, 2 * shift + 1)
        image = jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
    if turn:
        turns = [lambda x, k=k: jnp.rot90(x, k) for k in range(4)]
        image = jax.lax.switch(jax.random.randint(quarter, (), 0, 4), turns, image)
    return image


class _Batches:
    """This host's part of every global batch: rows `k size + part (size / count) + j` of the shuffled order."""

    def __init__(self, source: Any, order: Any, size: int, part: int, count: int):
        self.source, self.order, self.size, self.local = source, order, size, size // count
        self.first = part * self.local

    def __len__(self) -> int:
        return len(self.order) // self.size

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        start = k * self.size + self.first
        return self.source.take([int(self.order[i]) for i in range(start, start + self.local)])


def order(count: int, seed: int = 0) -> Any:
    """Indices of `count` examples, epoch after epoch, each a new permutation: a lazy, endless sequence of ints.

    A function of its arguments, so that the ids of any batch can be told afterwards.
    """
    return _grain().MapDataset.range(count).seed(seed).shuffle().repeat()


def batches(
    source: Any, size: int, seed: int = 0, part: tuple[int, int] = (0, 1), threads: int = 4, ahead: int = 8
) -> Iterator[dict[str, np.ndarray]]:
    """An endless iterator over this host's part of shuffled batches, read ahead by threads.

    `get_state()` and `set_state()` of the iterator continue it exactly (the state is JSON); the global batch
    k is the same for any number of hosts and threads.

    Args:
      source: has `__len__` and `take(indices) -> {name: array}`; size: of the global batch.
      part: (this host, hosts).
      threads, ahead: how many batches are read at once, and how many are ready.

    Raises ValueError for an empty source, or where `size` is not a positive multiple of the number of hosts.
    """
    index, count = part
    if not len(source):
        raise ValueError("source is empty; check the data path and the split")
    if size <= 0 or size % count:
        raise ValueError(f"size is {size}; a global batch must be a positive multiple of the {count} hosts")
    grain = _grain()
    rows = grain.MapDataset.source(_Batches(source, order(len(source), seed), size, index, count))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(rows.to_iter_dataset(options))

"""Shards: some items of a cell, in a file that is written whole or not at all, and named by its content.

A shard is a `.npz` of numbers alone, with `pictures`, uint16 (n, H, W, C), and `head`, JSON: the items, their scores,
and what made them. Where a file's content is not what its name says, it is put aside and its items are computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.common import keeping
from experiments.evaluation.cells import own
from experiments.evaluation.items import Item
from experiments.report import ledger

LEVELS = 65535
DAMAGED = ".damaged"
CELL = "cell.json"


class Result(NamedTuple):
    """One item's outcome.

    Attributes:
      item: which.
      x: the picture, uint16 (H, W, C), clipped to the range.
      scores: numbers by name; those that are not finite as NaN.
      about: what made it: versions, device, seconds, and how many at once; shared by the items of a shard.
    """

    item: Item
    x: np.ndarray
    scores: dict[str, float]
    about: dict[str, Any]


def stored(x: np.ndarray) -> np.ndarray:
    """[-1, 1] as 16 bits; what is not finite is in the range, too."""
    return np.round(np.clip(np.nan_to_num(np.asarray(x, np.float64)), -1, 1) * (LEVELS / 2) + LEVELS / 2).astype("<u2")


def unit(x: np.ndarray) -> np.ndarray:
    """16 bits as float32 in [-1, 1]."""
    return ((x.astype(np.float64) - LEVELS / 2) / (LEVELS / 2)).astype(np.float32)


def write(folder: Path, results: list[Result]) -> Path:
    """One shard of results that were made together."""
    about = results[0].about
    head = {"about": about, "items": [[*each.item, ledger.plain(each.scores)] for each in results]}
    file = io.BytesIO()
    content = np.frombuffer(json.dumps(head, allow_nan=False).encode(), np.uint8)
    np.savez(file, head=content, pictures=np.stack([each.x for each in results]))
    return ledger.put(folder / f"{_name(file.getvalue())}.npz", file.getvalue())


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _read(path: Path) -> list[Result]:
    """Raises ValueError where the file is not what its name says."""
    content = path.read_bytes()
    if _name(content) != path.stem:
        raise ValueError(f"{path} is damaged: its content is not what its name says")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        head, pictures = json.loads(file["head"].tobytes()), file["pictures"]
    scores = lambda found: {name: float(value) for name, value in found.items()}
    return [
        Result(Item(picture, draw), x, scores(found), head["about"])
        for (picture, draw, found), x in zip(head["items"], pictures, strict=True)
    ]


def read(folder: Path) -> tuple[dict[Item, Result], list[str]]:
    """What a cell has, and a line about each shard that was damaged, which is put aside."""
    found: dict[Item, Result] = {}
    lines = []
    for path in sorted(folder.glob("*.npz")):
        try:
            found |= {each.item: each for each in _read(path)}
        except (ValueError, OSError) as error:
            os.replace(path, path.with_name(path.name + DAMAGED))
            lines.append(f"{error}; its items are computed again")
    return found, lines


def require_same(folder: Path, settings: dict[str, Any], name: str) -> None:
    """Raises ValueError, which says what changed, where what is kept of a cell was made with other settings."""
    if not any(folder.glob("*.npz")):
        return
    try:
        was = dict(json.loads((folder / CELL).read_text("utf-8")))
    except (ValueError, OSError, TypeError):
        was = {}
    if words := keeping.changed(own(was), own(settings)):
        more = f" and {len(words) - 3} more" if len(words) > 3 else ""
        told = f"{name} was computed with {'; '.join(words[:3])}{more}"
        raise ValueError(f"{told}; give another --config.name, another title to this cell, or remove {folder}")


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes down what a cell is made with."""
    ledger.put(folder / CELL, (json.dumps(settings, indent=1) + "\n").encode())


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items, so many at once."""
    items = list(items)
    for i in range(0, len(items), size):
        yield items[i : i + size]

"""What the restored pictures of a cell are as a set: near others of their kind, and taken for what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffinv import data
from diffinv.metrics import distribution, features
from experiments.common import keeping, reading
from experiments.evaluation import embedders, items, realism, shards
from experiments.evaluation.items import Set
from experiments.evaluation.realism import Eye, Realism
from experiments.evaluation.summary import Found, failed
from experiments.report import ledger


class Panel:
    """The judge of a table's sets: `reference` other held-out pictures, and a classifier of labelled training pictures.

    Features that were found are kept in `folder`, by the digest of the pictures; those of `given` networks, too.
    """

    def __init__(self, config, shape: tuple[int, ...], pictures: Set, folder: Path) -> None:
        self.folder, self.eye = folder, Eye(features.efficientnet_features())
        before = config.first + config.pictures
        other = (
            items.pictures(config.data, shape, before, config.reference, config.seed)[1] if config.reference else None
        )
        seen = lambda pixels, name: self.features(pixels)
        reference = np.zeros((0, *shape), np.float32) if other is None else np.asarray(data.to_unit(other.pixels))
        self.given = [(each, each.rows(reference, folder)) for each in embedders.embedders(config)]
        self.judge: Realism = realism.realism(config.data, shape, reference, config.training, config.seed, seen)
        known = {each.name: each.label for each in data.catalogue(config.data, reading.reading()).records()}
        self.labels = {digest: known.get(name, -1) for name, digest in zip(pictures.names, pictures.digests)}
        self.pictures = pictures

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Of pictures in [-1, 1], (n, d) in half precision; none of none."""
        path = self.folder / f"{keeping.digest(np.asarray(pixels))}.txt"
        if not len(pixels):
            return np.zeros((0, realism.WIDTH))
        try:
            return realism.unpacked(path.read_text())
        except (OSError, ValueError):
            text = realism.packed(self.eye(pixels))
            ledger.put(path, text.encode())
            return realism.unpacked(text)

    def cells(self, rows: np.ndarray) -> dict[str, Any]:
        """EfficientNet's distances of a set from the reference, with the interval where there is one."""
        if len(rows) < 3 or not len(self.judge.reference):
            return {}
        kid = distribution.feature_kid(rows, self.judge.reference)
        return {"kid": (kid.value, kid.half), "cmmd": distribution.feature_cmmd(rows, self.judge.reference)}

    def distances(self, pixels: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """Of a set from the reference, by every network: EfficientNet's features are `rows`."""
        of_files = [each.columns(each.rows(pixels, self.folder), reference) for each, reference in self.given]
        return {**self.cells(rows), **{name: value for columns in of_files for name, value in columns.items()}}

    def seen(self, found: Found) -> tuple[Found, dict[str, Any]]:
        """A cell whose results say whether they are `taken` for what they show, and its distances."""
        sound = [item for item, result in found.results.items() if not failed(result)]
        if not sound:
            return found, {}
        pixels = np.stack([shards.unit(found.results[item].x) for item in sound])
        rows = self.features(pixels)
        taken = self.judge.right(rows, np.asarray([self.labels[item.picture] for item in sound]))
        if taken is None:
            return found, self.distances(pixels, rows)
        told = {item: self._told(found, item, value) for item, value in zip(sound, taken)}
        return found._replace(results={**found.results, **told}), self.distances(pixels, rows)

    def _told(self, found: Found, item: items.Item, value: float) -> shards.Result:
        result = found.results[item]
        return result._replace(scores={**result.scores, "taken": float(value)})

    def truth(self) -> dict[str, Any]:
        """The row of the pictures themselves."""
        pixels = np.asarray(data.to_unit(self.pictures.pixels))
        rows = self.features(pixels)
        taken = self.judge.right(rows, np.asarray([self.labels[digest] for digest in self.pictures.digests]))
        share = {} if taken is None else {"taken": float(np.mean(taken))}
        return {"task": "", "method": "truth", **share, **self.distances(pixels, rows), "pictures": len(rows)}


def told(
    config, shape: tuple[int, ...], pictures: Set, folder: Path, found: Sequence[Found]
) -> tuple[list[Found], list[Mapping[str, Any]], list[dict[str, Any]]]:
    """Cells with what is known of each picture, what is known of each set, and the rows of the truth, if any is."""
    if not config.reference and not config.training:
        return list(found), [{} for _ in found], []
    panel = Panel(config, shape, pictures, folder)
    pairs = [panel.seen(each) for each in found]
    return [each for each, _ in pairs], [cells for _, cells in pairs], [panel.truth()]

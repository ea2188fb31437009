"""Scores that are taken of what is kept, when a table is written: they need files of the user's, or larger pictures.

No cell depends on them, so that they may be asked for later; what was found is kept by the digest of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from diffinv.metrics import dists, image, lpips, natural
from diffinv.schema import Schema, path
from experiments.common import keeping
from experiments.evaluation import shards
from experiments.evaluation.summary import Found, failed
from experiments.report import ledger
from experiments.restore.programs import coloured

BATCH = 8
FIELDS: Schema = {
    "lpips_vgg": path("LPIPS's network: torchvision's vgg16-397923af.pth; '' for no such column"),
    "lpips_linear": path("LPIPS 0.1's learned weights of VGG, a .npz or a torch file"),
    "dists_vgg": path("DISTS's network, as LPIPS's; '' for no such column"),
    "dists_weights": path("DISTS's learned weights, of its authors"),
    "niqe": path("NIQE's pristine model, its authors' modelparameters.mat; '' for no such column"),
}
TOGETHER = (("lpips_vgg", "lpips_linear"), ("dists_vgg", "dists_weights"))
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of truth and reconstruction, both (N, H, W, C) in [-1, 1], a number for each."""


def check(config: ConfigDict) -> None:
    """Raises ValueError where one of two files that belong together is missing."""
    for pair in TOGETHER:
        if any(config[name] for name in pair) and not all(config[name] for name in pair):
            raise ValueError(f"config.{pair[0]} and config.{pair[1]} belong together; give both files, or neither")


def batched(metric, *leaves) -> Score:
    """A metric of one pair as one of many; the last batch is filled up. `metric(*leaves, truth, x) -> ()`."""
    program = jax.jit(jax.vmap(metric, (*[None] * len(leaves), 0, 0)))

    def score(truth: np.ndarray, x: np.ndarray) -> np.ndarray:
        places = [np.arange(i, i + BATCH) % len(x) for i in range(0, len(x), BATCH)]
        return np.concatenate([np.asarray(program(*leaves, truth[each], x[each])) for each in places])[: len(x)]

    return score


def scores(config: ConfigDict, shape: tuple[int, ...]) -> dict[str, Score]:
    """What is asked for, and MS-SSIM where pictures are large enough. Raises OSError or ValueError for files."""
    found: dict[str, Score] = {}
    if min(shape[:2]) >= 11 * 2 ** (len(image.SCALES) - 1):
        found["ms_ssim"] = batched(lambda truth, x: image.ms_ssim(truth, x, (-1, 1)))
    apart = lambda distance, truth, x: distance(coloured(truth), coloured(x))
    if config.lpips_vgg:
        found["lpips"] = batched(apart, lpips.lpips(config.lpips_vgg, config.lpips_linear))
    if config.dists_vgg:
        alike = lambda distance, truth, x: distance(coloured(truth), coloured(x), (-1, 1))
        found["dists"] = batched(alike, dists.dists(config.dists_vgg, config.dists_weights))
    if config.niqe:
        model = natural.pristine(config.niqe)
        if min(shape[:2]) < model.patch:
            raise ValueError(f"config.niqe looks at patches of {model.patch} pixels, and the pictures have {shape[:2]}")
        found["niqe"] = lambda truth, x: np.asarray([_naturalness(each, model) for each in x])
    return found


def _naturalness(x: np.ndarray, model: natural.Pristine) -> float:
    """NIQE; infinite where a picture is flat, which has no statistics."""
    try:
        return natural.niqe(x, (-1, 1), model)
    except ValueError:
        return float("inf")


def told(config: ConfigDict, truth: Mapping[str, np.ndarray], folder: Path, found: Sequence[Found]) -> Iterator[Found]:
    """Cells with these scores beside their own, of what did not fail."""
    asked = scores(config, next(iter(truth.values())).shape) if truth else {}
    for each in found:
        yield _with(each, asked, truth, folder, config)


def _with(
    found: Found, asked: Mapping[str, Score], truth: Mapping[str, np.ndarray], folder: Path, config: ConfigDict
) -> Found:
    sound = [item for item, result in found.results.items() if not failed(result)]
    if not sound or not asked:
        return found
    x = np.stack([shards.unit(found.results[item].x) for item in sound])
    true = np.stack([truth[item.picture] for item in sound]).astype(np.float32)
    columns = {name: _kept(name, score, true, x, folder, config) for name, score in asked.items()}
    results = dict(found.results)
    for i, item in enumerate(sound):
        own = {name: float(values[i]) for name, values in columns.items()}
        results[item] = results[item]._replace(scores={**results[item].scores, **own})
    return found._replace(results=results)


def _kept(name: str, score: Score, truth: np.ndarray, x: np.ndarray, folder: Path, config: ConfigDict) -> np.ndarray:
    files = [Path(config[field]).read_bytes() for field in FIELDS if field.startswith(name) and config[field]]
    path = folder / f"{name}-{keeping.digest(truth, x, *files)}.txt"
    try:
        return np.asarray([float(line) for line in path.read_text().split()])
    except (OSError, ValueError):
        values = score(truth, x)
        ledger.put(path, "".join(f"{float(value)!r}\n" for value in values).encode())
        return values

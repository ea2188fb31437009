"""From results to rows: means over pictures with intervals, failures, cost, and what several draws say together.

The pictures are what was sampled: draws of one picture are averaged before the interval is taken over pictures, which
is Student's. Means are over the pictures whose every draw is sound; how many failed stands in its own column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffinv.metrics import image
from experiments.evaluation import shards
from experiments.evaluation.cells import Cell
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.report.tables import diverged, frozen, student

MEANS = ("psnr", "ssim", "ms_ssim", "nmse", "feature_distance", "lpips", "dists", "niqe", "ratio", "taken")
COSTS = ("nfe", "vjps", "calls", "seconds")
BETTER = {
    **{"psnr": 1.0, "ssim": 1.0, "ms_ssim": 1.0, "nmse": -1.0, "feature_distance": -1.0, "lpips": -1.0},
    **{"dists": -1.0, "niqe": -1.0, "ratio": 0.0, "taken": 1.0},
}
"""What is compared: larger is better, smaller, or nearer to 1."""
COVERED = 0.9


class Found(NamedTuple):
    """A cell with its results, and why its solver could not do the task, "" where it could."""

    cell: Cell
    results: dict[Item, Result]
    refused: str = ""


def failed(result: Result) -> bool:
    """Whether it is not finite, or has left its range far behind."""
    return frozen(result.scores) or diverged(result.scores)


def scored(result: Result) -> dict[str, float]:
    """Its numbers, and the residual over what noise alone leaves."""
    found = result.scores
    ratio = {"ratio": found["residual"] / found["floor"]} if found.get("floor") else {}
    return {**found, **ratio}


def by_picture(results: Mapping[Item, Result]) -> dict[str, list[Result]]:
    """The draws of each picture, in order."""
    groups: dict[str, list[Result]] = {}
    for item in sorted(results, key=lambda item: item.draw):
        groups.setdefault(item.picture, []).append(results[item])
    return groups


def values(found: Found) -> dict[str, dict[str, float]]:
    """Of each sound picture the means over its draws, by the names of the numbers."""
    groups = {picture: group for picture, group in by_picture(found.results).items() if not any(map(failed, group))}
    return {picture: _averaged([scored(each) for each in group]) for picture, group in groups.items()}


def _averaged(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in numbers])) for name in numbers[0]}


def spread(group: Sequence[Result], truth: np.ndarray) -> dict[str, float]:
    """What the draws of one picture say: of the truth (H, W, C) in [-1, 1].

    `mean_psnr` is the PSNR of their mean, `deviation` the root mean square of their deviation by pixel, `error` that of
    the mean from the truth, and `covered` the share of pixels whose truth lies between the draws' quantiles that hold
    `COVERED` of a calibrated posterior. With n draws the k-th and the k-th last hold (n + 1 - 2 k) / (n + 1), so that
    the quantiles are those of the k with which this is nearest; `nominal` says how much that is.
    """
    x = np.stack([shards.unit(each.x) for each in group]).astype(float)
    n = len(x)
    ranks = np.arange(1, n // 2 + 1)
    held = (n + 1 - 2 * ranks) / (n + 1)
    best = int(np.argmin(abs(held - COVERED)))
    ordered = np.sort(x, 0)
    inside = (ordered[best] <= truth) & (truth <= ordered[n - 1 - best])
    mean = x.mean(0)
    return {
        "mean_psnr": float(image.psnr(truth, mean, (-1, 1))),
        "deviation": float(np.sqrt(np.mean(x.var(0, ddof=1)))),
        "error": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "covered": float(inside.mean()),
        "nominal": float(held[best]),
    }


def row(found: Found, truth: Mapping[str, np.ndarray], planned: int) -> dict[str, Any]:
    """One line of the table; `truth` has pictures (H, W, C) in [-1, 1] by their digests."""
    head = {"task": found.cell.task.title, "method": found.cell.label}
    if found.refused:
        return {**head, "note": f"not possible: {found.refused}"}
    sound, groups = values(found), by_picture(found.results)
    means = {name: student([each[name] for each in sound.values()]) for name in MEANS if _told(sound, name)}
    costs = {name: float(np.mean([each.scores[name] for each in found.results.values()])) for name in COSTS}
    costs = {name: value for name, value in costs.items() if value or name in ("nfe", "seconds")}
    several = [spread(groups[picture], truth[picture]) for picture in sound if len(groups[picture]) > 1]
    names = [name for name in (several[0] if several else ()) if all(math.isfinite(each[name]) for each in several)]
    drawn: dict[str, Any] = {name: student([each[name] for each in several]) for name in names}
    drawn |= {"nominal": several[0]["nominal"]} if several else {}
    bad = sum(map(failed, found.results.values()))
    missing = planned - len(found.results)
    counts = {"pictures": len(sound), "failed": bad, **({"missing": missing} if missing else {})}
    return {**head, **means, **drawn, **costs, **counts}


def _told(sound: Mapping[str, Mapping[str, float]], name: str) -> bool:
    return bool(sound) and all(name in each and math.isfinite(each[name]) for each in sound.values())


def verdict(name: str, base: np.ndarray, other: np.ndarray) -> tuple[float, float, str]:
    """The mean paired difference, half its 95 % interval (Student's), and what it says: better, worse or no difference.

    Of what is best near 1 the sign is of the difference itself, the word of how near either comes.
    """
    gain = abs(base - 1) - abs(other - 1) if not BETTER[name] else BETTER[name] * (other - base)
    good, width = student(list(gain))
    word = "no difference" if not abs(good) > width else "better" if good > 0 else "worse"
    return (*student(list(other - base)), word)


def compared(found: Sequence[Found]) -> list[dict[str, Any]]:
    """What each wrapper adds to its base, over the pictures on which both are sound, two at least."""
    by_name = {each.cell.name: each for each in found}
    rows = []
    for each in found:
        if each.cell.base is None:
            continue
        base, own = values(by_name[each.cell.base.name]), values(each)
        shared = [picture for picture in own if picture in base]
        if len(shared) < 2:
            continue
        line: dict[str, Any] = {"task": each.cell.task.title, "method": f"{each.cell.label} - {each.cell.base.label}"}
        for name in BETTER:
            if _told({p: own[p] for p in shared}, name) and _told({p: base[p] for p in shared}, name):
                pair = [np.asarray([side[picture][name] for picture in shared]) for side in (base, own)]
                mean, half, word = verdict(name, *pair)
                line |= {f"{name}_added": (mean, half), f"{name}_word": word}
        rows.append({**line, "pictures": len(shared)})
    return rows

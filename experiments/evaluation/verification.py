"""A cell computed again and laid beside what was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.evaluation.items import Item
from experiments.evaluation.shards import LEVELS, Result

COMPARED = ("psnr", "ssim", "nmse", "feature_distance", "residual", "floor", "nfe", "vjps", "calls")
TOLERANCE = 1e-3
"""Relative, of scores, and of a pixel on the [-1, 1] scale: what another batch size or device may make of rounding."""


def apart(kept: Mapping[str, float], again: Mapping[str, float]) -> float:
    """The largest relative difference of scores that both have; infinite where one alone is finite."""
    worst = 0.0
    for name in COMPARED:
        if name in kept and name in again:
            a, b = kept[name], again[name]
            if math.isfinite(a) != math.isfinite(b):
                return math.inf
            if math.isfinite(a):
                worst = max(worst, abs(a - b) / max(abs(a), abs(b), 1e-6))
    return worst


def compared(kept: Mapping[Item, Any], again: Mapping[Item, Result]) -> dict[str, Any]:
    """What the items that both have differ by; `kept` has results, or scores alone.

    `scores` is the largest relative difference, `picture` the largest of a pixel on the [-1, 1] scale, None where no
    pictures are kept; `same` whether both are within `TOLERANCE`. Raises ValueError where they share no item.
    """
    shared = [item for item in again if item in kept]
    if not shared:
        raise ValueError("nothing that was kept is of these pictures and draws; give the data that the ledger is of")
    scores = lambda found: found.scores if isinstance(found, Result) else found
    worst = max(apart(scores(kept[item]), again[item].scores) for item in shared)
    pairs = [(kept[item].x, again[item].x) for item in shared if isinstance(kept[item], Result)]
    pixel = max((float(np.abs(a.astype(int) - b.astype(int)).max()) * 2 / LEVELS for a, b in pairs), default=None)
    same = worst <= TOLERANCE and (pixel is None or pixel <= TOLERANCE)
    return {"items": len(shared), "scores": worst, "picture": pixel, "same": same}


def told(found: Mapping[str, Any], cell: str) -> str:
    """The line about a comparison."""
    pixel = "" if found["picture"] is None else f", of a pixel {found['picture']:.2g}"
    exact = found["scores"] == 0 and not found["picture"]
    word = "the same bits" if exact else "the same" if found["same"] else "NOT the same"
    limit = "" if exact else f" (allowed: {TOLERANCE:g})"
    largest = f"largest difference of a score {found['scores']:.2g}{pixel}{limit}"
    return f"{cell}: {found['items']} items again, {word}; {largest}"

"""What papers print: each number as its source has it, and whether somebody has compared it with that source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Printed(NamedTuple):
    """A paper's table.

    Attributes:
      source: the paper, and its table.
      setting: data, number of pictures, and what the metric's network was.
      verified: whether the numbers were compared with the paper itself.
      note: what of it cannot be computed here without files of the user's.
      files: which checkpoint and pictures it is of, and where their authors publish them.
      values: (task, method, metric, number).
    """

    source: str
    setting: str
    verified: bool
    note: str
    files: str
    values: tuple[tuple[str, str, str, float], ...]


DPS_TASKS = ("super-resolution x4", "box", "random", "Gaussian blur", "motion blur")
DPS_FFHQ = ((39.35, 0.214), (33.12, 0.168), (21.19, 0.212), (44.05, 0.257), (39.92, 0.242))
DPS_IMAGENET = ((50.66, 0.337), (38.82, 0.262), (35.87, 0.303), (62.72, 0.444), (56.08, 0.389))
UNLEARNED = "LPIPS needs VGG weights, FID Inception's; the distance in our table is of EfficientNet-Lite0's features"


CHECKPOINTS = {
    "FFHQ": "ffhq_10m.pt, to which the README of github.com/DPS2022/diffusion-posterior-sampling links",
    "ImageNet": "256x256_diffusion_uncond.pt, of github.com/openai/guided-diffusion",
}


def _dps(data: str, numbers: Sequence[tuple[float, float]]) -> Printed:
    rows = [
        (task, "DPS", metric, value)
        for task, pair in zip(DPS_TASKS, numbers, strict=True)
        for metric, value in zip(("FID", "LPIPS"), pair)
    ]
    source = "Chung et al. 2023, arXiv:2209.14687, table 1"
    setting = f"{data}, 256 x 256, 1,000 pictures"
    files = f"the paper's are the first 1,000 of {data}'s validation and {CHECKPOINTS[data]}; bring it by "
    files += "python -m experiments.import_checkpoint, which prints its digest"
    return Printed(source, setting, False, UNLEARNED, files, tuple(rows))


TABLES: dict[str, Printed] = {
    "dps_ffhq": _dps("FFHQ", DPS_FFHQ),
    "dps_imagenet": _dps("ImageNet", DPS_IMAGENET),
}


def rows(name: str, measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paper's numbers, a line each, with ours of the same task, method and metric where there is one."""
    if not name:
        return []
    table, known = TABLES[name], {(row["task"], row["method"]): row for row in measured}
    lines = []
    for task, method, metric, value in table.values:
        ours = known.get((task, method), {}).get(metric.lower())
        told = f"{value:g}" + ("" if table.verified else " (unverified)")
        lines.append(
            {"task": task, "method": method, "metric": metric, "printed": told, "here": ours or "not computed"}
        )
    return lines


def notes(name: str) -> list[str]:
    """Where the printed numbers come from, and what they are of."""
    if not name:
        return []
    table = TABLES[name]
    state = "compared with the paper" if table.verified else "from memory, not compared with the paper"
    return [f"Printed: {table.source} ({table.setting}); {state}. {table.note}."]

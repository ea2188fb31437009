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


DAPS_BOX = {
    "ffhq": {"DAPS": (24.07, 0.814, 0.133), "DPS": (22.51, 0.792, 0.209), "DDRM": (22.26, 0.801, 0.207)}
    | {"DDNM": (24.47, 0.837, 0.235), "DCDP": (23.89, 0.760, 0.163)},
    "imagenet": {"DAPS": (21.43, 0.725, 0.214), "DPS": (18.94, 0.722, 0.257), "DDRM": (18.63, 0.733, 0.254)}
    | {"DDNM": (21.64, 0.748, 0.319)},
}
DAPS_OWN = {
    "ffhq": {"super-resolution x4": (29.07, 0.818, 0.177), "random": (31.12, 0.844, 0.098)}
    | {"Gaussian blur": (29.19, 0.817, 0.165), "motion blur": (29.66, 0.847, 0.157)}
    | {"phase retrieval": (30.63, 0.851, 0.139), "high dynamic range": (27.12, 0.752, 0.162)},
    "imagenet": {"super-resolution x4": (25.89, 0.694, 0.276), "random": (28.44, 0.775, 0.135)}
    | {"Gaussian blur": (26.15, 0.684, 0.253), "motion blur": (27.86, 0.766, 0.196)}
    | {"phase retrieval": (25.78, 0.742, 0.254)},
}


def _daps(data: str) -> Printed:
    """Read at second hand: the box's from a later paper's repository, the others from memory.

    Of phase retrieval it is the best of four runs.
    """
    key = data.lower()
    cells = [("box", solver, found) for solver, found in DAPS_BOX[key].items()]
    cells += [(task, "DAPS", found) for task, found in DAPS_OWN[key].items()]
    rows = [
        (task, solver, metric, value)
        for task, solver, found in cells
        for metric, value in zip(("PSNR", "SSIM", "LPIPS"), found, strict=True)
    ]
    files = f"the paper's are 100 pictures of {data} (dataset/ of github.com/zhangbingliang2019/DAPS); bring "
    files += f"{CHECKPOINTS[data]} by python -m experiments.import_checkpoint, which prints its digest"
    source, setting = "Zhang et al. 2024, arXiv:2407.01521", f"{data}, 256 x 256, 100 pictures"
    return Printed(source, setting, False, UNLEARNED, files, tuple(rows))


OURS = {"fid": "inception_fid"}
"""Columns of ours that go by another name."""


TABLES: dict[str, Printed] = {
    "daps_ffhq": _daps("FFHQ"),
    "daps_imagenet": _daps("ImageNet"),
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
        ours = known.get((task, method), {}).get(OURS.get(metric.lower(), metric.lower()))
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
    state = "compared with the paper" if table.verified else "at second hand, not compared with the paper"
    return [f"Printed: {table.source} ({table.setting}); {state}. {table.note}."]

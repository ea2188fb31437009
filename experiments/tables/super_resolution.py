"""Super-resolution x4 on Set5, Set14 or any folder: PSNR and SSIM of the luma, feature distance, seconds, parameters.

    python -m experiments.tables.super_resolution --data=DIR --weights=DIR [--ctmsr=PATH --dtm=PATH --multistep=PATH]

DIR/SET/HR (or DIR/SET) holds a set's pictures. Protocol: the picture cropped to a multiple of 4 from its top left;
low resolution by MATLAB's antialiased bicubic `imresize`, rounded to 8 bits; the result rounded to 8 bits; luma in
floating point, 4 pixels shaved, peak 255, SSIM by 11 x 11 Gaussian windows. A grey picture (Set14's bridge) is scored
as it is, not through the luma of its RGB copy, which would add 0.09 dB to Set14's mean. A network whose path is not
given is left out. OUT gets super_resolution.md, results.json, index.html and gallery.png.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffinv import degrade, operators, schema
from diffinv.data import to_pixels, to_unit
from diffinv.metrics import features, image
from experiments import report
from experiments.common import photos, pictures
from experiments.common.pictures import rounded
from experiments.report import ledger
from experiments.upscale import baselines, upscaling

DATA = runtime.flag("data", None, schema.path("the folder of the sets"), required=True)
SETS = runtime.flag("sets", ["Set5", "Set14"], schema.several(schema.path("folders under --data"), least=1))
WEIGHTS = runtime.flag("weights", "", schema.path("folder with vdsr_y.npz and esrgan_slim_x4.npz"))
DISTORTION = runtime.flag("distortion", "", schema.path("the one-step network trained for PSNR"))
CTMSR = runtime.flag("ctmsr", "", schema.path("CTMSR after stage 1"))
DTM = runtime.flag("dtm", "", schema.path("CTMSR after stage 2; 'embedded' is the one that ships"))
MULTISTEP = runtime.flag("multistep", "", schema.path("the ResShift-style network of 15 steps"))
PRIOR = runtime.flag("prior", "", schema.path("the small prior of DPS and ReGuidance; '' for the embedded one"))
CROP = schema.whole("side of the crops where the small prior competes", 24, 4096, "pixels, a multiple of 4")
NO_CROP = schema.exactly(0, "0 to leave it out")
PRIOR_CROP = runtime.flag("prior_crop", 64, schema.either(NO_CROP, CROP))
PRIOR_STEPS = runtime.flag("prior_steps", 100, schema.whole("of DPS and of ReGuidance", 2, 100_000))
COUNT = runtime.flag("count", 0, schema.whole("pictures of each set; 0: all", low=0))
OUT = runtime.flag("out", "runs/super_resolution", schema.path("the folder of the result"))
SCALE, SHOWN, SIDE, LEAST = 4, 160, 256, 24

PUBLISHED = {  # from the table of EDSR (arXiv:1707.02921); the bicubic ones were confirmed by computing them again
    "Set5": "bicubic 28.42 dB and 0.8104, VDSR 31.35 dB, EDSR 32.46 dB",
    "Set14": "bicubic 26.00 dB and 0.7027, EDSR 28.80 dB",
}
ELSEWHERE = """
Other data, as published, not measured here and not comparable with the tables above. Source: the tables of RSD
(arXiv:2503.13358, tables 1, 2, 15 and 16), whose authors ran the official checkpoints; read in that text, and not in
CTMSR's own paper, whose tables were not available.

| method, x4, published | ImageNet-Test PSNR | SSIM | LPIPS | RealSR PSNR | SSIM | LPIPS |
| --------------------- | -----------------: | ---: | ----: | ----------: | ---: | ----: |
| Real-ESRGAN           |              24.04 | .665 |  .254 |       25.85 | .773 |  .273 |
| ResShift, 15 steps    |              25.01 | .677 |  .231 |       26.49 | .754 |  .360 |
| SinSR, 1 step         |              24.56 | .657 |  .221 |       25.83 | .717 |  .365 |
| OSEDiff, 1 step       |              23.02 | .619 |  .253 |       25.25 | .737 |  .299 |
| RSD, 1 step           |              24.31 | .657 |  .193 |       25.91 | .754 |  .273 |
| CTMSR, 1 step, 172 M  |              24.73 | .666 |  .197 |       26.18 | .765 |  .294 |
"""
NOTES = (
    "Pictures: the middle of each; the numbers beside them are of the whole picture.",
    "Feature distance: an unlearned distance of EfficientNet-Lite0 features at 224 x 224; it is not LPIPS.",
    f"Seconds: one result of {SIDE} x {SIDE} on this machine, compiled before.",
)


class Method(NamedTuple):
    """A row: uint8 (h, w, 3) to uint8 (4h, 4w, 3), and how many parameters it has."""

    enlarge: Callable[[np.ndarray], np.ndarray]
    parameters: int


class Case(NamedTuple):
    """A test picture: uint8 (H, W, 3) and (H/4, W/4, 3); `grey` has three equal channels."""

    name: str
    high: np.ndarray
    low: np.ndarray
    grey: bool


def shrunk(high: np.ndarray) -> np.ndarray:
    """MATLAB's bicubic by 4, uint8."""
    return to_pixels(degrade.matlab_bicubic(jnp.asarray(to_unit(high)), SCALE))


def bicubic(low: np.ndarray) -> np.ndarray:
    """MATLAB's bicubic by 4 in floating point, 0 to 255."""
    x = operators.imresize(jnp.asarray(low, jnp.float32), (SCALE * low.shape[0], SCALE * low.shape[1]))
    return np.asarray(x)


def cases(folder: Path, name: str, count: int) -> list[Case]:
    """The pictures of a set."""
    place = folder / name / "HR" if (folder / name / "HR").is_dir() else folder / name
    try:
        paths = pictures.files(str(place))
    except FileNotFoundError:
        raise FileNotFoundError(f"--data and --sets name {place}, which holds no picture; give a folder") from None
    found = []
    for path in paths[: count or None]:
        photo = photos.read(path)
        height, width = (side - side % SCALE for side in photo.rgb.shape[:2])
        if min(height, width) < LEAST:
            raise ValueError(f"{path} is {width} x {height}, too small to be judged; give at least {LEAST} x {LEAST}")
        high = photo.rgb[:height, :width]
        found.append(Case(Path(path).stem, high, shrunk(high), photo.grey))
    return found


def vdsr(path: str) -> Method:
    """VDSR on the luma of the bicubic picture, whose chroma stays: all channels move by the luma's change."""
    params = baselines.load_vdsr(path)
    program = jax.jit(baselines.vdsr)

    def enlarge(low: np.ndarray) -> np.ndarray:
        rgb = bicubic(low)
        y = np.asarray(image.y_channel(jnp.asarray(rgb), (0, 255)))[..., None] / 255
        change = np.asarray(program(params, y)) - y
        return rounded(rgb + change * (255 / 219 * 255))

    return Method(enlarge, sum(p.size for p in params.values()))


def esrgan_slim(path: str) -> Method:
    params = baselines.load_esrgan_slim(path)
    program = jax.jit(baselines.esrgan_slim)
    enlarge = lambda low: rounded(255 * np.asarray(program(params, low.astype(np.float32) / 255)))
    return Method(enlarge, sum(p.size for p in params.values()))


def upscaler(path: str) -> Method:
    """An upscaler on overlapping tiles."""
    network = upscaling.load(path, SCALE)
    enlarger = upscaling.Enlarger(network)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network.params))
    return Method(lambda low: enlarger(0, to_unit(low)), parameters)


def methods() -> dict[str, Method]:
    """The rows that can be had; the others are named."""
    rows = {"bicubic": Method(lambda low: rounded(bicubic(low)), 0)}
    weights = Path(WEIGHTS.value)
    given = {
        "VDSR": (vdsr, str(weights / "vdsr_y.npz") if WEIGHTS.value else "", "--weights"),
        "ESRGAN-slim": (esrgan_slim, str(weights / "esrgan_slim_x4.npz") if WEIGHTS.value else "", "--weights"),
        "one step, for PSNR": (upscaler, DISTORTION.value, "--distortion"),
        "CTMSR stage 1": (upscaler, CTMSR.value, "--ctmsr"),
        "CTMSR with DTM": (upscaler, DTM.value, "--dtm"),
        "ResShift-style, 15 steps": (upscaler, MULTISTEP.value, "--multistep"),
    }
    rows |= {name: build(path) for name, (build, path, _) in given.items() if path}
    absent = [f"{name} ({flag})" for name, (_, path, flag) in given.items() if not path]
    if absent:
        print(f"left out, for no path is given: {', '.join(absent)}")
    return rows


def with_prior(rows: dict[str, Method]) -> dict[str, Method]:
    """The rows, and the small prior's: DPS, and ReGuidance of the best row that is a consistency network, or of DPS."""
    dps = upscaling.Solver("dps", PRIOR.value, SCALE, PRIOR_STEPS.value)
    guided = upscaling.Solver("reguidance", PRIOR.value, SCALE, PRIOR_STEPS.value)
    count = sum(leaf.size for leaf in jax.tree.leaves(dps.restore.fixed))
    first = next((name for name in ("CTMSR with DTM", "CTMSR stage 1") if name in rows), "DPS")
    by_dps = lambda low: dps(0, to_unit(low))
    propose = by_dps if first == "DPS" else rows[first].enlarge
    refine = lambda low: guided(0, to_unit(low), to_unit(propose(low)))
    return {**rows, "32 x 32 prior, DPS": Method(by_dps, count), f"ReGuidance({first})": Method(refine, count)}


@jax.jit
def luma_scores(high, x):
    """PSNR and SSIM of the luma, `SCALE` pixels shaved."""
    shave = lambda y: image.y_channel(y, (0, 255))[SCALE:-SCALE, SCALE:-SCALE, None]
    return image.psnr_y(high, x, (0, 255), SCALE), image.ssim(shave(high), shave(x), (0, 255))


@jax.jit
def grey_scores(high, x):
    """PSNR and SSIM of the grey values, `SCALE` pixels shaved."""
    shave = lambda y: jnp.asarray(y, jnp.float32)[SCALE:-SCALE, SCALE:-SCALE, :1]
    return image.psnr(shave(high), shave(x), (0, 255)), image.ssim(shave(high), shave(x), (0, 255))


class Judge:
    """`(high, x) -> feature distance`, of uint8 pictures of any size; compiled once."""

    def __init__(self) -> None:
        self.perceive = features.efficientnet_features()
        self.program = jax.jit(image.feature_distance)

    def __call__(self, high: np.ndarray, x: np.ndarray) -> float:
        size = (self.perceive.size, self.perceive.size, 3)
        seen = [jax.image.resize(jnp.asarray(to_unit(picture)), size, "bilinear") for picture in (high, x)]
        return float(self.program(self.perceive, *seen))


def scored(case: Case, x: np.ndarray, judge: Judge) -> dict[str, float]:
    """The numbers of one result."""
    if case.grey:
        x = rounded(x.mean(-1, keepdims=True)).repeat(3, -1)
    psnr, ssim = (grey_scores if case.grey else luma_scores)(case.high, x)
    return {"psnr": float(psnr), "ssim": float(ssim), "feature_distance": judge(case.high, x)}


def attempted(method: Method, case: Case, judge: Judge) -> tuple[np.ndarray, dict[str, float]]:
    """A result and its numbers: black and NaN where the method diverged."""
    try:
        x = method.enlarge(case.low)
    except upscaling.Diverged:
        return np.zeros_like(case.high), dict.fromkeys(("psnr", "ssim", "feature_distance"), float("nan"))
    return x, scored(case, x, judge)


def averages(numbers: list[dict[str, float]]) -> dict[str, float]:
    """Means over the pictures at which the method did not diverge, and their count where it did at some."""
    sound = [each for each in numbers if not np.isnan(list(each.values())).any()]
    mean = {k: float(np.mean([each[k] for each in sound])) if sound else float("nan") for k in numbers[0]}
    failed = len(numbers) - len(sound)
    return {**mean, "pictures": len(numbers), **({"averaged": len(sound), "frozen": failed} if failed else {})}


def seconds(method: Method, low: np.ndarray, rounds: int = 3) -> float | None:
    """Median over rounds, after one to compile; None where the method diverges."""
    try:
        method.enlarge(low)
    except upscaling.Diverged:
        return None
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        method.enlarge(low)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def middle(x: np.ndarray, side: int) -> np.ndarray:
    """The central square, its corner at a multiple of 4."""
    top, left = ((n - min(n, side)) // 2 // SCALE * SCALE for n in x.shape[:2])
    return x[top : top + side, left : left + side]


def record(task: str, case: Case, rows: dict[str, Method], judge: Judge, bar: tqdm) -> tuple[dict, dict]:
    """The report's record of a picture, and the numbers by method."""
    record = {"picture": case.name, "task": task, "truth": middle(case.high, SHOWN), "methods": {}}
    record["measurement"] = middle(case.low.repeat(SCALE, 0).repeat(SCALE, 1), SHOWN)
    numbers = {}
    for name, method in rows.items():
        bar.set_postfix_str(f"{case.name}, {name}")
        x, numbers[name] = attempted(method, case, judge)
        record["methods"][name] = {"image": middle(x, SHOWN), **numbers[name]}
        bar.update()
    return record, numbers


def crops(found: list[Case], side: int) -> list[Case]:
    """The middle of each picture, as a picture of its own."""
    kept = [middle(case.high, side) for case in found]
    return [case._replace(high=high, low=shrunk(high)) for case, high in zip(found, kept)]


def failures(table: list[dict]) -> tuple[int, int]:
    """How many results diverged, and how many there are, of all methods but bicubic interpolation."""
    rows = [row for row in table if row["method"] != "bicubic"]
    return sum(row.get("frozen", 0) for row in rows), sum(row["pictures"] for row in rows)


def main() -> int:
    if PRIOR_CROP.value % SCALE:
        raise ValueError(f"--prior_crop is {PRIOR_CROP.value}; give a multiple of {SCALE}")
    runtime.writable(OUT.value)
    sets = {name: cases(Path(DATA.value), name, COUNT.value) for name in SETS.value}
    rows, judge = methods(), Judge()
    jobs = [(f"{name} x{SCALE}", found, rows) for name, found in sets.items()]
    if PRIOR_CROP.value:
        first, found = next(iter(sets.items()))
        side = PRIOR_CROP.value
        jobs.append((f"{first} x{SCALE}, {side} x {side} crops", crops(found, side), with_prior(rows)))
    square = np.asarray(pictures.photographs(SIDE // SCALE, 1).pixels[0])
    timed, table, records = {}, [], []
    with tqdm(total=sum(len(found) * len(chosen) for _, found, chosen in jobs), dynamic_ncols=True) as bar:
        for task, found, chosen in jobs:
            pairs = [record(task, case, chosen, judge, bar) for case in found]
            records += [pair[0] for pair in pairs]
            for name, method in chosen.items():
                if name in rows and name not in timed:
                    timed[name] = seconds(method, to_pixels(square))
                mean = averages([numbers[name] for _, numbers in pairs])
                more = {"seconds": timed.get(name), "parameters": f"{method.parameters:,}"}
                table.append({"task": task, "method": name, **mean, **more})
    command = f"python -m experiments.tables.super_resolution {shlex.join(sys.argv[1:])}"
    written = report.write(OUT.value, "Super-resolution x4", command, records, table, NOTES)
    target = written.index.parent / "super_resolution.md"
    ledger.put(target, markdown(table, command).encode("utf-8", "replace"))
    print(target.read_text())
    failed, whole = failures(table)
    print(f"page: {written.index}{f'; {failed} of {whole} results failed, marked in the table' if failed else ''}")
    return 2 if failed and failed == whole else 0


def markdown(table: list[dict], command: str) -> str:
    """The whole text."""
    parts = ["# Super-resolution x4", __doc__.split("\n\n", 2)[2].strip(), f"`{command}`"]
    for task in dict.fromkeys(row["task"] for row in table):
        mine = [{k: v for k, v in row.items() if k != "task"} for row in table if row["task"] == task]
        parts += [f"## {task}", report.table(mine)]
        known = PUBLISHED.get(task.removesuffix(f" x{SCALE}"))
        parts += [f"Published for this set: {known}."] if known else []
    parts += ["\n".join(f"- {note}" for note in NOTES[1:]), "## Published on other data", ELSEWHERE.strip()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    runtime.run(main)

"""Enlarge photographs four times.

    python -m experiments.super_resolve photo.jpg
    python -m experiments.super_resolve 'photos/*.jpg' scans/ --model=PATH --out=DIR
    python -m experiments.super_resolve small.png --solver=reguidance

Files, folders or quoted globs; pictures of any size, which are worked on in tiles that overlap and blend. Grey stays
grey, transparency is kept (enlarged bicubically), EXIF rotation is applied, and 16 bits stay 16; --levels=LOW,HIGH (or
auto) stretches them first. docs/pictures.md tells how files are read. For each picture DIR gets
NAME_x4.png and compare/NAME.png, the middle of it beside its pixels enlarged and bicubic interpolation; DIR/index.html
shows all of these. A file that cannot be read is named at the end, and does not stop the others.

--solver=ctmsr       one step of a consistency network (seconds)
--solver=dps         the 32 x 32 prior, an inverse problem for every tile of 8 x 8 pixels: slow, minutes for a thumbnail
--solver=reguidance  likewise, refining what --candidate made (ctmsr or dps)
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from experiments import runtime  # isort: skip  (before jax)

import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv.data import listing
from experiments import photos, pictures, reading, super_resolve_page, upscaling

flags.adopt_module_key_flags(reading)
MODEL = flags.DEFINE_string("model", "embedded", "the network of --solver=ctmsr: a path, or the one that ships")
SOLVER = flags.DEFINE_string("solver", "ctmsr", "ctmsr, dps or reguidance")
CANDIDATE = flags.DEFINE_string("candidate", "ctmsr", "what --solver=reguidance refines: ctmsr or dps")
PRIOR = flags.DEFINE_string("prior", "", "the prior of dps and reguidance; default: the embedded one")
OUT = flags.DEFINE_string("out", "runs/super_resolve", "the folder of the results")
SCALE = flags.DEFINE_integer("scale", 4, "of the sides; the network must be made for it", lower_bound=2)
TILE = flags.DEFINE_integer("tile", 64, "side of ctmsr's tiles, in pixels of the input", lower_bound=16)
OVERLAP = flags.DEFINE_integer("overlap", 16, "of ctmsr's tiles, in pixels of the input", lower_bound=0)
STEPS = flags.DEFINE_integer("steps", 100, "of dps and of reguidance", lower_bound=2)
SIGMA_Y = flags.DEFINE_float("sigma_y", 0.02, "noise that dps and reguidance assume, on the [-1, 1] scale")
SEED = flags.DEFINE_integer("seed", 0, "of the noise")
LEAST = 8  # pixels

MOST = 25_000_000  # pixels, whose result takes a gigabyte in 8 bits

Enlarge = Callable[[int, np.ndarray, tqdm, bool], np.ndarray]


def listed(arguments: list[str]) -> list[str]:
    """The image files of all arguments, each once. Raises FileNotFoundError for one that matches nothing."""
    if not arguments:
        raise ValueError("no picture is given; usage: python -m experiments.super_resolve IMAGES [--out=DIR]")
    found: dict[str, None] = {}
    for argument in arguments:
        try:
            found |= dict.fromkeys(pictures.files(argument))
        except FileNotFoundError:
            raise FileNotFoundError(f"no image matches {argument!r}; give files, folders or quoted globs") from None
    return list(found)


def by_ctmsr() -> Enlarge:
    enlarger = upscaling.Enlarger(upscaling.load(MODEL.value, SCALE.value), TILE.value, OVERLAP.value)

    def enlarge(seed: int, low: np.ndarray, bar: tqdm, deep: bool) -> np.ndarray:
        bar.reset(enlarger.count(*low.shape[:2]))
        return enlarger(seed, low, bar.update, deep)

    return enlarge


def by_solver(name: str, candidate: Enlarge | None) -> Enlarge:
    solver = upscaling.Solver(name, PRIOR.value, SCALE.value, STEPS.value, SIGMA_Y.value)

    def enlarge(seed: int, low: np.ndarray, bar: tqdm, deep: bool) -> np.ndarray:
        first = candidate and photos.unit(candidate(seed, low, bar, deep))
        bar.reset(solver.count(*low.shape[:2]))
        return solver(seed, low, first, bar.update, deep)

    return enlarge


def method() -> Enlarge:
    """What --solver names."""
    name = runtime.choose("solver", SOLVER.value, ["ctmsr", "dps", "reguidance"])
    candidate = runtime.choose("candidate", CANDIDATE.value, ["ctmsr", "dps"])
    if name == "ctmsr":
        return by_ctmsr()
    if name == "dps":
        return by_solver("dps", None)
    return by_solver("reguidance", by_ctmsr() if candidate == "ctmsr" else by_solver("dps", None))


def enlarged(path: str, name: str, seed: int, enlarge: Enlarge, bar: tqdm) -> super_resolve_page.Entry:
    """Reads, enlarges and writes one picture. Raises ValueError where it cannot be read or is too small."""
    photo, start = photos.read(path, reading.reading(MOST)), time.perf_counter()
    low = photo.unit
    height, width = low.shape[:2]
    if min(height, width) < LEAST:
        raise ValueError(
            f"{listing.shown(path)} is {width} x {height}, too small to enlarge; give at least {LEAST} x {LEAST} pixels"
        )
    result = enlarge(seed, low, bar, photo.deep)
    target = Path(OUT.value) / f"{name}_x{SCALE.value}.png"
    photos.write(target, result, photo)
    compare = super_resolve_page.compare(
        Path(OUT.value) / "compare" / f"{name}.png", photo, photos.eight(result), SCALE.value
    )
    seconds = time.perf_counter() - start
    entry = super_resolve_page.Entry(name, (width, height), target, compare, seconds, photo.notes)
    bar.write(entry.line())
    return entry


def main(arguments: list[str]) -> None:
    paths = listed(arguments)
    names, enlarge = pictures.names(paths), method()
    entries, failed = [], []
    with tqdm(total=0, unit="tile", dynamic_ncols=True, smoothing=0) as bar:
        for i, (path, name) in enumerate(zip(paths, names)):
            bar.set_description(f"{name} ({i + 1} of {len(paths)})")
            try:
                entries.append(enlarged(path, name, SEED.value, enlarge, bar))
            except ValueError as error:
                failed.append(str(error) if listing.shown(path) in str(error) else f"{listing.shown(path)}: {error}")
    if entries:
        command = f"python -m experiments.super_resolve {listing.shown(shlex.join(sys.argv[1:]))}"
        print(f"page: {super_resolve_page.write(Path(OUT.value), command, entries, failed)}")
    if failed:
        count = f"{len(failed)} of {len(paths)} pictures failed: " if len(paths) > 1 else ""
        raise ValueError(f"{count}{'; '.join(failed)}")


if __name__ == "__main__":
    runtime.run(main, positional=True)

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

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.common import runtime  # isort: skip  (before jax)

import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv import schema
from diffinv.data import listing
from experiments.common import photos, pictures, reading
from experiments.upscale import page, upscaling

flags.adopt_module_key_flags(reading)
MODEL = runtime.flag(
    "model", "embedded", schema.path("the network of --solver=ctmsr: a path, or 'embedded' for the one that ships")
)
PRIOR = runtime.flag("prior", "", schema.path("the prior of dps and reguidance: a path, or '' for the embedded one"))
OUT = runtime.flag("out", "runs/super_resolve", schema.path("the folder of the results"))
SCALE = runtime.flag("scale", 4, schema.whole("of the sides; the network must be made for it", low=2, high=16))
TILE = runtime.flag("tile", 64, schema.whole("side of ctmsr's tiles", low=16, high=512, unit="pixels of the input"))
OVERLAP = runtime.flag(
    "overlap", 16, schema.whole("of ctmsr's tiles, below --tile", low=0, high=511, unit="pixels of the input")
)
STEPS = runtime.flag("steps", 100, schema.whole("of dps and of reguidance", low=2, high=100_000))
SIGMA_Y = runtime.flag(
    "sigma_y",
    0.02,
    schema.number("noise that dps and reguidance assume", above=0, high=10, unit="on [-1, 1]"),
)
SEED = runtime.flag("seed", 0, schema.whole("of the noise", low=0))
LEAST = 8  # pixels

Enlarge = Callable[[int, np.ndarray, tqdm, bool], np.ndarray]


class Way(NamedTuple):
    """A way to enlarge: how it is made, and how many pixels a picture may have, by the memory that one takes."""

    make: Callable[[], Enlarge]
    most: int


def images_of(arguments: list[str]) -> list[str]:
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


def by_solver(name: str, candidate: Enlarge | None = None) -> Enlarge:
    solver = upscaling.Solver(name, PRIOR.value, SCALE.value, STEPS.value, SIGMA_Y.value)

    def enlarge(seed: int, low: np.ndarray, bar: tqdm, deep: bool) -> np.ndarray:
        first = candidate and photos.unit(candidate(seed, low, bar, deep))
        bar.reset(solver.count(*low.shape[:2]))
        return solver(seed, low, first, bar.update, deep)

    return enlarge


def by_refining() -> Enlarge:
    return by_solver("reguidance", WAYS[CANDIDATE.value].make())


SMALL = 1_000_000
"""Pixels of a solver, which takes about 2 kB for one: it keeps all its tiles."""
WAYS = {
    "ctmsr": Way(by_ctmsr, 25_000_000),  # 200 bytes for a pixel, 5 GB in all, also of 16 bits
    "dps": Way(lambda: by_solver("dps"), SMALL),
    "reguidance": Way(by_refining, SMALL),
}
SOLVER = runtime.flag("solver", "ctmsr", schema.choice(list(WAYS), "what enlarges"))
CANDIDATE = runtime.flag(
    "candidate",
    "ctmsr",
    schema.choice([way for way in WAYS if way != "reguidance"], "what --solver=reguidance refines"),
)


def targets(name: str) -> tuple[Path, Path]:
    """Where the result of a name and its comparison go."""
    folder = Path(OUT.value)
    return folder / f"{name}_x{SCALE.value}.png", folder / "compare" / f"{name}.png"


def require_kept(paths: list[str], names: list[str]) -> None:
    """ValueError where a result would overwrite one of the pictures that are given."""
    given = {os.path.realpath(path): path for path in paths}
    for target in (target for name in names for target in targets(name)):
        if taken := given.get(os.path.realpath(target)):
            raise ValueError(
                f"--out is {OUT.value!r}, where {listing.printable_name(taken)} would be overwritten; give another"
            )


def enlarged(path: str, name: str, seed: int, enlarge: Enlarge, bar: tqdm) -> page.Entry:
    """Reads, enlarges and writes one picture. Raises ValueError where it cannot be read or is too small."""
    photo, start = photos.read(path, reading.reading(WAYS[SOLVER.value].most)), time.perf_counter()
    low = photo.unit
    height, width = low.shape[:2]
    if min(height, width) < LEAST:
        raise ValueError(
            f"{listing.printable_name(path)} is {width} x {height}, too small to enlarge; "
            f"give at least {LEAST} x {LEAST} pixels"
        )
    result = enlarge(seed, low, bar, photo.deep)
    target, compare = targets(name)
    photos.write(target, result, photo)
    page.compare(compare, photo, result, SCALE.value)
    seconds = time.perf_counter() - start
    entry = page.Entry(name, (width, height), target, compare, seconds, photo.notes)
    bar.write(entry.line())
    return entry


def main(arguments: list[str]) -> None:
    if OVERLAP.value >= TILE.value:
        raise ValueError(f"--overlap is {OVERLAP.value} and --tile {TILE.value}; give an overlap below the tile's side")
    paths = images_of(arguments)
    runtime.writable(OUT.value)
    names = pictures.names(paths)
    require_kept(paths, names)
    enlarge = WAYS[SOLVER.value].make()
    entries, failed = [], []
    with tqdm(total=0, unit="tile", dynamic_ncols=True, smoothing=0) as bar:
        for i, (path, name) in enumerate(zip(paths, names)):
            bar.set_description(f"{name} ({i + 1} of {len(paths)})")
            try:
                entries.append(enlarged(path, name, SEED.value, enlarge, bar))
            except ValueError as error:
                failed.append(
                    str(error)
                    if listing.printable_name(path) in str(error)
                    else f"{listing.printable_name(path)}: {error}"
                )
    if entries:
        command = f"python -m experiments.super_resolve {listing.printable_name(shlex.join(sys.argv[1:]))}"
        print(f"page: {page.write(Path(OUT.value), command, entries, failed)}")
    if failed:
        count = f"{len(failed)} of {len(paths)} pictures failed: " if len(paths) > 1 else ""
        raise ValueError(f"{count}{'; '.join(failed)}")


if __name__ == "__main__":
    runtime.run(main, positional=True)

"""One part of a run of `experiments.reconstruct`: a configuration, its prior, its pictures, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffinv import LatentPrior, weights
from diffinv.operators.base import LinearOperator
from diffinv.prior import Prior
from experiments import report
from experiments.common import keeping, photos, priors
from experiments.common.commandline import listed
from experiments.methods import solvers
from experiments.methods.table import METHODS
from experiments.restore import mri, operators, scans
from experiments.restore.bench import Bench, pixels
from experiments.restore.scans import Scan
from experiments.restore.shots import Shots, shots

# Which a result depends on, beside the library.
CODE = (
    "methods/table.py",
    "methods/declared.py",
    "methods/baselines.py",
    "methods/derivative_free.py",
    "methods/grids.py",
    "methods/latent.py",
    "methods/running.py",
    "methods/solvers.py",
    "restore/operators.py",
    "restore/mri.py",
    "restore/scans.py",
    "restore/phantoms.py",
    "restore/bench.py",
    "restore/programs.py",
    "restore/part.py",
    "restore/shots.py",
    "restore/fields.py",
    "common/pictures.py",
    "common/priors.py",
)


class Part(NamedTuple):
    """What is restored together.

    Attributes:
      config: of `experiments.reconstruct`.
      card: of the prior.
      shots: the pictures; measurements where `degraded`.
      settings: all that the results depend on, as JSON holds it.
      title: before the names of its tasks, where several parts share a report.
      degraded: the pictures are measurements, and no truth is known.
      scans: the k-space that is measured of each picture, where it is no simulation.
    """

    config: ConfigDict
    card: dict[str, Any]
    shots: Shots
    settings: dict[str, Any]
    title: str = ""
    degraded: bool = False
    scans: tuple[Scan, ...] = ()

    @property
    def tasks(self) -> list[str]:
        """What is undone."""
        return listed(self.config.task)

    @property
    def methods(self) -> list[str]:
        """What restores, and what wrappers refine."""
        return solvers.chosen(self.config)

    def called(self, task: str) -> str:
        """The task's name in the report."""
        return f"{self.title}: {task}" if self.title else task

    def shape(self, task: str, place: int) -> tuple[int, ...]:
        """Of the restored picture, before it is cropped to the given one's size."""
        own = self.shots.pixels[place].shape
        if self.degraded and not self.scans:
            return operators.restored(self.config, task, own)
        return operators.damaged(self.config, task, own) if weights.any_size(self.card) else own

    def prior(self, shape: tuple[int, ...]) -> Prior | LatentPrior:
        """For pictures of this shape."""
        return priors.load(self.config.prior, "config.prior", shape, self.config.tile, latent=True)[0]

    def stamps(self) -> dict[tuple[str, str], str]:
        """What each record is made of, by the names of its task and picture."""
        found = keeping.stamps(self.settings, [each.kspace for each in self.scans] or self.shots.pixels)
        pairs = list(zip(self.shots.names, found, strict=True))
        return {(self.called(task), name): stamp for task in self.tasks for name, stamp in pairs}


def part(config: ConfigDict, path: str = "", title: str = "", degraded: bool = False) -> Part:
    """The part of a configuration, with the pictures of a path, or bundled ones where it is empty.

    Raises ValueError, or an OSError, for a prior, pictures and tasks that do not fit.
    """
    prior, card = priors.load(config.prior, "config.prior", latent=True)
    any_size, channels = weights.any_size(card), prior.shape[2]
    shape = (config.size, config.size, channels) if any_size else prior.shape
    if degraded and not any_size:
        size = f"{config.prior!r}, of {shape[0]} x {shape[1]} alone"
        raise ValueError(f"config.prior is {size}; --degraded needs one of any size, photo say")
    measured = _measured(config, prior.shape, any_size, degraded)
    given = path, config.bundled, config.pictures, shape, any_size, config.every
    found = _scanned(measured) if measured else shots(*given)
    settings = json.loads(config.to_json_best_effort())
    settings["made_by"] = {"prior": keeping.weights(card), **keeping.code(*CODE), **_given(config)}
    made = Part(config, card, found, settings, title, degraded, measured)
    for task in made.tasks:
        for places in found.alike():
            _require_fit(made, task, places[0])
    return made


def _measured(config: ConfigDict, shape: tuple[int, ...], any_size: bool, degraded: bool) -> tuple[Scan, ...]:
    """The scans of `config.kspace`; ValueError where the prior or a task does not fit them."""
    if not config.kspace:
        return ()
    found = scans.scans(config.kspace, config.pictures)
    if shape[2] != 1:
        raise ValueError(f"config.prior is {config.prior!r}, of RGB pictures, and --kspace has slices; give brain128")
    for each in found:
        if not any_size and each.sampled.shape != shape[:2]:
            sides = "{} x {}, and config.prior of {} x {} alone".format(*each.sampled.shape, *shape[:2])
            raise ValueError(f"{each.name} is of {sides}; give a prior of any size, brain128 say")
    mri.require_tasks(config, listed(config.task), found, degraded)
    return tuple(found)


def _scanned(found: tuple[Scan, ...]) -> Shots:
    """The magnitudes of scans, which are the truth where all was sampled."""
    note = "; ".join(each.note for each in found)
    return Shots(report.readable([each.name for each in found]), [each.magnitude for each in found], note)


def _given(config: ConfigDict) -> dict[str, str]:
    """Digests of the files that operators read."""
    files = {"mask": config.mask, "kernel": config.kernel}
    return {name: keeping.digest(Path(file).read_bytes()) for name, file in files.items() if file}


def _require_fit(made: Part, task: str, place: int) -> None:
    """ValueError where the task, or a method on it, cannot be had on pictures of the shape of this one."""
    shape = made.shape(task, place)
    operators.require_fit(made.config, [task], shape)
    scanned = lambda key: mri.measurement(made.config, task, key, made.scans[place], made.degraded).operator
    simulated = lambda key: operators.OPERATORS[task](made.config, key, shape)
    operator = jax.eval_shape(scanned if made.scans else simulated, jax.random.key(0))
    plain = isinstance(operator, LinearOperator) and type(operator).spectrum is LinearOperator.spectrum
    wrapping = [name for name in made.methods if METHODS[solvers.own(name)].wrap]
    run = {*map(solvers.own, made.methods), *(solvers.base(name, made.config) for name in wrapping)}
    asking = [name for name in run if METHODS[name].needs_spectrum]
    prior = made.prior(shape)
    solvers.require_codes(run, made.config, prior)
    if isinstance(prior, LatentPrior) or not isinstance(operator, LinearOperator):
        solvers.require_able(run, made.config, task, prior, operator)
    if plain and asking:
        raise ValueError(
            f"config.task is {task}, whose singular values are not known, and config.solver or config.base is "
            f"{', '.join(sorted(asking))}, which want them; give diffpir, dps or mmps, say"
        )


def restore(made: Part, done: dict, keep, bar) -> None:
    """Every task, group and method of a part; each group's pictures are kept as soon as they are finished.

    `done` holds the records by the names of task and picture, and gets the new ones, as `keep(record)` returns them.
    """
    for task in made.tasks:
        for places in made.shots.alike():
            _restore_alike(made, task, places, done, keep, bar)


def _restore_alike(made: Part, task: str, places: list[int], done: dict, keep, bar) -> None:
    """Pictures of one shape."""
    names = made.shots.names
    missing = [(made.called(task), names[i]) for i in places if (made.called(task), names[i]) not in done]
    if not missing:
        bar.update(len(made.methods) * len(places))
        return
    shape, sides = made.shape(task, places[0]), None if made.degraded else made.shots.pixels[places[0]].shape[:2]
    pictures = np.stack(
        [made.shots.pixels[i] if made.degraded else extended(made.shots.pixels[i], shape) for i in places]
    )
    given = [made.scans[i] for i in places] if made.scans else []
    bench = Bench(made.config, made.prior(shape), task, pictures, made.degraded, given)
    for group in range(-(-len(places) // bench.group)):
        members = bench.members(group)[: len(places) - group * bench.group]
        if all((made.called(task), names[places[i]]) in done for i in members):
            bar.update(len(made.methods) * len(members))
            continue
        results = {}
        for name in made.methods:
            title = solvers.label(name, made.config)
            about = f"{made.called(task)}, {title}"
            bench.tell = lambda text, about=about: bar.set_postfix_str(", ".join(filter(None, [about, text])))
            results[title] = bench.restore(name, group)
            bar.update(len(members))
        for row, i in enumerate(members):
            cases = {title: cropped(rows[row], sides) for title, rows in results.items()}
            record = _record(made, bench, task, places[i], int(i), cases)
            done[record["task"], record["picture"]] = keep(made, places[i], record)


def extended(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mirrored below and to the right, up to the sides of `shape`."""
    return np.pad(pixels, [(0, whole - side) for whole, side in zip(shape, pixels.shape)], "symmetric")


def cropped(case: dict, sides: tuple[int, int] | None) -> dict:
    """What was restored of a picture that had been extended, at its own size."""
    if sides is None:
        return case
    return {**case, **{name: case[name][: sides[0], : sides[1]] for name in ("x", "image")}}


def _record(made: Part, bench: Bench, task: str, place: int, row: int, cases: dict[str, dict]) -> dict:
    truth = {} if made.degraded else {"truth": pixels(made.shots.pixels[place])}
    record = {"picture": made.shots.names[place], "task": made.called(task), **truth, "measurement": bench.seen(row)}
    return {**record, "methods": cases}


def written(made: Part, place: int, record: dict, folder: Path) -> dict:
    """The record, without its floats; where the picture is the user's, they are written in its size, depth and kind.

    `files`, paths in `folder`, says where.
    """
    cases = {title: dict(case) for title, case in record["methods"].items()}
    floats = {title: case.pop("x") for title, case in cases.items()}
    files = []
    if made.shots.photos is not None:
        photo, home = made.shots.photos[place], Path("restored") / report.slug(record["task"])
        names = {solvers.label(name, made.config): name for name in made.methods}
        for title, x in floats.items():
            method = names[title].replace("(", "-").rstrip(")")
            files.append((home / f"{report.slug(record['picture'])}-{method}.png").as_posix())
            photos.write(folder / files[-1], stored(x, photo.deep), photo)
    return {**record, "methods": cases, **({"files": files} if files else {})}


def stored(x, deep: bool):
    """(H, W, C) in [-1, 1] as (H, W, 3) whole numbers, of 16 bits where `deep`."""
    rgb = jnp.broadcast_to(x, (*x.shape[:2], 3))
    return photos.sixteen(rgb) if deep else pixels(rgb)

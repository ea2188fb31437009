"""Restore degraded pictures and report how well.

    python -m experiments.reconstruct
    python -m experiments.reconstruct --images='photos/*.jpg' --config.task=box_inpainting --config.solver=reguidance

Without arguments: eight photographs that install with scikit-image, a large box and super-resolution x4, each restored
by DPS, DAPS and ReGuidance(DAPS) under the embedded 32 x 32 prior. Everything is left in runs/NAME/: index.html,
gallery.png, results.json and one PNG a picture. Pictures that are finished are kept when a run is stopped or fails, and
the same command goes on with the others.

It ends with status 0, 1 where something given is wrong, 2 where every reconstruction failed, 130 after Ctrl-C. --help
lists tasks, solvers and all their settings.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv import schema
from diffinv.prior import Prior
from experiments import report
from experiments.common import keeping, pictures, priors, reading
from experiments.common.commandline import listed
from experiments.methods import solvers
from experiments.restore.bench import Bench, pixels
from experiments.restore.fields import FIELDS, check
from experiments.restore.operators import require_fit, shown

flags.adopt_module_key_flags(reading)
CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "reconstruct.py"),
    "a configuration; FILE:smoke for a quick run",
    FIELDS,
    check,
)
IMAGES = runtime.flag("images", "", schema.path("a file, a folder or a quoted glob; default: bundled photographs"))
FRESH = runtime.flag("fresh", False, schema.switch("restore everything again, whatever the folder holds"))
OUT = runtime.flag("out", "runs", schema.path("the folder of all runs"))

# Which a result depends on, beside the library.
CODE = (
    "methods/table.py",
    "methods/grids.py",
    "methods/solvers.py",
    "restore/operators.py",
    "restore/bench.py",
    "restore/fields.py",
    "common/pictures.py",
    "common/priors.py",
)
TITLE = "Restoration with a diffusion prior"
NOTES = (
    "Feature distance: an unlearned distance of EfficientNet-Lite0 features, not LPIPS. Residual: |y - A x| of the "
    "picture shown, beside the floor that noise alone would leave. NFE: evaluations of the network; a solver that "
    "differentiates it also counts VJPs. Seconds: per picture, without compiling.",
    "Means are over the reconstructions that did not fail; where some did, the table says how many these are.",
)


def folder_of(config, settings: dict, tasks: list[str]) -> Path:
    """runs/NAME; without a name, the tasks and a digest of the settings, so that another configuration has its own."""
    return Path(OUT.value) / (config.name or f"{'+'.join(tasks)}-{keeping.digest(settings)[:6]}")


def restore_all(config, prior: Prior, names: list[str], truth: np.ndarray, done: dict, keep) -> None:
    """Every task, group and solver; each group's pictures are kept as soon as they are finished."""
    count, chosen, tasks = len(names), listed(config.solver), listed(config.task)
    bar = tqdm(total=len(tasks) * len(chosen) * count, unit="picture", smoothing=0, dynamic_ncols=True)
    for task in tasks:
        if all((task, name) in done for name in names):
            bar.update(len(chosen) * count)
            continue
        bench = Bench(config, prior, task, truth)
        for group in range(-(-count // bench.group)):
            members = bench.members(group)[: count - group * bench.group]
            if all((task, names[i]) in done for i in members):
                bar.update(len(chosen) * len(members))
                continue
            results = {}
            for name in chosen:
                title = solvers.label(name, config)
                about = f"{task}, {title}"
                bench.tell = lambda text, about=about: bar.set_postfix_str(", ".join(filter(None, [about, text])))
                results[title] = bench.restore(name, group)
                bar.update(len(members))
            for place, i in enumerate(members):
                record = {
                    "picture": names[i],
                    "task": task,
                    "truth": pixels(truth[i]),
                    "measurement": pixels(shown(bench.measurements.y[i], prior.shape)),
                    "methods": {title: rows[place] for title, rows in results.items()},
                }
                done[task, names[i]] = keep(i, record)
    bar.close()


def main() -> int:
    config = CONFIG.value
    runtime.writable(OUT.value)
    prior, card = priors.load(config.prior, "config.prior")
    tasks, (height, width, _) = listed(config.task), prior.shape
    require_fit(config, tasks, prior.shape)
    count = config.pictures
    shots = pictures.own(IMAGES.value, prior.shape, count) if IMAGES.value else pictures.photographs(prior.shape, count)
    names = report.readable(shots.names)
    command = f"python -m experiments.reconstruct {shlex.join(sys.argv[1:])}".strip()
    settings = {**json.loads(config.to_json_best_effort()), "images": IMAGES.value and os.path.abspath(IMAGES.value)}
    settings["made_by"] = {"prior": keeping.weights(card), **keeping.code(*CODE)}
    folder = runtime.writable(folder_of(config, settings, tasks))
    stamps = keeping.stamps(settings, shots.pixels)
    with keeping.alone(folder):
        wanted = {(task, name): stamp for task in tasks for name, stamp in zip(names, stamps, strict=True)}
        done, notes = ({}, []) if FRESH.value else keeping.kept(folder, settings, wanted)
        print(*filter(None, [shots.note, *notes]), sep="\n", end="\n" * bool(shots.note or notes))
        print(f"{len(names)} pictures of {height} x {width}, sigma_y = {config.sigma_y} on the [-1, 1] scale")
        print(f"results go to {folder}; compiled programs are kept in {runtime.cache_folder()}", flush=True)

        def keep(place: int, record: dict) -> dict:
            record |= {"stamp": stamps[place]}
            report.append(folder, record, TITLE, command, settings)
            return record

        restore_all(config, prior, names, shots.pixels, done, keep)
        records = [done[task, name] for task in tasks for name in names]
        written = report.write(folder, TITLE, command, records, notes=NOTES, config=settings)
    print(report.table(report.summarise(records)))
    failed, whole = report.failures(records)
    words = f"; {failed} of {whole} reconstructions failed, marked in the table" if failed else ""
    print(f"report: {written.index}{words}", flush=True)
    return 2 if failed == whole else 0


if __name__ == "__main__":
    runtime.run(main)

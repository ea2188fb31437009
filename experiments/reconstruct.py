"""Restore degraded pictures and report how well.

    python -m experiments.reconstruct
    python -m experiments.reconstruct --images='photos/*.jpg' --config.task=motion_blur --config.solver=dps
    python -m experiments.reconstruct --degraded --images=old.jpg --config.task=inpaint --mask=scratches.png

Without arguments: photographs that install with scikit-image, at 256 x 256, with four kinds of damage, each restored by
a fast solver and by DPS under the prior `photo`; then satellite pictures under `satellite64` with a hidden box, by
DDRM, DAPS and ReGuidance of each. Your own pictures keep their size: they are damaged and restored, or, with
--degraded, restored from the damage that they have. Everything is left in runs/NAME/: index.html, gallery.png,
results.json, one PNG a picture, and in restored/ your own pictures in their size and bit depth. Pictures that are
finished are kept when a run is stopped or fails, and the same command goes on with the others.

It ends with status 0, 1 where something given is wrong, 2 where every reconstruction failed, 130 after Ctrl-C. --help
lists tasks, solvers and all their settings.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

from absl import flags
from tqdm import tqdm

from configs import reconstruct as standard
from diffinv import schema
from experiments import report
from experiments.common import keeping, profiling, reading
from experiments.restore import part as parts
from experiments.restore.fields import FIELDS, check
from experiments.restore.part import Part

flags.adopt_module_key_flags(reading)
flags.adopt_module_key_flags(profiling)
CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "reconstruct.py"),
    "a configuration; FILE:smoke for a quick run",
    FIELDS,
    check,
)
IMAGES = runtime.flag("images", "", schema.path("a file, a folder or a quoted glob; default: bundled pictures"))
DEGRADED = runtime.flag("degraded", False, schema.switch("the pictures are the measurements; no truth is known"))
MASK = runtime.flag("mask", "", schema.path("config.mask: a picture of the same size, bright where pixels are missing"))
KERNEL = runtime.flag("kernel", "", schema.path("config.kernel: of task deblur, a picture or a .npy file"))
KSPACE = runtime.flag("kspace", "", schema.path("config.kspace: of mri, mri_4, mri_8: a .npz file or a quoted glob"))
FRESH = runtime.flag("fresh", False, schema.switch("restore everything again, whatever the folder holds"))
OUT = runtime.flag("out", "runs", schema.path("the folder of all runs"))

KINDS = {"photographs": "photographs", "satellite": "satellite pictures"}
TITLE = "Restoration with a diffusion prior"
NOTES = (
    "Feature distance: an unlearned distance of EfficientNet-Lite0 features, not LPIPS. Residual: |y - A x| of the "
    "picture shown, beside the floor that noise alone would leave. NFE: evaluations of the network; a solver that "
    "differentiates it also counts VJPs. Seconds: per picture, without compiling.",
    "Means are over the reconstructions that did not fail; where some did, the table says how many these are.",
)


def main_job(config) -> bool:
    """Whether nothing was asked for but what the configuration's file has: then `also` is run as well."""
    plain = standard.get_config()
    return not IMAGES.value and all(config[name] == plain[name] for name in ("task", "solver", "prior", "bundled"))


def chosen() -> list[Part]:
    """The parts of this run: one, or two in the main job."""
    config, images = CONFIG.value, IMAGES.value
    with config.unlocked():
        config.mask, config.kernel = MASK.value or config.mask, KERNEL.value or config.kernel
        config.kspace = KSPACE.value or config.kspace
    if DEGRADED.value and not (images or config.kspace):
        raise ValueError("--degraded needs --images, the pictures that are to be restored, or --kspace")
    if images and config.kspace:
        raise ValueError("--images and --kspace are both given; give one of them")
    several = bool(config.also) and main_job(config)
    found = [parts.part(config, images, config.bundled if several else "", DEGRADED.value)]
    if several:
        other = importlib.import_module(f"configs.{config.also}").get_config("main")
        other.seed, other.optimisation = config.seed, config.optimisation
        found.append(parts.part(other, "", other.bundled))
    return found


def folder_of(config, settings: dict, found: list[Part]) -> Path:
    """runs/NAME; without a name, the tasks and a digest of the settings, so that another configuration has its own."""
    tasks = "main" if len(found) > 1 else "+".join(found[0].tasks)
    return Path(OUT.value) / (config.name or f"{tasks}-{keeping.digest(settings)[:6]}")


def settings_of(found: list[Part]) -> dict:
    """All that the results of a run depend on."""
    settings = {**found[0].settings, "images": IMAGES.value and os.path.abspath(IMAGES.value)}
    settings |= {"degraded": True} if DEGRADED.value else {}
    return settings | {other.title: other.settings for other in found[1:]}


def lost(folder: Path, record: dict) -> bool:
    """Whether a picture that was written for the user is gone."""
    return not all((folder / name).exists() for name in record.get("files", []))


def about(found: list[Part]) -> list[str]:
    """What is restored, a line a part."""
    lines = []
    for each in found:
        sizes = " and ".join(dict.fromkeys("{} x {}".format(*pixels.shape[:2]) for pixels in each.shots.pixels))
        kind = f"{KINDS[each.title]} of " if each.title else "pictures of "
        prior = each.card.get("name", "a prior")
        noise = "the noise measured" if each.scans else f"sigma_y = {each.config.sigma_y}"
        lines += [each.shots.note] if each.shots.note else []
        lines.append(f"{len(each.shots.names)} {kind}{sizes} under {prior}, {noise} on the [-1, 1] scale")
    return lines


def main() -> int:
    runtime.writable(OUT.value)
    found = chosen()
    command = f"python -m experiments.reconstruct {shlex.join(sys.argv[1:])}".strip()
    settings = settings_of(found)
    folder = runtime.writable(folder_of(CONFIG.value, settings, found))
    with keeping.alone(folder):
        stamps = {key: stamp for each in found for key, stamp in each.stamps().items()}
        done, notes = ({}, []) if FRESH.value else keeping.kept(folder, settings, stamps)
        done = {key: record for key, record in done.items() if not lost(folder, record)}
        print(*notes, *about(found), sep="\n")
        print(f"results go to {folder}; compiled programs are kept in {runtime.cache_folder()}", flush=True)

        def keep(made: Part, place: int, record: dict) -> dict:
            record = parts.written(made, place, record, folder)
            record["stamp"] = stamps[record["task"], record["picture"]]
            report.append(folder, record, TITLE, command, settings)
            return record

        whole = sum(len(each.tasks) * len(each.methods) * len(each.shots.names) for each in found)
        with tqdm(total=whole, unit="picture", smoothing=0, dynamic_ncols=True) as bar:
            for each in found:
                parts.restore(each, done, keep, bar)
        records = [done[each.called(task), name] for each in found for task in each.tasks for name in each.shots.names]
        written = report.write(folder, TITLE, command, records, notes=NOTES, config=settings)
    print(report.table(report.summarise(records)))
    if added := report.paired(records):
        print("\nwhat is added to the base: mean difference by picture ± half the 95 % interval (Student's)")
        print(report.table(added))
    failed, whole = report.failures(records)
    words = f"; {failed} of {whole} reconstructions failed, marked in the table" if failed else ""
    print(f"report: {written.index}{words}", flush=True)
    return 2 if failed == whole else 0


if __name__ == "__main__":
    runtime.run(main)

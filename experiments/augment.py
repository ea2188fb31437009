"""Diffusion data augmentation: a folder of classes becomes an augmented folder, and a report of what that is worth.

    python -m experiments.augment --config=configs/augment_few_shot.py
    python -m experiments.augment --config=configs/augment_folder.py --config.data=PATH

OUT/NAME/augmented/ has the real pictures and the made ones, one folder a class, with provenance.jsonl; index.html says
what the made ones gain over oversampling, RandAugment, mixup and others, seed by seed, in words too. Each seed's scores
are kept: a run that was stopped goes on, with more seeds it computes those that are missing.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common import runtime  # isort: skip  (before jax)

import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv import schema
from diffinv.data import listing
from experiments.augmenting import bench, fields, output, page, teaching
from experiments.augmenting import pool as pools
from experiments.augmenting.splits import FewShot, of_classes
from experiments.common import keeping, reading
from experiments.evaluation import embedders
from experiments.report import ledger

CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "augment_few_shot.py"),
    "a configuration; FILE:smoke for a quick run",
    fields.fields,
    fields.check,
)
OUT = runtime.flag("out", "runs", schema.path("the folder of all runs"))
FRESH = runtime.flag("fresh", False, schema.switch("judge again what an earlier start has finished"))
flags.adopt_module_key_flags(reading)
FREE = ("name", "seeds", "data_folder")
"""Fields on which no seed's result depends."""


def settings(config, given: Sequence[embedders.Embedder]) -> dict[str, Any]:
    """What a seed's result depends on, the given networks by their digests, as JSON holds it."""
    own = {name: value for name, value in config.to_dict().items() if name not in FREE}
    networks = embedders.accounts(given)
    return json.loads(json.dumps({"config": own, "networks": networks, "made_by": keeping.code("augment.py")}))


def finished(path: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """A seed's record of an earlier start. Raises ValueError where it was made by other settings or code."""
    if FRESH.value or not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return None
    if words := keeping.changed(found["settings"], wanted):
        raise ValueError(f"{path} holds a run with {'; '.join(words[:3])}; {keeping.REMEDY}")
    return found["record"]


def judged(config, shared: bench.Bench, pool: pools.Pool, rare: Any, folder: Path) -> list[dict[str, Any]]:
    """The records of all seeds, of which those that are missing are computed."""
    records, wanted = [], settings(config, shared.given)
    with tqdm(range(config.seed, config.seed + config.seeds), unit="seed") as bar:
        for seed in bar:
            path = folder / "seeds" / f"{seed}.json"
            found = finished(path, wanted)
            if found is None:
                split = pools.split(config, pool, seed, rare)
                watch = lambda name, seed=seed: bar.set_postfix_str(f"seed {seed}, {name}")
                found = bench.record(shared, split, seed, watch)
                ledger.put(path, json.dumps({"settings": wanted, "record": found}).encode())
            records.append(found)
    return records


def strength(records: list[dict[str, Any]], shared: bench.Bench, method: str) -> str:
    """The method's strength for the augmented set: that which validation chose most often; of no seed, the middle."""
    known = list(shared.methods[method])
    if not records:
        return known[len(known) // 2]
    picked = [bench.alone(bench.chosen(record, method, judge)) for record in records for judge in page.judges(records)]
    return max(known, key=picked.count)


def augmented(config, shared: bench.Bench, split: FewShot, pool: pools.Pool, folder: Path, chosen: str) -> str:
    """Writes the augmented set of a split, by the first method; the sheets of its pictures, as HTML."""
    method = next(iter(shared.methods))
    only = shared._replace(methods={method: {chosen: shared.methods[method][chosen]}})
    drawn = bench.draw(only, split, config.seed)
    made, kept = drawn.made[method, chosen], drawn.kept[method, chosen]
    told: dict[str, Any] = {"method": method, "strength": chosen}
    told["model"] = config.model or "trained on the frequent classes"
    told["seed"] = config.seed
    output.write(folder / "augmented", split, made, kept.mask, pool.classes, pool.name, told)
    order = np.random.default_rng(config.seed).permutation(len(made.labels))
    images, mask = made.images[order], kept.mask[order]
    real = of_classes(split.train, split.rare).images
    what = f"{method} {chosen}".strip()
    return "".join(
        [
            page.sheet(images[mask], "Made pictures", f"{what}; {page.some(mask.sum())}"),
            page.sheet(images[~mask], "Rejected by the filters", page.some((~mask).sum())),
            page.sheet(real, "The real pictures of the rare classes", page.some(len(real))),
        ]
    )


def main() -> None:
    config = CONFIG.value
    folder = Path(runtime.writable(OUT.value)) / config.name
    folder.mkdir(parents=True, exist_ok=True)
    with keeping.alone(folder):
        found = pools.pool(config, lambda records: tqdm(records, desc="preparing", unit="picture", leave=False))
        for line in found.skipped[:5]:
            print(f"left out: {line}")
        source = teaching.teacher(config, found.classes)
        counts = np.bincount(found.pictures.labels, minlength=len(found.classes))
        rare = pools.rare_classes(config, found.classes, counts, source.known)
        shared = bench.bench(config, source, folder)
        split = pools.split(config, found, config.seed, rare)
        records = judged(config, shared, found, rare, folder)
        methods = list(shared.methods)
        sheets = augmented(config, shared, split, found, folder, strength(records, shared, methods[0]))
        about = [told(config, found, split)]
        if not records:
            about.append(
                "Nothing was judged: the pictures have the middle one of config.sigmas, which may be wrong here."
            )
        command = f"python -m experiments.augment {listing.printable_name(shlex.join(sys.argv[1:]))}"
        notes = embedders.notes(embedders.accounts(shared.given), "the unseen real ones")
        text = page.page(records, methods, config.size, command, about, sheets, notes, config.test == 0)
        ledger.put(folder / "index.html", text.encode("utf-8", "replace"))
    if records:
        for judge in page.judges(records):
            print(f"\n{judge}")
            for row in page.table(records, judge):
                cells = " ".join(f"{mean:.3f}" for mean, _ in row.scores.values())
                print(f"  {row.arm:22} {cells}  {page.points(row.gain)}  {row.strengths}")
        print("", *page.verdicts(records, methods), sep="\n")
    print(f"\naugmented set: {folder / 'augmented'}\npage: {folder / 'index.html'}")


def told(config, pool: pools.Pool, split: FewShot) -> str:
    """What the pictures are, in a sentence."""
    names = ", ".join(pool.classes[label] for label in split.rare)
    counts = f"{len(split.train.labels)} for training, {len(split.validation.labels)} for validation, "
    counts += f"{len(split.test.labels)} for the test"
    shots = f"{config.shots} pictures" if config.shots else "all pictures"
    where = f"{config.data}: {len(pool.classes)} classes, {config.size} x {config.size} pixels; seed {config.seed}: "
    trust = f"; {config.model} was trained elsewhere: that it has not seen the test is yours to know"
    return f"{where}{counts}; rare with {shots} each: {names}" + (trust if config.model else "")


if __name__ == "__main__":
    runtime.run(main)

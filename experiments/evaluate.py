"""Compute a table: solvers x tasks x pictures x draws, each cell kept, and all of it resumable and verifiable.

    python -m experiments.evaluate --config=configs/tables/reguidance.py --config.data=PATH
    python -m experiments.evaluate --config=configs/tables/reguidance.py --config.data=PATH --verify=any

A table is a configuration: tasks and solvers as texts (`dps dps.zeta=4`, `half hidden = box_inpainting box.size=32`),
pictures, draws and a prior. A setting with several values (`reguidance(ddrm) reguidance.rho=1|3|8`) is chosen for each
task on `config.first` pictures that are left out; what was chosen is in presets.json, which `config.presets` takes.
Batches of items are vmapped inside and split over the devices outside, and each is kept in runs/NAME/cells/ as soon as
it is finished: a run that is killed at any moment and started again goes on, and another
solver, task, picture or draw computes what is missing. What an item gives depends on its picture, its draw and the
configuration alone, not on the batch, the devices or the order, up to rounding. Where a setting that a cell depends on
has changed, the run stops and says what.

It leaves in runs/NAME/: index.html (means with Student's intervals over pictures, what each wrapper adds to its base,
quality against cost, and of each cell the best, middle and worst picture), overview.png (of each task one picture by
every solver), table.md, table.tex, table.csv, and ledger.json, which has of every cell its settings, the digests of
weights and pictures, versions, device, times, memory and every score.

Several processes share a table: --part=I/N computes every N-th picture from the I-th on, in any order and on any
machines that see the folder; the one that finds all finished writes the tables. Processes that were started together
(--coordinator, Slurm, a TPU pod) share it by themselves. --plan says what there is to do and computes nothing.
--verify=CELL computes a cell again, `any` one at random, and lays it beside what was kept, or beside another ledger
by --against=ledger.json.

It ends with status 0; 1 where something given is wrong, or a verified cell is not the same; 2 where every
reconstruction failed; 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from diffinv import atomic, data, schema, weights
from diffinv.prior import Prior
from experiments.common import keeping, priors, profiling, reading
from experiments.evaluation import (
    accounts,
    choosing,
    embedders,
    exhibits,
    items,
    late,
    printed,
    sets,
    shards,
    sheets,
    summary,
    verification,
)
from experiments.evaluation.cells import Cell, cells
from experiments.evaluation.fields import FIELDS, check
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.evaluation.summary import Found
from experiments.evaluation.work import GIB, REFUSED, Workshop
from experiments.report import ledger, tables
from experiments.restore.bench import pixels
from experiments.restore.operators import require_fit, shown

flags.adopt_module_key_flags(reading)
flags.adopt_module_key_flags(profiling)
CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "tables" / "reguidance.py"),
    "a table; FILE:smoke for a quick run, FILE:paper for the paper's own settings",
    FIELDS,
    check,
)
OUT = runtime.flag("out", "runs", schema.path("the folder of all runs"))
PART = runtime.flag("part", "", schema.text("I/N: every N-th picture from the I-th on, I from 0; '' for all"))
PLAN = runtime.flag("plan", False, schema.switch("say what there is to do, and do nothing"))
VERIFY = runtime.flag(
    "verify", "", schema.text("TASK / SOLVER, as the ledger has it, computed again; any: one of them")
)
AGAINST = runtime.flag("against", "", schema.path("a ledger.json that --verify compares with, in place of the folder"))
NOTES = (
    "Means ± half the 95 % interval over pictures (Student's); several draws of a picture are averaged before. Feature "
    "distance: unlearned, of EfficientNet-Lite0 features, not LPIPS. Residual / floor: 1 is what noise alone leaves. "
    "NFE: evaluations of the network; VJPs: its derivatives; seconds: a picture, without compiling; a wrapper "
    "has those of its base, too.",
    "Several draws: `covered` is the share of pixels whose truth lies between the draws' quantiles that hold the share "
    "`nominal` of a calibrated posterior.",
)


def part_of(text: str) -> tuple[int, int]:
    """(I, N) of --part; of processes that were started together their own. Raises ValueError for anything else."""
    if not text:
        return jax.process_index(), jax.process_count()
    if jax.process_count() > 1:
        raise ValueError(f"--part is {text!r}, and processes that were started together share a table by themselves")
    numbers = text.split("/")
    if len(numbers) != 2 or not all(each.isdecimal() for each in numbers) or not int(numbers[0]) < int(numbers[1]):
        raise ValueError(f"--part is {text!r}; give I/N with whole numbers, I from 0 to N - 1, as 0/4")
    return int(numbers[0]), int(numbers[1])


def loaded(config) -> tuple[Prior, dict[str, Any]]:
    """The prior and its card. Raises ValueError, which says what the table was made with, where there is none."""
    if not config.prior or not config.data:
        told = f"; {printed.TABLES[config.published].files}" if config.published else ""
        missing = "config.prior" if not config.prior else "config.data"
        raise ValueError(f"{missing} is ''; give a checkpoint and pictures of your own{told}")
    shape = (config.size, config.size, 3)
    prior, card = priors.load(config.prior, "config.prior")
    if weights.any_size(card):
        return priors.load(config.prior, "config.prior", (*shape[:2], prior.shape[2]), config.tile)
    return prior, card


def found_in(folder: Path, plan: list[Cell], wanted: list[Item]) -> tuple[list[Found], list[str]]:
    """What the folder has of the wanted items, a cell after the other, and lines about damage."""
    every, lines = [], []
    for cell in plan:
        results, damage = shards.read(folder / cell.folder)
        refused = folder / cell.folder / REFUSED
        why = refused.read_text("utf-8") if refused.exists() else ""
        every.append(Found(cell, {item: results[item] for item in wanted if item in results}, why))
        lines += damage
    return every, lines


def planned(found: list[Found], wanted: list[Item]) -> str:
    """The lines of --plan."""
    rows = [
        {
            "task": each.cell.task.title,
            "method": each.cell.label,
            "items": str(len(wanted)),
            "kept": str(len(each.results)),
            "to do": str(len(wanted) - len(each.results)),
        }
        for each in found
    ]
    missing = sum(len(wanted) - len(each.results) for each in found)
    return f"{tables.table(rows)}\n{missing} of {len(wanted) * len(found)} items are to be computed"


def compute(shop: Workshop, folder: Path, found: list[Found], mine: list[Item]) -> None:
    """Computes and keeps what is missing of these items, cell by cell."""
    missing = {each.cell.name: [item for item in mine if item not in each.results] for each in found}
    known = {each.cell.name: dict(each.results) for each in found}
    with tqdm(total=sum(map(len, missing.values())), unit="item", smoothing=0, dynamic_ncols=True) as bar:
        for each in found:
            cell = each.cell
            base = known[cell.base.name] if cell.base else None
            if missing[cell.name]:
                if line := shop.finish(cell, folder, missing[cell.name], base, bar):
                    bar.write(f"{cell.name} is not possible: {line}")
                known[cell.name] |= shards.read(folder / cell.folder)[0]


def seen_by(shop: Workshop) -> exhibits.Seen:
    """Measurements as pictures, by their own keys."""

    def seen(cell: Cell, chosen: list[str]) -> np.ndarray:
        programs = shop.task(cell).programs
        wanted = [Item(picture, 0) for picture in chosen]
        truth = data.to_unit(shop.pictures.pixels[[shop.pictures.place(each) for each in chosen]])
        measurements = programs.measured(items.measurement_keys(programs.key, wanted), truth)
        one = lambda i: jax.tree.map(lambda leaf: leaf[i], measurements)
        return np.stack([pixels(shown(one(i), shop.prior.shape)) for i in range(len(chosen))])

    return seen


def reported(shop: Workshop, folder: Path, found: list[Found], table: Table, head: dict[str, Any]) -> str:
    """Writes every form of the table; returns what is printed."""
    config, pictures, seen = CONFIG.value, table.pictures, seen_by(shop)
    truth = dict(zip(pictures.digests, np.asarray(data.to_unit(pictures.pixels))))
    found = list(late.told(config, truth, folder / "features", found))
    found, as_a_set, of_truth = sets.told(config, shop.prior.shape, pictures, folder / "features", found)
    planned = len(pictures.digests) * config.draws
    rows = [summary.row(each, truth, planned) | dict(more) for each, more in zip(found, as_a_set)]
    tried = choosing.sheet([each.cell for each in found], table.choices)
    added, beside = sheets.worded(summary.compared(found)), printed.rows(CONFIG.value.published, rows)
    notes = [head["about"], *NOTES[: 2 if CONFIG.value.draws > 1 else 1], *printed.notes(CONFIG.value.published)]
    notes += embedders.notes(head.get("networks", {}), config.reference)
    sections = {"Means": rows + of_truth, "What is added to the base": added, "Printed numbers": beside}
    sections |= {"What was tried": tried}
    about = {name: value for name, value in head.items() if name != "shared"} | {"notes": notes, "added": added}
    about |= {"truth": of_truth, "tried": tried} if of_truth or tried else {}
    content = accounts.ledger_of(about, pictures, found, rows, head["shared"])
    chosen = choosing.written([each.cell for each in found], table.choices)
    for name, text in {
        **({"presets.json": json.dumps(chosen, indent=1) + "\n"} if chosen else {}),
        "table.md": sheets.markdown(head["title"], head["command"], notes, sections),
        "table.tex": sheets.latex(rows, head["title"]),
        "table.csv": sheets.comma_separated(rows),
        "index.html": exhibits.page(pictures, found, truth, sections, notes, head, seen),
    }.items():
        ledger.put(folder / name, text.encode("utf-8", "replace"))
    ledger.put(folder / "ledger.json", accounts.dumped(content))
    if picture := exhibits.overview(found, truth, seen):
        ledger.put(folder / "overview.png", ledger.png(picture))
    told = [tables.table(each) for each in (rows + of_truth, added) if each]
    return "\n\n".join(told)


def verify(shop: Workshop, folder: Path, found: list[Found], wanted: list[Item]) -> int:
    """Computes a cell again, in the batches of a run from the start, beside what was kept; the exit status."""
    by_name = {each.cell.name: each for each in found}
    kept_cells = [name for name, each in by_name.items() if each.results] or list(by_name)
    name = random.choice(kept_cells) if VERIFY.value == "any" else VERIFY.value
    if name not in by_name:
        raise ValueError(f"--verify is {name!r}; {schema.nearest(name, list(by_name))}")
    each = by_name[name]
    if each.cell.open:
        raise ValueError(f"--verify is {name!r}, whose settings are yet to be chosen; run the table, or give presets")
    kept = accounts.scores_of(Path(AGAINST.value), name) if AGAINST.value else each.results
    if not kept:
        raise ValueError(
            f"--verify is {name!r}, of which nothing is kept in {folder}; compute it first, or give --against"
        )
    again = recomputed(shop, each.cell, [item for item in wanted if item in kept])
    done = verification.compared(kept, again)
    print(verification.told(done, name))
    return 0 if done["same"] else 1


def recomputed(shop: Workshop, cell: Cell, wanted: list[Item]) -> dict[Item, Result]:
    """A cell's results, and those of what it refines, from the start."""
    base = recomputed(shop, cell.base, wanted) if cell.base else None
    size = min(shop.group, -(-len(wanted) // shop.devices) * shop.devices)
    solver, done = shop.programs(cell), []
    for chunk in tqdm(list(shards.chunks(wanted, size)), desc=cell.name, unit="batch"):
        done += shop.compute(cell, solver, chunk, size, base)
    return {each.item: each for each in done}


class Table(NamedTuple):
    """What a run is to make: its pictures, its cells with all settings known, and what was chosen, by folder.

    Attributes:
      left: pictures that choose settings, and are not reported.
      undecided: names of cells whose settings are yet to be chosen.
    """

    left: items.Set
    pictures: items.Set
    plan: list[Cell]
    choices: dict[str, choosing.Choice]
    undecided: tuple[str, ...] = ()


def decided(shop: Workshop, folder: Path, table: Table, shared: dict[str, Any], compute: bool) -> Table:
    """The table with open settings as they were chosen before, or as they are chosen now; else among the undecided."""
    known: dict[str, Cell] = {}
    choices, undecided = {}, []
    rules = choosing.Rules(table.left.items(1), CONFIG.value.criterion, CONFIG.value.rounds)
    with tqdm(unit="item", smoothing=0, dynamic_ncols=True, disable=not compute) as bar:
        for cell in table.plan:
            cell = cell._replace(base=known[cell.base.folder]) if cell.base else cell
            if cell.solver.open and not (cell.base and cell.base.open):
                choice = choosing.known(folder, cell, rules, shared, CONFIG.value.presets, FIELDS)
                choice = choosing.made(shop, folder, cell, rules, shared, bar) if choice is None and compute else choice
                choices |= {cell.folder: choice} if choice else {}
                cell = cell.settled(choice.values) if choice else cell
            known[cell.folder] = cell
            undecided += [cell.name] if cell.open else []
    return table._replace(plan=list(known.values()), choices=choices, undecided=tuple(undecided))


def main() -> int:
    config, (index, count) = CONFIG.value, part_of(PART.value)
    folder = runtime.writable(Path(OUT.value) / config.name)
    (prior, card), plan = loaded(config), cells(config, FIELDS)
    late.scores(config, prior.shape)  # whose files are wrong says so now
    networks = embedders.accounts(embedders.embedders(config))
    for cell in plan:
        require_fit(cell.config, [cell.task.name], prior.shape)
    left, pictures = items.pictures(config.data, prior.shape, config.first, config.pictures, config.seed)
    wanted, mine = pictures.items(config.draws), pictures.part(index, count).items(config.draws)
    command = f"python -m experiments.evaluate {shlex.join(sys.argv[1:])}".strip()
    size = "{} x {}".format(*prior.shape[:2])
    draws = f"{config.draws} draw{'s' * (config.draws > 1)} of each"
    about = f"{pictures.note} of {size} under {card.get('name', 'a prior')}, {draws}"
    shared = {"weights": keeping.weights(card), "shape": list(prior.shape)}
    head = {"title": f"Table: {config.name}", "command": command, "about": about, "config": config.to_dict()}
    head |= {"networks": networks} if networks else {}
    head |= {"prior": {name: card.get(name) for name in ("name", "sha256", "data_licence")}, "shared": shared}
    shop = Workshop(prior, left.with_others(pictures), config.group, config.memory * GIB)
    asked = Table(left, pictures, plan, {})
    table = decided(shop, folder, asked, shared, False)
    found, damage = started(folder, table, wanted, shared)
    print(*damage, f"{about}; {len(plan)} cells in {folder}", sep="\n", flush=True)
    if PLAN.value:
        lines = [f"{name}: its settings are chosen by {len(left.digests)} pictures" for name in table.undecided]
        print(planned(found, wanted), *lines, sep="\n")
        return 0
    if VERIFY.value:
        return verify(shop, folder, found, wanted)
    with keeping.alone(runtime.writable(folder / "parts" / f"{index}-of-{count}")):
        atomic.tidy(folder)
        table = decided(shop, folder, asked, shared, True)
        found, _ = started(folder, table, wanted, shared)
        for cell in table.plan:
            shards.claim(folder / cell.folder, {**cell.settings(), **shared})
        compute(shop, folder, found, mine)
    runtime.together("computed")
    return finished(shop, folder, table, found_in(folder, table.plan, wanted)[0], head)


def started(folder: Path, table: Table, wanted: list[Item], shared: dict[str, Any]) -> tuple[list[Found], list[str]]:
    """`found_in` of cells whose settings are those that what is kept was made with. Raises ValueError where not."""
    for cell in table.plan:
        if not cell.open:
            shards.require_same(folder / cell.folder, {**cell.settings(), **shared}, cell.name)
    return found_in(folder, table.plan, wanted)


def finished(shop: Workshop, folder: Path, table: Table, found: list[Found], head: dict[str, Any]) -> int:
    """Writes the tables where all is there and this process is to; the exit status."""
    wanted = table.pictures.items(CONFIG.value.draws)
    missing = sum(len(wanted) - len(each.results) for each in found if not each.refused and not _headless(each, found))
    if missing:
        print(f"{missing} items are missing, of other parts; the part that finds all finished writes the tables")
        return 0
    if not runtime.first():
        return 0
    print(reported(shop, folder, found, table, head))
    whole = sum(len(each.results) for each in found)
    failed = sum(summary.failed(result) for each in found for result in each.results.values())
    words = f"; {failed} of {whole} reconstructions failed" if failed else ""
    print(f"report: {folder / 'index.html'}{words}", flush=True)
    return 2 if failed == whole else 0


def _headless(each: Found, found: list[Found]) -> bool:
    """Whether it refines what is not possible."""
    refused = {other.cell.name for other in found if other.refused}
    return each.cell.base is not None and each.cell.base.name in refused


if __name__ == "__main__":
    runtime.run(main)

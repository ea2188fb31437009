"""Open settings of a solver, chosen for each task on pictures that are left out of the table.

Every combination of a solver's open settings is tried on the first `config.first` pictures, once each. Settings that
are real numbers are arguments of one compiled program; whole numbers and words, on which shapes and code depend, have
one each. Taken is the least mean of `config.criterion`, of those that failed on the fewest pictures. In a second and
later round the values are halfway to the neighbours of what was best (geometrically between positive ones).

What was tried is kept beside the cell in chosen.json, and a cell that was chosen is never chosen again by another
process: the first that finishes decides.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from diffinv import schema
from experiments.common import keeping, runtime, tuning
from experiments.evaluation import shards
from experiments.evaluation.cells import Cell, own
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.evaluation.summary import failed, scored
from experiments.evaluation.work import Workshop
from experiments.report import ledger

CHOSEN = "chosen.json"
PRESETS = runtime.ROOT / "configs" / "tables" / "presets"
ERRORS: Mapping[str, Callable[[float], float]] = {
    "feature_distance": lambda value: value,
    "psnr": lambda value: -value,
    "ssim": lambda value: -value,
    "ratio": lambda value: abs(math.log(value)) if value > 0 else math.inf,
}
"""What may be chosen by, each as an error."""
TRACED = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)

Values = dict[str, Any]
Rows = list[dict[str, Any]]


class Choice(NamedTuple):
    """What a cell was given, and by what: `tried` has a row for each combination, with means over the pictures."""

    values: Values
    tried: Rows


class Rules(NamedTuple):
    """How it is chosen: on which items, by which number, in how many rounds."""

    items: list[Item]
    criterion: str
    rounds: int


def combinations(open_: Mapping[str, Sequence[Any]]) -> list[Values]:
    """All of them, the last setting fastest."""
    return [dict(zip(open_, each)) for each in itertools.product(*open_.values())]


def finer(open_: Mapping[str, Sequence[Any]], best: Values) -> dict[str, tuple[Any, ...]]:
    """The values of the next round: what was best, and for real numbers the middles between it and its neighbours."""
    return {name: _about(sorted(values), best[name]) for name, values in open_.items()}


def _about(values: Sequence[Any], best: Any) -> tuple[Any, ...]:
    if not isinstance(best, float):
        return (best,)
    i = list(values).index(best)
    middle = lambda a, b: math.sqrt(a * b) if a > 0 and b > 0 else (a + b) / 2
    neighbours = [*values[max(i - 1, 0) : i], *values[i + 1 : i + 2]]
    return tuple(sorted([best, *(middle(value, best) for value in neighbours)]))


def error(result: Result, criterion: str) -> float:
    """How far from good; infinite where it failed."""
    found = scored(result)
    return math.inf if failed(result) or criterion not in found else ERRORS[criterion](found[criterion])


def row(values: Values, results: Sequence[Result]) -> dict[str, Any]:
    """What a combination gave, by means over the pictures that did not fail."""
    sound = [scored(each) for each in results if not failed(each)]
    names = [name for name in ERRORS if sound and all(name in each for each in sound)]
    means = {name: float(np.mean([each[name] for each in sound])) for name in names}
    return {"values": dict(values), **means, "failed": len(results) - len(sound)}


class Trial:
    """Tries settings of one open cell on the same items."""

    def __init__(self, shop: Workshop, cell: Cell, base: Mapping[Item, Result] | None, bar: tqdm) -> None:
        self.shop, self.cell, self.base, self.bar = shop, cell, base, bar

    def __call__(self, tried: Sequence[Values], items: Sequence[Item]) -> list[list[Result]]:
        """The results of each combination, an item after the other."""
        static = [tuple((k, v) for k, v in values.items() if not isinstance(v, float)) for values in tried]
        found: dict[int, list[Result]] = {}
        for known in dict.fromkeys(static):
            members = [i for i, each in enumerate(static) if each == known]
            free = [{k: v for k, v in tried[i].items() if isinstance(v, float)} for i in members]
            results = self._together(dict(known), free, items)
            found |= dict(zip(members, shards.chunks(results, len(items))))
        return [found[i] for i in range(len(tried))]

    def _together(self, static: Values, free: Sequence[Values], items: Sequence[Item]) -> list[Result]:
        """In one program where the numbers may be its arguments, else in one for each of them."""
        try:
            return self._run(static, free, items)
        except TRACED:
            return [each for values in free for each in self._run({**static, **values}, [{}], items)]

    def _run(self, static: Values, free: Sequence[Values], items: Sequence[Item]) -> list[Result]:
        cell, shop = self.cell.settled(static), self.shop
        self.bar.set_postfix_str(f"{cell.name}, choosing")
        pairs = [(values, item) for values in free for item in items]
        size = min(shop.group, -(-len(pairs) // shop.devices) * shop.devices)
        solver, results = shop.programs(cell), []
        for chunk in shards.chunks(pairs, size):
            filled = [chunk[i % len(chunk)] for i in range(size)]
            columns = {name: np.asarray([values[name] for values, _ in filled], np.float32) for name in free[0]}
            results += shop.compute(cell, solver, [item for _, item in chunk], size, self.base, columns)
            self.bar.update(len(chunk))
        return results


def choose(trial: Trial, rules: Rules) -> Choice:
    """The best combination, coarse to fine. Raises ValueError where every one of them failed everywhere."""
    open_: Mapping[str, Sequence[Any]] = dict(trial.cell.solver.open)
    tried: list[Values] = []
    outcomes: list[list[Result]] = []
    for turn in range(rules.rounds):
        if turn:
            open_ = finer(open_, tried[_best(outcomes, rules)])
        new = [values for values in combinations(open_) if values not in tried]
        outcomes += trial(new, rules.items) if new else []
        tried += new
    if not any(math.isfinite(error(each, rules.criterion)) for results in outcomes for each in results):
        why = f"failed, or has no {rules.criterion}, with every value of {', '.join(open_)}"
        raise ValueError(f"{trial.cell.name} {why}; give others, or another config.criterion")
    return Choice(tried[_best(outcomes, rules)], [row(*each) for each in zip(tried, outcomes)])


def _best(outcomes: Sequence[Sequence[Result]], rules: Rules) -> int:
    return tuning.least([[error(each, rules.criterion) for each in results] for results in outcomes])


def made_with(cell: Cell, rules: Rules, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a choice depends on."""
    pictures = [item.picture for item in rules.items]
    how = {"pictures": len(pictures), "digest": keeping.digest(pictures)}
    return {**cell.settings(), **shared, "chosen": {"by": rules.criterion, "rounds": rules.rounds, **how}}


def kept(place: Path, settings: Mapping[str, Any], name: str) -> Choice | None:
    """What was chosen before; None where nothing was. Raises ValueError where it was chosen in another way."""
    try:
        found = json.loads((place / CHOSEN).read_text("utf-8"))
        choice = Choice(found["values"], found["tried"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{place / CHOSEN} is damaged ({fault}); remove it to choose again") from None
    if words := keeping.changed(own(found["settings"]), own(json.loads(json.dumps(settings)))):
        told = f"the settings of {name} were chosen with {'; '.join(words[:3])}"
        raise ValueError(f"{told}; give another --config.name, or remove {place} to choose again")
    return choice


def keep(place: Path, settings: Mapping[str, Any], choice: Choice) -> None:
    """Writes a choice down, where no other process has."""
    content = {"values": choice.values, "settings": settings, "tried": choice.tried}
    own = ledger.put(place / f"{CHOSEN}.{os.getpid()}", (json.dumps(ledger.plain(content), indent=1) + "\n").encode())
    try:
        os.link(own, place / CHOSEN)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not (place / CHOSEN).exists():
            os.replace(own, place / CHOSEN)
    finally:
        own.unlink(missing_ok=True)


def preset(name: str, cell: Cell, fields: schema.Schema) -> Values:
    """The values of a cell's open settings in a file that an earlier table wrote: {task: {solver: {field: value}}}.

    `name` is a path, or one of configs/tables/presets.

    Raises ValueError where the file is none, lacks the cell, or has a value that the field refuses.
    """
    where, named = f"config.presets is {name!r}", PRESETS / f"{name}.json"
    path = named if named.is_file() else Path(name)
    try:
        found = json.loads(path.read_text("utf-8"))[cell.task.title][cell.solver.title]
        values = {name: found[name] for name, _ in cell.solver.open}
    except (OSError, ValueError) as fault:
        raise ValueError(f"{where}, which is no presets.json of a table ({fault})") from None
    except (KeyError, TypeError):
        lacks = f"lacks {cell.task.title} / {cell.solver.title}"
        raise ValueError(f"{where}, which {lacks}; choose it by config.first") from None
    for name, value in values.items():
        section, _, own = name.partition(".")
        field = fields[section][own] if own else fields[section]
        if line := schema.refusal(field, value, f"{where}: {name}"):
            raise ValueError(line)
    return values


def known(
    folder: Path, cell: Cell, rules: Rules, shared: Mapping[str, Any], presets: str, fields: schema.Schema
) -> Choice | None:
    """What the presets say, or what was chosen before; None where nothing was."""
    if presets:
        return Choice(preset(presets, cell, fields), [])
    return kept(folder / cell.folder, made_with(cell, rules, shared), cell.name)


def made(shop: Workshop, folder: Path, cell: Cell, rules: Rules, shared: Mapping[str, Any], bar: tqdm) -> Choice:
    """Chooses, with what the cell refines computed on the same pictures, and keeps what was chosen.

    Where nothing can be chosen by, as where the solver cannot do the task, the first values are taken, and not kept:
    the cell then says why, and others go on.
    """
    first = Choice(combinations(dict(cell.solver.open))[0], [])
    base = computed(shop, folder, cell.base, rules.items, shared, bar) if cell.base else None
    if base is not None and not all(item in base for item in rules.items):
        return first
    place, settings = folder / cell.folder, made_with(cell, rules, shared)
    try:
        choice = choose(Trial(shop, cell, base, bar), rules)
    except (TypeError, ValueError, NotImplementedError) as fault:
        bar.write(f"{cell.name}: {' '.join(str(fault).split())}")
        return first
    keep(place, settings, choice)
    return kept(place, settings, cell.name) or choice


def computed(
    shop: Workshop, folder: Path, cell: Cell, items: list[Item], shared: Mapping[str, Any], bar: tqdm
) -> dict[Item, Result]:
    """The results of a cell on these items, of which what is missing is computed and kept, as that of any other."""
    place, settings = folder / cell.folder, {**cell.settings(), **shared}
    base = computed(shop, folder, cell.base, items, shared, bar) if cell.base else None
    shards.require_same(place, settings, cell.name)
    shards.claim(place, settings)
    there = shards.read(place)[0]
    shop.finish(cell, folder, [item for item in items if item not in there], base, bar)
    return shards.read(place)[0]


def shown(values: Values, solver: str) -> str:
    """Values as a line, without the solver's own name."""
    return ", ".join(f"{name.removeprefix(solver + '.')} {value}" for name, value in values.items())


def sheet(plan: Sequence[Cell], choices: Mapping[str, Choice]) -> Rows:
    """A row for everything that was tried, as tables print it."""
    rows = []
    for cell in plan:
        choice = choices.get(cell.folder)
        for tried in choice.tried if choice else ():
            own = {name: value for name, value in tried.items() if name not in ("values", "failed")}
            head = {"task": f"{cell.task.title}, {cell.stem}", "tried": shown(tried["values"], cell.solver.name)}
            mark = "chosen" if choice and tried["values"] == choice.values else ""
            rows.append({**head, **own, "failed": tried["failed"], "choice": mark})
    return rows


def written(plan: Sequence[Cell], choices: Mapping[str, Choice]) -> dict[str, dict[str, Values]]:
    """The content of presets.json: what was chosen, by task and solver."""
    found: dict[str, dict[str, Values]] = {}
    for cell in plan:
        if cell.folder in choices:
            found.setdefault(cell.task.title, {})[cell.solver.title] = choices[cell.folder].values
    return found

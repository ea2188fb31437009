"""Which cells a table has: tasks and solvers as texts, each a name, the fields it changes and, if wanted, a title.

    super_resolution factor=8
    half hidden = box_inpainting box.size=32 box.top=16 box.left=16
    dps dps.zeta=4
    reguidance(dps dps.zeta=4) reguidance.rho=3
    reguidance(ddrm) reguidance.rho=1|3|8

What a wrapper refines is named in its parentheses, by the text or the title of another solver of the list. A setting
with several values is open: it is chosen for each task, see `choosing`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from diffinv import schema
from experiments.common import keeping
from experiments.common.commandline import declared, listed
from experiments.methods import solvers
from experiments.methods.table import METHODS
from experiments.report.ledger import slug
from experiments.restore.operators import FIELDS, OPERATORS

FORM = re.compile(r"(?:(?P<title>[^=]+?)\s+=\s+)?(?P<name>\w+)(?:\((?P<base>[^()]+)\))?(?P<rest>(?:\s+[\w.]+=\S+)*)\s*")
FREE = (
    *("name", "tasks", "solvers", "data", "first", "pictures", "draws", "group", "memory", "published"),
    *("criterion", "rounds", "presets", "reference", "training"),
    *("lpips_vgg", "lpips_linear", "dists_vgg", "dists_weights", "niqe"),
    *("inception", "inception_takes", "clip", "clip_takes", "dino", "dino_takes"),
)
"""Fields that no cell depends on."""
FILES = ("mask", "kernel")
"""Fields that name a file, on whose content cells depend."""


class Variant(NamedTuple):
    """A task or a solver with its own settings.

    Attributes:
      text: as it was given, without the title.
      title: as the table has it.
      name: of `OPERATORS` or `METHODS`.
      base: of a wrapper, the text or title of what it refines; else "".
      changes: full names of fields, as "dps.zeta", and their values.
      open: names of fields, and the values of which one is to be chosen.
    """

    text: str
    title: str
    name: str
    base: str
    changes: tuple[tuple[str, Any], ...]
    open: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def variant(text: str, fields: schema.Schema, where: str) -> Variant:
    """What a text says. Raises ValueError, which names the field `where` it stands, for one that says nothing."""
    found = FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{where} has {text!r}; give NAME, NAME FIELD=VALUE or TITLE = NAME FIELD=VALUE")
    known = OPERATORS if where == "config.tasks" else METHODS
    name, base = found["name"], (found["base"] or "").strip()
    if name not in known:
        raise ValueError(f"{where} has {name!r}; {schema.nearest(name, list(known))}")
    pairs = [each.split("=", 1) for each in found["rest"].split()]
    several = {key: tuple(_value(fields, key, each, where) for each in written.split("|")) for key, written in pairs}
    changes = tuple((key, values[0]) for key, values in several.items() if len(values) == 1)
    tried = tuple((key, tuple(dict.fromkeys(values))) for key, values in several.items() if len(values) > 1)
    if tried and where == "config.tasks":
        raise ValueError(f"config.tasks has {text!r} with several values; give one, or a task for each")
    body = " ".join([f"{name}({base})" if base else name, *(f"{key}={written}" for key, written in pairs)])
    return Variant(body, found["title"] or body, name, base, changes, tried)


def _value(fields: schema.Schema, key: str, written: str, where: str) -> Any:
    field = declared(fields, f"config.{key}")
    own = key not in FREE if where == "config.tasks" else key.split(".")[0] in solvers.FIELDS
    if not isinstance(field, schema.Field) or not own:
        kind = where.removeprefix("config.").removesuffix("s")
        raise ValueError(f"{where} has {key}={written}, which is no setting of one {kind}; see --help for these")
    value = schema.parsed(field, written)
    if line := schema.refusal(field, value, f"{where}: {key}"):
        raise ValueError(line)
    return value


class Cell(NamedTuple):
    """One cell: a task, a solver, and the configuration of both; `base` is the cell that a wrapper refines."""

    task: Variant
    solver: Variant
    config: ConfigDict
    base: Cell | None = None

    @property
    def name(self) -> str:
        """As a user calls it: TASK / SOLVER."""
        return f"{self.task.title} / {self.label}"

    @property
    def folder(self) -> str:
        """Where its shards are, below the run's."""
        return f"cells/{slug(self.task.title)}/{slug(self.solver.title)}"

    @property
    def label(self) -> str:
        """Of the solver, as the table has it."""
        if self.solver.title != self.solver.text:
            return self.solver.title
        told = ", ".join(f"{key.removeprefix(self.solver.name + '.')} {value}" for key, value in self.solver.changes)
        return self.stem + (f", {told}" if told else "")

    @property
    def open(self) -> bool:
        """Whether a setting of its own, or of what it refines, is yet to be chosen."""
        return bool(self.solver.open) or self.base is not None and self.base.open

    @property
    def stem(self) -> str:
        """The label without settings."""
        if self.solver.title != self.solver.text:
            return self.solver.title
        return METHODS[self.solver.name].label + (f"({self.base.label})" if self.base else "")

    def settled(self, values: Mapping[str, Any]) -> Cell:
        """With these values of its open settings."""
        solver = self.solver._replace(changes=(*self.solver.changes, *values.items()), open=())
        return self._replace(solver=solver, config=_changed(self.config, solver))

    def settings(self) -> dict[str, Any]:
        """All of the configuration that its results depend on, as JSON holds it.

        Sections of other methods, and what other tasks' operators read, are not in it.
        """
        whole = json.loads(self.config.to_json())
        others = set(METHODS) - {self.solver.name}
        kept = {key: value for key, value in whole.items() if key not in (*FREE, *others)}
        kept = own({"task": self.task.text, "solver": self.solver.text, **kept})
        files = {key: keeping.digest(Path(kept[key]).read_bytes()) for key in FILES if kept.get(key)}
        base = {"base": self.base.settings()} if self.base else {}
        return {**kept, **files, **base}


def own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a cell, as they were kept, without those that other tasks' operators alone read.

    Those of a task that nobody knows any more, or that does not say what it reads, stay as they are.
    """
    found = OPERATORS.get(str(settings.get("task", "")).partition(" ")[0])
    base = {"base": own(settings["base"])} if isinstance(settings.get("base"), Mapping) else {}
    if found is None or found.reads is None:
        return {**settings, **base}
    parts = [_read(key, value, found.reads) for key, value in settings.items()]
    return {key: value for part in parts for key, value in part.items()} | base


def _read(name: str, value: Any, reads: tuple[str, ...]) -> dict[str, Any]:
    """What is read of a field, or of a section. A field that is declared no more may have been: it stays."""
    if name not in FIELDS or name in reads:
        return {name: value}
    inside = {each.partition(".")[2] for each in reads if each.startswith(f"{name}.")}
    if not inside or not isinstance(value, Mapping):
        return {}
    known = dict(FIELDS[name])  # type: ignore[arg-type]  # a section, as something in it is read
    return {name: {key: part for key, part in value.items() if key in inside or key not in known}}


def _changed(config: ConfigDict, *variants: Variant) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        for each in variants:
            changed.update_from_flattened_dict(dict(each.changes))
    return changed


def _named(variants: list[Variant], where: str) -> dict[str, Variant]:
    titles = [each.title for each in variants]
    if double := sorted({title for title in titles if titles.count(title) > 1}):
        raise ValueError(f"{where} has {double[0]!r} twice; give one of them another title, as TITLE = {double[0]}")
    if not variants:
        raise ValueError(f"{where} is empty; give at least one, with commas between several")
    return dict(zip(titles, variants))


def cells(config: ConfigDict, fields: schema.Schema) -> list[Cell]:
    """The cells of a table, a task after the other, each base before what refines it.

    Raises ValueError for a text that says nothing, a title that stands twice, a wrapper whose base is not in the list.
    """
    read = lambda name: [variant(text, fields, f"config.{name}") for text in listed(config[name])]
    tasks, methods = _named(read("tasks"), "config.tasks"), _named(read("solvers"), "config.solvers")
    return [cell for task in tasks.values() for cell in _row(config, task, methods)]


def _row(config: ConfigDict, task: Variant, methods: dict[str, Variant]) -> list[Cell]:
    made: dict[str, Cell] = {}

    def make(solver: Variant, above: tuple[str, ...] = ()) -> Cell:
        if solver.title not in made:
            base = _base(solver, methods, above)
            inner = make(base, (*above, solver.title)) if base else None
            made[solver.title] = Cell(task, solver, _changed(config, task, solver), inner)
        return made[solver.title]

    for each in methods.values():
        make(each)
    return list(made.values())


def _base(solver: Variant, methods: dict[str, Variant], above: tuple[str, ...]) -> Variant | None:
    """What a wrapper refines."""
    wraps = METHODS[solver.name].wrap is not None
    if not wraps and solver.base:
        raise ValueError(f"config.solvers has {solver.text!r}, but {solver.name} refines nothing; leave out the base")
    if not wraps:
        return None
    found = [each for each in methods.values() if solver.base in (each.title, each.text) and each.title not in above]
    if not solver.base or not found or found[0].title == solver.title:
        known = ", ".join(each.title for each in methods.values() if not METHODS[each.name].wrap)
        raise ValueError(
            f"config.solvers has {solver.text!r}, which refines another solver of the list: give "
            f"{solver.name}(BASE), BASE one of {known or 'the solvers, of which there is none yet'}"
        )
    return found[0]

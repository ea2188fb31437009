"""A table's cells out of texts: what they change, what they refuse, and what a cell's results are said to depend on."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from configs.tables import daps, defaults, dps, inversebench, reguidance, spectral
from diffinv import schema
from experiments.common import keeping
from experiments.evaluation import cells, choosing, printed, shards
from experiments.evaluation.fields import FIELDS, check
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.restore import operators
from experiments.restore.operators import OPERATORS

ROOT = Path(__file__).parents[2]


def config(tasks="super_resolution", solvers="ddrm", **changes):
    found = defaults.get_config()
    found.update({"tasks": tasks, "solvers": solvers, **changes})
    return found


def made(*args, **changes):
    return cells.cells(config(*args, **changes), FIELDS)


def test_a_text_changes_its_own_cell_alone():
    found = made("x8 = super_resolution factor=8, super_resolution", "dps dps.zeta=4 dps.steps=7, dps")
    assert [cell.name for cell in found] == [
        "x8 / DPS, zeta 4.0, steps 7",
        "x8 / DPS",
        "super_resolution / DPS, zeta 4.0, steps 7",
        "super_resolution / DPS",
    ]
    told = [(cell.config.factor, cell.config.dps.zeta, cell.config.dps.steps) for cell in found]
    plain = defaults.get_config()
    own = (plain.dps.zeta, plain.dps.steps)
    assert told == [(8, 4.0, 7), (8, *own), (plain.factor, 4.0, 7), (plain.factor, *own)]
    assert len({cell.folder for cell in found}) == 4


def test_a_wrapper_stands_after_what_it_refines_wherever_the_text_has_it():
    found = made(solvers="again = reguidance(mine), mine = ddrm, reguidance(again)")
    assert [cell.label for cell in found] == ["mine", "again", "ReGuidance(again)"]
    assert found[1].base is found[0] and found[2].base is found[1] and found[0].base is None


def test_a_base_is_named_by_its_text_or_its_title():
    by_text = made(solvers="small = dps dps.zeta=2, reguidance(dps dps.zeta=2)")
    by_title = made(solvers="small = dps dps.zeta=2, reguidance(small)")
    assert by_text[1].base.solver == by_title[1].base.solver
    assert by_text[1].label == by_title[1].label == "ReGuidance(small)"


REFUSED = {
    "config.tasks is empty": {"tasks": ""},
    "config.solvers is empty": {"solvers": " , "},
    "config.solvers has 'dpss'; did you mean 'dps'": {"solvers": "dpss"},
    "config.tasks has 'blurr'": {"tasks": "blurr"},
    "dps.zeta is -1.0; give a number above 0": {"solvers": "dps dps.zeta=-1"},
    "has no field 'zetta'; did you mean 'zeta'": {"solvers": "dps dps.zetta=1"},
    "which is no setting of one solver": {"solvers": "dps sigma_y=0.2"},
    "which is no setting of one task": {"tasks": "denoise draws=2"},
    "has 'ddrm' twice": {"solvers": "ddrm, ddrm"},
    "refines another solver of the list: give reguidance": {"solvers": "ddrm, reguidance(dps)"},
    "BASE one of ddrm": {"solvers": "ddrm, reguidance"},
    "of which there is none yet": {"solvers": "a = reguidance(a)"},
    "refines nothing; leave out the base": {"solvers": "ddrm, dps(ddrm)"},
    "give NAME, NAME FIELD=VALUE or TITLE = NAME FIELD=VALUE": {"solvers": "dps zeta 4"},
    "config.sigma_y is 0, by which mgps divides": {"solvers": "mgps", "sigma_y": 0.0},
    "config.daps.sigma_min is 200.0; give a number below sigma_max": {"solvers": "daps daps.sigma_min=200"},
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_says_nothing_is_refused(line):
    with pytest.raises(ValueError) as error:
        check(config(**REFUSED[line]))
    assert line in str(error.value)


def test_two_wrappers_of_each_other_are_refused():
    with pytest.raises(ValueError, match="refines another solver"):
        made(solvers="a = reguidance(b), b = reguidance(a)")


def test_results_depend_on_the_cells_own_settings_alone(tmp_path):
    plain = made("denoise", "dps")[0].settings()
    same = (
        {"draws": 3},
        {"pictures": 1},
        {"group": 2},
        {"memory": 1.0},
        {"name": "x"},
        {"data": "digits"},
        {"first": 9},
    )
    assert all(made("denoise", "dps", **each)[0].settings() == plain for each in same)
    other = config("denoise", "dps")
    other.daps.steps += 1
    assert cells.cells(other, FIELDS)[0].settings() == plain, "another method's section"
    changed = [made("denoise", "dps", sigma_y=0.2), made("denoise sigma_y=0.2", "dps"), made("denoise", "dps", seed=1)]
    assert all(each[0].settings() != plain for each in changed)
    mask = tmp_path / "mask"
    mask.write_bytes(b"a")
    before = made("inpaint", "dps", mask=str(mask))[0].settings()
    other = made("denoise", "dps", mask=str(mask))[0].settings()
    mask.write_bytes(b"b")
    assert made("inpaint", "dps", mask=str(mask))[0].settings() != before, "the content of a file"
    assert made("denoise", "dps", mask=str(mask))[0].settings() == other, "which this task does not read"


def test_a_wrapper_depends_on_its_bases_section():
    before = made(solvers="dps, reguidance(dps)")[1].settings()
    other = config(solvers="dps, reguidance(dps)")
    other.dps.zeta *= 2
    assert cells.cells(other, FIELDS)[1].settings() != before


def test_a_wrapper_depends_on_what_the_text_of_its_base_changes():
    """Under the same title, so that a base that was computed again cannot stand beside what refined the old one."""
    one, two = (made(solvers=f"mine = dps dps.zeta={zeta}, reguidance(mine)")[1].settings() for zeta in (2, 3))
    assert one["solver"] == two["solver"] and one != two


@given(st.floats(1e-3, 1e3), st.integers(2, 99))
def test_a_texts_values_arrive(zeta, steps):
    cell = made(solvers=f"a title (of words) = dps dps.zeta={zeta} dps.steps={steps}")[0]
    assert cell.label == "a title (of words)" and (cell.config.dps.zeta, cell.config.dps.steps) == (zeta, steps)


RECIPES = {
    reguidance: ["", "smoke", "eurosat", "ablation", "paper"],
    dps: ["", "smoke", "ffhq", "imagenet"],
    daps: ["", "smoke", "ffhq", "imagenet"],
    spectral: ["", "smoke", "imagenet"],
    inversebench: ["", "smoke", "knee"],
}
MODES = [(recipe, mode) for recipe, modes in RECIPES.items() for mode in modes]


@pytest.mark.parametrize("recipe, mode", MODES, ids=lambda each: each if isinstance(each, str) else each.__name__)
def test_the_recipe_is_a_table(recipe, mode):
    found = recipe.get_config(mode)
    schema.require(FIELDS, found.to_dict())
    check(found)
    plan = cells.cells(found, FIELDS)
    assert all(cell.stem == f"ReGuidance({cell.base.label})" for cell in plan if cell.base)
    assert any(cell.base for cell in plan) == (recipe is reguidance)
    for cell in plan:
        if cell.open and found.presets:
            assert choosing.preset(found.presets, cell, FIELDS)
        if not cell.task.changes or "box.size" not in dict(cell.task.changes):
            continue
        sides = cell.config.box  # in the middle
        assert 2 * sides.top + sides.size == 2 * sides.left + sides.size == (256 if mode in PAPERS else 64)


PAPERS = ("paper", "ffhq", "imagenet")


def test_what_is_printed_beside_is_of_the_recipes_cells():
    for recipe, mode in MODES:
        found = recipe.get_config(mode)
        names = {(cell.task.title, cell.label.split(",")[0]) for cell in cells.cells(found, FIELDS)}
        rows = printed.TABLES[found.published].values if found.published else ()
        assert {row[:2] for row in rows} <= names and bool(rows) == (mode in PAPERS[1:] and recipe is not spectral)


class Watched:
    """A configuration that says what was read of it, by full names."""

    def __init__(self, config, read, prefix=""):
        self._config, self._read, self._prefix = config, read, prefix

    def __getattr__(self, name):
        value = getattr(self._config, name)
        if isinstance(value, ConfigDict):
            return Watched(value, self._read, f"{self._prefix}{name}.")
        self._read.add(self._prefix + name)
        return value


def read_by(task, **changes):
    """What an operator reads of the configuration as it is made for a picture of eight sides."""
    found, read = config("denoise", **changes), set()
    found.box.update(top=1, left=1, size=4)
    found.blur.size, found.factor = 5, 2
    shape = (32, 32, 1) if OPERATORS[task].kspace else (8, 8, 3)
    jax.eval_shape(lambda key: OPERATORS[task](Watched(found, read), key, shape), jax.random.key(0))
    return read


@pytest.mark.parametrize("task", OPERATORS)
def test_a_task_says_what_its_operator_reads(task, tmp_path):
    """No more than it says, so that nothing on which a cell depends goes by unseen; and all of its single fields."""
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    np.save(tmp_path / "kernel.npy", np.ones((3, 3)))
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        read = read_by(task, mask=str(tmp_path / "mask.png"))
        if task == "deblur":
            read |= read_by(task, kernel=str(tmp_path / "kernel.npy"))
    said = OPERATORS[task].reads
    assert not [name for name in read if not set(said) & {name, name.partition(".")[0]}]
    assert not [name for name in said if name not in read | {each.partition(".")[0] for each in read}]


def as_kept(cell):
    """The settings of a cell as they were kept when each had all tasks' fields, without one that is new."""
    whole = json.loads(cell.config.to_json())
    del whole["nonlinear"]["contrast"]
    own = {key: whole[key] for key in ("box", "random", "factor", "mri", "nonlinear", "blur", "mask", "kernel")}
    inner = {"base": as_kept(cell.base)} if cell.base else {}
    return {**cell.settings(), **own, **inner}


@pytest.mark.parametrize("task", ["box_inpainting", "super_resolution factor=8", "high_dynamic_range", "deblur"])
def test_a_cell_that_was_kept_before_another_tasks_field_was_there_is_its_own(task, tmp_path):
    plan = made(task, "ddrm, reguidance(ddrm) reguidance.rho=1|3", first=2)
    for i, cell in enumerate(plan):
        assert "contrast" not in json.dumps(cell.settings())
        shards.write(tmp_path / str(i), [Result(Item("a" * 32, 0), np.zeros((2, 2, 1), np.uint16), {}, {})])
        shards.claim(tmp_path / str(i), as_kept(cell))
        shards.require_same(tmp_path / str(i), cell.settings(), cell.name)
    rules = choosing.Rules([Item("b" * 32, 0)], "psnr", 1)
    asked = choosing.made_with(plan[1], rules, {"weights": "w"})
    choice, more = choosing.Choice({}, []), {name: asked[name] for name in ("weights", "chosen")}
    choosing.keep(tmp_path, {**as_kept(plan[1]), **more}, choice)
    assert choosing.kept(tmp_path, asked, "its name") == choice


def test_a_field_of_its_own_task_or_solver_is_refused_by_name(tmp_path):
    def refused(task, words, solver="ddrm", **changes):
        (cell,), (other,) = made(task, solver), made(task, solver, **changes)
        shards.write(tmp_path / words, [Result(Item("a" * 32, 0), np.zeros((2, 2, 1), np.uint16), {}, {})])
        shards.claim(tmp_path / words, as_kept(cell))
        with pytest.raises(ValueError, match=f"was computed with {words}"):
            shards.require_same(tmp_path / words, other.settings(), cell.name)

    refused("box_inpainting", "box.top = 8, not 9", box={"top": 9})
    refused("deblur", "blur.std = 2.0, not 3.0", blur={"std": 3.0})
    refused("mri_4", "mri.coils = 1, not 4", mri={"coils": 4})
    refused("high_dynamic_range", "nonlinear.gain = 2.0, not 4.0", nonlinear={"gain": 4.0})
    refused("nonlinear_blur", "nonlinear.contrast = null, not 2.5")
    refused("denoise", "seed = 0, not 1", seed=1)
    refused("denoise", "dps.zeta = 18.0, not 4.0", "dps", dps={"zeta": 4.0})


def test_a_task_that_says_nothing_keeps_all_settings(monkeypatch):
    monkeypatch.setitem(OPERATORS, "denoise", OPERATORS["denoise"]._replace(reads=None))
    assert {"box", "blur", "mask", "nonlinear"} <= set(made("denoise", "ddrm")[0].settings())
    monkeypatch.undo()
    assert not {"box", "blur", "mask", "nonlinear"} & set(made("denoise", "ddrm")[0].settings())
    foreign = {"task": "yours", "box": {"top": 1}, "base": {"task": "denoise", "box": {"top": 1}, "x": None}}
    assert cells.own(foreign) == {"task": "yours", "box": {"top": 1}, "base": {"task": "denoise", "x": None}}
    assert cells.own({"task": "high_dynamic_range", "nonlinear": {"gain": 1, "contrast": 2, "once": 3}}) == {
        "task": "high_dynamic_range", "nonlinear": {"gain": 1, "once": 3}
    }  # fmt: skip


def test_what_shipped_tables_kept_is_still_that_of_their_cells():
    """Fields that tasks have got since do not part a kept cell from today's: its own are as they were."""
    ledger = json.loads((ROOT / "docs" / "tables" / "reguidance" / "ledger.json").read_text())
    plan = {cell.task.title: cell for cell in cells.cells(reguidance.get_config(), FIELDS) if cell.solver.name == "dps"}
    told = {cell["settings"]["task"]: cell["settings"] for cell in ledger["cells"] if cell["cell"].endswith("/ DPS")}
    assert len(plan) == len(told) == 6
    for cell in plan.values():
        kept = told[cell.task.text]
        words = keeping.changed(cells.own(kept), cell.settings())
        assert not [word for word in words if word.partition(" ")[0].partition(".")[0] in operators.FIELDS]
        older = {**dict.fromkeys(operators.FIELDS, "another task's"), **kept}
        assert keeping.changed(cells.own(older), cell.settings()) == words != keeping.changed(older, cell.settings())

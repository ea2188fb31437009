"""A table's cells out of texts: what they change, what they refuse, and what a cell's results are said to depend on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.tables import daps, defaults, dps, reguidance, spectral
from diffinv import schema
from experiments.evaluation import cells, choosing, printed
from experiments.evaluation.fields import FIELDS, check


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
    before = made("denoise", "dps", mask=str(mask))[0].settings()
    mask.write_bytes(b"b")
    assert made("denoise", "dps", mask=str(mask))[0].settings() != before, "the content of a file"


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
    reguidance: ["", "smoke", "eurosat", "paper"],
    dps: ["", "smoke", "ffhq", "imagenet"],
    daps: ["", "smoke", "ffhq", "imagenet"],
    spectral: ["", "smoke", "imagenet"],
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

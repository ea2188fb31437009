"""Open settings: what is tried, what is taken, and that a sweep in one program is the settings one by one."""

import json
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation_work import Bar, as_the_command_computes, pictures, plainly, planned, prior  # noqa: F401

from experiments.evaluation import choosing, shards, verification
from experiments.evaluation.fields import FIELDS
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.evaluation.work import Workshop

OPEN = "ddrm, reguidance(ddrm) reguidance.rho=1|3 reguidance.horizon=0.1|0.4"
BOX = "box_inpainting box.top=2 box.left=2 box.size=4"
ITEMS = [Item("0" * 32, 0), Item("1" * 32, 0)]


def result(item, **scores):
    return Result(item, np.zeros((2, 2, 3), np.uint16), {"first_bad_step": -1, "largest": 1.0, **scores}, {})


class Bowl:
    """A trial whose feature distance is |log(rho / 2)|, on each of two pictures; nothing above `most` is sound."""

    def __init__(self, text=OPEN, most=math.inf):
        self.cell, self.most, self.asked = planned(solvers=text)[1], most, []

    def __call__(self, tried, items):
        self.asked += [dict(values) for values in tried]
        return [[self.one(values, item) for item in items] for values in tried]

    def one(self, values, item):
        rho = values["reguidance.rho"]
        bad = rho > self.most and item == ITEMS[0]
        scores = {"feature_distance": abs(math.log(rho / 2)), "psnr": rho, "first_bad_step": 3 if bad else -1}
        return result(item, **scores)


def rules(criterion="feature_distance", rounds=1):
    return choosing.Rules(ITEMS, criterion, rounds)


def test_the_least_mean_of_the_criterion_is_taken():
    text = "ddrm, reguidance(ddrm) reguidance.rho=0.5|1.9|8"
    choice = choosing.choose(Bowl(text), rules())
    assert choice.values == {"reguidance.rho": 1.9} and len(choice.tried) == 3
    assert choosing.choose(Bowl(text), rules("psnr")).values == {"reguidance.rho": 8.0}, "larger is better"


def test_what_fails_on_fewer_pictures_is_taken_first():
    text = "ddrm, reguidance(ddrm) reguidance.rho=0.1|1.9|8"
    found = choosing.choose(Bowl(text, most=1.0), rules())
    assert found.values == {"reguidance.rho": 0.1} and [row["failed"] for row in found.tried] == [0, 1, 1]


def test_later_rounds_look_between_the_best_and_its_neighbours():
    trial = Bowl("ddrm, reguidance(ddrm) reguidance.rho=0.5|1|8")
    choice = choosing.choose(trial, rules(rounds=3))
    tried = [values["reguidance.rho"] for values in trial.asked]
    assert tried[:3] == [0.5, 1.0, 8.0] and tried[3:5] == pytest.approx([0.5**0.5, 8**0.5])
    assert len(tried) == len(set(tried)) == len(choice.tried), "nothing twice"
    assert abs(math.log(choice.values["reguidance.rho"] / 2)) < 0.35


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5, unique=True), st.data())
def test_a_round_keeps_the_best_and_stays_between_its_neighbours(values, data):
    best = data.draw(st.sampled_from(values))
    found, ordered = choosing.finer({"a": values, "b": (3, 4)}, {"a": best, "b": 4}), sorted(values)
    i = ordered.index(best)
    assert best in found["a"] and found["b"] == (4,), "whole numbers stay"
    assert all(ordered[max(i - 1, 0)] <= each <= ordered[min(i + 1, len(values) - 1)] for each in found["a"])


def test_nothing_sound_is_an_error():
    with pytest.raises(ValueError, match="failed, or has no ssim, with every value of reguidance.rho"):
        choosing.choose(Bowl("ddrm, reguidance(ddrm) reguidance.rho=1|3"), rules("ssim"))


def test_one_program_gives_what_each_setting_gives_alone(tmp_path):
    """Real numbers as arguments of one program, whole ones in programs of their own; to rounding."""
    text = "ddrm, reguidance(ddrm) reguidance.rho=1|3 reguidance.steps=3|4"
    plan, shop, items = planned(solvers=text), Workshop(prior(), pictures(), 1, 0), pictures().items(1)[:2]
    base = choosing.computed(shop, tmp_path, plan[0], items, {}, Bar())
    bar, combinations = Bar(), choosing.combinations(dict(plan[1].solver.open))
    found = choosing.Trial(shop, plan[1], base, bar)(combinations, items)
    assert bar.done == 8 and len(combinations) == 4
    for values, results in list(zip(combinations, found))[:1]:
        cell = plan[1].settled(values)
        assert (cell.config.reguidance.rho, cell.config.reguidance.steps) == tuple(values.values())
        alone = shop.compute(cell, shop.programs(cell), items, shop.devices, base)
        for own, other in zip(results, alone, strict=True):
            assert own.item == other.item and verification.apart(own.scores, other.scores) < 1e-4
            assert np.abs(own.x.astype(int) - other.x.astype(int)).max() <= 2
    assert verification.apart(found[0][0].scores, found[3][0].scores) > 1e-3, "settings matter"


def test_a_number_that_must_be_known_has_a_program_of_its_own(monkeypatch):
    asked = []

    def compute(self, cell, solver, items, size, base, columns):
        if columns:
            jax.jit(lambda x: float(x))(columns["reguidance.rho"][0])
        asked.append((cell.config.reguidance.rho, len(items)))
        return [result(item) for item in items]

    monkeypatch.setattr(Workshop, "compute", compute)
    cell = planned(solvers="ddrm, reguidance(ddrm) reguidance.rho=1|3")[1]
    trial = choosing.Trial(Workshop(prior(), pictures(), 1, 0), cell, {}, Bar())
    found = trial(choosing.combinations(dict(cell.solver.open)), ITEMS)
    assert asked == [(1.0, 2), (3.0, 2)] and [[each.item for each in row] for row in found] == [ITEMS, ITEMS]


def test_where_nothing_can_be_chosen_by_the_first_values_stand_and_the_table_goes_on(tmp_path, monkeypatch):
    """A base that cannot do the task, and a solver that says it cannot."""
    told = []
    bar = Bar()
    bar.write = told.append
    shop = Workshop(prior(), pictures(), 1, 0)
    first = choosing.Choice({"reguidance.rho": 1.0, "reguidance.horizon": 0.1}, [])
    cell = planned(solvers=OPEN)[1]
    monkeypatch.setattr(choosing, "computed", lambda *_: {})
    assert choosing.made(shop, tmp_path, cell, rules(), {}, bar) == first and told == []

    def refuse(*_):
        raise NotImplementedError("it needs\nsingular values")

    monkeypatch.setattr(choosing, "computed", lambda *_: {item: result(item) for item in ITEMS})
    monkeypatch.setattr(Workshop, "compute", refuse)
    assert choosing.made(shop, tmp_path, cell, rules(), {}, bar) == first
    assert told == [f"{cell.name}: it needs singular values"] and not list(tmp_path.iterdir()), "nothing is kept"


def test_a_file_system_without_links_keeps_the_first_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links")

    monkeypatch.setattr(choosing.os, "link", refuse)
    settings = choosing.made_with(planned(solvers=OPEN)[1], rules(), {})
    choosing.keep(tmp_path, settings, CHOICE)
    choosing.keep(tmp_path, settings, CHOICE._replace(values={"reguidance.rho": 1.0}))
    assert choosing.kept(tmp_path, settings, "cell") == CHOICE
    assert [path.name for path in tmp_path.iterdir()] == [choosing.CHOSEN]


CHOICE = choosing.Choice({"reguidance.rho": 3.0}, [{"values": {"reguidance.rho": 3.0}, "psnr": 20.0, "failed": 0}])


def test_the_first_that_finishes_decides(tmp_path):
    settings = choosing.made_with(planned(solvers=OPEN)[1], rules(), {"weights": "a"})
    assert choosing.kept(tmp_path, settings, "cell") is None
    choosing.keep(tmp_path, settings, CHOICE)
    choosing.keep(tmp_path, settings, CHOICE._replace(values={"reguidance.rho": 1.0}))
    assert choosing.kept(tmp_path, settings, "cell") == CHOICE
    assert [path.name for path in tmp_path.iterdir()] == [choosing.CHOSEN]


def test_another_way_of_choosing_is_refused(tmp_path):
    cell = planned(solvers=OPEN)[1]
    choosing.keep(tmp_path, choosing.made_with(cell, rules(), {}), CHOICE)
    for other in (rules(rounds=2), rules("psnr"), rules()._replace(items=ITEMS[:1])):
        with pytest.raises(ValueError, match="the settings of cell were chosen with chosen"):
            choosing.kept(tmp_path, choosing.made_with(cell, other, {}), "cell")
    with pytest.raises(ValueError, match="were chosen with weights"):
        choosing.kept(tmp_path, choosing.made_with(cell, rules(), {"weights": "b"}), "cell")
    (tmp_path / choosing.CHOSEN).write_text("{")
    with pytest.raises(ValueError, match="is damaged .*; remove it to choose again"):
        choosing.kept(tmp_path, {}, "cell")


def test_what_was_chosen_is_taken_from_presets(tmp_path):
    cell = planned("a box = " + BOX, OPEN)[1]
    values = {"reguidance.rho": 3.0, "reguidance.horizon": 0.1}
    written = choosing.written([cell.settled(values)], {cell.folder: choosing.Choice(values, [])})
    path = tmp_path / "presets.json"
    path.write_text(json.dumps(written))
    assert choosing.preset(str(path), cell, FIELDS) == values
    assert choosing.known(tmp_path, cell, rules(), {}, str(path), FIELDS) == choosing.Choice(values, [])
    with pytest.raises(ValueError, match="which lacks another / reguidance.*; choose it by config.first"):
        choosing.preset(str(path), planned("another = " + BOX, OPEN)[1], FIELDS)
    written["a box"][cell.solver.title]["reguidance.rho"] = -1
    path.write_text(json.dumps(written))
    with pytest.raises(ValueError, match="reguidance.rho is -1; give a number"):
        choosing.preset(str(path), cell, FIELDS)
    path.write_text("[")
    with pytest.raises(ValueError, match="which is no presets.json of a table"):
        choosing.preset(str(path), cell, FIELDS)


def test_cells_know_whether_they_are_open():
    plan = planned(solvers="dps dps.zeta=1|4, reguidance(dps dps.zeta=1|4)")
    assert [cell.open for cell in plan] == [True, True]
    base = plan[0].settled({"dps.zeta": 4.0})
    assert not base.open and base.label == "DPS, zeta 4.0" and base.folder == plan[0].folder and plan[0].stem == "DPS"
    wrapper = plan[1]._replace(base=base)
    assert not wrapper.open and wrapper.label == "ReGuidance(DPS, zeta 4.0)"
    assert wrapper.settings()["base"]["dps"]["zeta"] == 4.0


def test_the_sheet_has_all_that_was_tried():
    cell = planned("a box = " + BOX, OPEN)[1]
    tried = [{"values": {"reguidance.rho": rho}, "psnr": rho, "failed": 0} for rho in (1.0, 3.0)]
    choices = {cell.folder: choosing.Choice({"reguidance.rho": 3.0}, tried)}
    rows = choosing.sheet([cell.settled({"reguidance.rho": 3.0})], choices)
    assert [row["choice"] for row in rows] == ["", "chosen"] and rows[0]["tried"] == "rho 1.0"
    assert rows[0]["task"] == "a box, ReGuidance(DDRM)" and choosing.sheet([cell], {}) == []


def test_a_stored_result_is_what_was_computed(tmp_path):
    """What a wrapper's settings are chosen from is kept as that of any other item."""
    plan, shop, items = planned(solvers="ddrm"), Workshop(prior(), pictures(), 1, 0), pictures().items(1)[:2]
    bar = Bar()
    found = choosing.computed(shop, tmp_path, plan[0], items, {"weights": "a"}, bar)
    assert set(found) == set(items) == set(shards.read(tmp_path / plan[0].folder)[0]) and bar.done == 2
    choosing.computed(shop, tmp_path, plan[0], items, {"weights": "a"}, bar)
    assert bar.done == 2
    with pytest.raises(ValueError, match="was computed with weights"):
        choosing.computed(shop, tmp_path, plan[0], items, {"weights": "b"}, bar)

"""Cells computed: the same at any batch size, on any devices, in any order; what cannot be done is told, and kept out.

The prior is a thin network that is the exact denoiser of N(0, 0.09); see `matrix`. Pictures are their own features.
"""

import json
from functools import cache

import jax
import matrix
import numpy as np
import pytest
from compiling import PLAIN

from configs.tables import defaults
from experiments.evaluation import cells, items, shards, verification, work
from experiments.evaluation.fields import FIELDS
from experiments.evaluation.work import Workshop


@pytest.fixture(autouse=True)
def as_the_command_computes():
    """In single precision, with its promotions."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def plainly(monkeypatch):
    monkeypatch.setattr(work.Programs, "options", lambda self: PLAIN)
    monkeypatch.setattr(work.Programs, "perceive", jax.tree_util.Partial(lambda x: (x,)))


@cache
def prior():
    return matrix.gaussian_prior(matrix.SHAPE)


@cache
def pictures():
    x = np.random.default_rng(0).normal(127, 40, (5, *matrix.SHAPE))
    pixels = np.clip(x, 0, 255).astype(np.uint8)
    return items.Set(pixels, [f"p{i}" for i in range(5)], [items.digest(each) for each in pixels], "")


def planned(tasks="box_inpainting box.top=2 box.left=2 box.size=4", solvers="ddrm, reguidance(ddrm)", **changes):
    config = defaults.get_config()
    config.update({"tasks": tasks, "solvers": solvers, "steps": 4, "factor": 2, **changes})
    config.reguidance.steps = 4
    return cells.cells(config, FIELDS)


class Bar:
    """A progress bar that only counts."""

    def __init__(self):
        self.done = 0

    def update(self, count):
        self.done += count

    def set_postfix_str(self, text):
        pass


def computed(folder, plan, chosen=None, group=1, devices=1, draws=2, memory=0.0, monkeypatch=None):
    """All of a plan, kept in the folder, as the command does it."""
    shop = Workshop(prior(), pictures(), group, memory)
    shop.mesh = work.sharding.mesh(devices=jax.devices()[:devices])
    shop.devices, shop.group = devices, group * devices
    wanted, bar, said = chosen or pictures().items(draws), Bar(), []
    for cell in plan:
        known = shards.read(folder / cell.folder)[0]
        base = shards.read(folder / cell.base.folder)[0] if cell.base else None
        said.append(shop.finish(cell, folder, [item for item in wanted if item not in known], base, bar))
    return [shards.read(folder / cell.folder)[0] for cell in plan], said, bar.done


@pytest.mark.slow
def test_batches_devices_and_order_do_not_matter(tmp_path):
    plan, wanted = planned(), pictures().items(2)
    first = computed(tmp_path / "a", plan, wanted)[0]
    again = computed(tmp_path / "b", plan, wanted)[0]
    other = computed(tmp_path / "c", plan, wanted[::-1], group=2, devices=4)[0]
    for own, twin, third in zip(first, again, other):
        assert set(own) == set(twin) == set(third) == set(wanted)
        for item in wanted:
            np.testing.assert_array_equal(own[item].x, twin[item].x, "one program on one device: bitwise")
            assert verification.apart(own[item].scores, twin[item].scores) == 0
            assert np.abs(own[item].x.astype(int) - third[item].x.astype(int)).max() <= 2, "to rounding"
            assert verification.apart(own[item].scores, third[item].scores) < 1e-4
    a, b = wanted[0], wanted[5]
    assert a.picture == b.picture and (first[1][a].x != first[1][b].x).any(), "draws differ"
    assert first[0][a].scores["floor"] == first[0][b].scores["floor"], "of one measurement"


def test_only_what_is_missing_is_computed(tmp_path):
    plan, wanted = planned(), pictures().items(1)
    assert computed(tmp_path, plan[:1], wanted[:2])[2] == 2
    assert computed(tmp_path, plan[:1], wanted)[2] == 3
    assert computed(tmp_path, plan, wanted)[2] == 5, "another solver"
    assert computed(tmp_path, plan, wanted)[2] == 0
    assert computed(tmp_path, plan, pictures().items(2))[2] == 10, "another draw"


def test_a_wrapper_has_its_bases_cost_and_starts_from_it(tmp_path):
    plan, wanted = planned(), pictures().items(1)
    base, own = computed(tmp_path, plan, wanted)[0]
    item = wanted[0]
    assert base[item].scores["nfe"] == 4 and own[item].scores["nfe"] > 4
    alone = Workshop(prior(), pictures(), 1)
    far = {key: each._replace(x=shards.stored(np.ones(matrix.SHAPE))) for key, each in base.items()}
    solver = alone.programs(plan[1])
    size = alone.devices
    moved = alone.compute(plan[1], solver, wanted, size, far)[0]
    assert (moved.x != own[item].x).any()
    failed = {key: each._replace(scores={**each.scores, "first_bad_step": 2.0}) for key, each in base.items()}
    assert alone.compute(plan[1], solver, wanted, size, failed)[0].scores["first_bad_step"] == 2


def test_what_a_solver_cannot_do_is_written_down_and_others_finish(tmp_path):
    plan = planned("deblur blur.size=5", "ddrm, diffpir, reguidance(ddrm)")
    found, said, _ = computed(tmp_path, plan, pictures().items(1)[:2])
    assert [len(each) for each in found] == [0, 2, 0] and said[0] and not said[1]
    assert (tmp_path / plan[0].folder / work.REFUSED).read_text() == said[0]
    (tmp_path / plan[1].folder / work.REFUSED).write_text("of another day")
    computed(tmp_path, plan, pictures().items(1)[:3])
    assert not (tmp_path / plan[1].folder / work.REFUSED).exists()


def test_a_solver_that_diverges_on_a_picture_is_a_score_of_that_picture(tmp_path):
    plan = planned("denoise", "dps dps.zeta=10000.0 dps.steps=40 dps.clip=False")
    found = computed(tmp_path, plan, pictures().items(1)[:2])[0][0]
    assert len(found) == 2
    assert all(each.scores["first_bad_step"] >= 0 or each.scores["largest"] > 5 for each in found.values())


def test_what_was_made_is_told(tmp_path):
    plan = planned(solvers="ddrm")
    found = computed(tmp_path, plan, pictures().items(1)[:1])[0][0]
    about = next(iter(found.values())).about
    assert about["made_by"]["jax"] == jax.__version__ and about["made_by"]["platform"] == "cpu"
    assert about["batch"] == about["devices"] == 1 and about["compile_seconds"] > 0 and about["bytes"] > 0
    json.dumps(about)


def test_the_memory_decides_how_many_at_once(tmp_path):
    plan, wanted = planned(solvers="ddrm"), pictures().items(2)[:8]
    shop = Workshop(prior(), pictures(), 8)
    size = 8 * shop.devices
    need = lambda n: _needed(shop, plan[0], wanted, n)
    most, least = need(size), need(shop.devices)
    assert most > least > 0
    shop.memory = (most + least) / 2
    solver, fitted = shop.fitted(plan[0], size, wanted, None)
    assert shop.devices <= fitted < size and fitted % shop.devices == 0
    assert work.needed(next(iter(solver.compiled.values())).program) <= shop.memory
    shop.memory = least / 2
    with pytest.raises(work.TooLarge, match="for one item on each of 8 devices, and config.memory is"):
        shop.fitted(plan[0], size, wanted, None)
    shop.memory = 0
    assert shop.fitted(plan[0], size, wanted, None)[1] == size


def _needed(shop, cell, wanted, size):
    solver = shop.programs(cell)
    shop.compile(cell, solver, wanted, size, None)
    return work.needed(next(iter(solver.compiled.values())).program)


def test_the_pictures_themselves_are_looked_at_once_and_scores_stay(tmp_path):
    """One look a batch of the first cell, none of the second; where nothing may be held, one each, and the same."""
    plan, wanted = planned(solvers="ddrm, tikhonov"), pictures().items(2)
    shop, looks = Workshop(prior(), pictures(), 1), []
    program = shop.seen.program
    shop.seen.program = lambda *given: (looks.append(len(given[1])), program(*given))[1]
    shop.mesh, shop.devices, shop.group = work.sharding.mesh(devices=jax.devices()[:1]), 1, 4
    floors, drawn = shop.task(plan[0]).floors, []
    shop.task(plan[0]).floors = lambda *given: (drawn.append(len(given[0])), floors(*given))[1]
    run = lambda folder: [shop.finish(cell, folder, wanted, None, Bar()) for cell in plan]
    assert run(tmp_path / "a") == ["", ""] and looks == drawn == [4, 4], "of ten items on five pictures, 2 x 4 and 2"
    held = shop.seen
    shop.seen = work.Seen(limit=0)
    shop.tasks.clear()
    run(tmp_path / "b")
    assert len(held.kept) == 5 and not shop.seen.kept
    for cell in plan:
        one, two = (shards.read(tmp_path / name / cell.folder)[0] for name in "ab")
        assert set(one) == set(wanted)
        assert all(verification.apart(one[item].scores, two[item].scores) == 0 for item in wanted)


def test_a_score_by_known_features_is_the_score():
    (cell,) = planned(solvers="ddrm")
    shop = Workshop(prior(), pictures(), 1)
    filled, truth, measurements = shop.given(cell, shop.programs(cell), pictures().items(1), 8)
    task = shop.task(cell)
    x = 0.9 * truth + 0.01
    apart = jax.device_get(task.score(task.programs.perceive, measurements, truth, x, None))
    taps = shop.seen(task.programs.perceive, [item.picture for item in filled], truth, task.programs.split)
    known = jax.device_get(task.score(task.programs.perceive, measurements, truth, x, taps))
    assert known.keys() == apart.keys() and known["feature_distance"].min() > 1e-6
    for name in apart:
        np.testing.assert_allclose(known[name], apart[name], rtol=1e-6, err_msg=name)

"""Rows by hand: means over pictures, failures left out and counted, what several draws say, what a wrapper adds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.evaluation import shards, summary
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.evaluation.summary import Found

SHAPE = (4, 4, 1)
GREY = np.zeros(SHAPE)


def cell(label, base=None, task="box"):
    titled = SimpleNamespace(title=task)
    return SimpleNamespace(task=titled, label=label, base=base, name=f"{task} / {label}", settings=dict)


def result(picture, draw=0, x=None, **scores):
    plain = {
        "psnr": 20.0,
        "residual": 1.0,
        "floor": 2.0,
        "largest": 1.0,
        "nfe": 5.0,
        "seconds": 0.5,
        "vjps": 0.0,
        "calls": 2.0,
    }
    stored = shards.stored(np.zeros(SHAPE) if x is None else x)
    return Result(Item(picture, draw), stored, {**plain, "first_bad_step": -1.0, **scores}, {})


def found(*results, label="DPS", base=None):
    return Found(cell(label, base), {each.item: each for each in results})


def test_draws_of_a_picture_are_averaged_before_the_interval():
    each = found(
        result("a", 0, psnr=10.0), result("a", 1, psnr=14.0), result("b", 0, psnr=20.0), result("b", 1, psnr=20.0)
    )
    row = summary.row(each, {"a": GREY, "b": GREY}, 4)
    mean, half = row["psnr"]
    assert mean == 16.0 and half == pytest.approx(12.7062 * np.std([12.0, 20.0], ddof=1) / math.sqrt(2), rel=1e-4)
    assert row["ratio"] == (0.5, 0.0) and row["pictures"] == 2 and row["failed"] == 0 and "missing" not in row
    assert row["nfe"] == 5.0 and "vjps" not in row


def test_a_picture_with_a_failed_draw_is_in_no_mean_and_is_counted():
    bad = [result("a", first_bad_step=3.0), result("b", largest=9.0), result("c", psnr=float("nan"))]
    row = summary.row(found(*bad, result("d", psnr=30.0), result("d", 1, psnr=32.0)), {"d": GREY}, 9)
    assert row["psnr"][0] == 31.0 and row["failed"] == 3 and row["pictures"] == 1 and row["missing"] == 4
    every = summary.row(found(*bad), {}, 3)
    assert "psnr" not in every and every["failed"] == 3 and every["pictures"] == 0


def test_what_a_solver_cannot_do_is_told():
    row = summary.row(Found(cell("DDRM"), {}, "its singular values are not known"), {}, 3)
    assert row == {"task": "box", "method": "DDRM", "note": "not possible: its singular values are not known"}


def test_draws_that_are_samples_cover_what_they_say():
    """Truth and draws of one law are exchangeable: the truth lies within the k-th and k-th last of n of them with
    probability (n + 1 - 2 k) / (n + 1), at any pixel."""
    rng = np.random.default_rng(0)
    shape = (60, 60, 1)
    truth = 0.2 * rng.standard_normal(shape)
    group = [result("a", draw, x=0.2 * rng.standard_normal(shape)) for draw in range(19)]
    told = summary.spread(group, truth)
    assert told["nominal"] == pytest.approx(0.9)
    assert told["covered"] == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 3600))
    assert told["deviation"] == pytest.approx(0.2, rel=0.02)
    assert told["error"] == pytest.approx(0.2 * math.sqrt(1 + 1 / 19), rel=0.04)
    assert told["mean_psnr"] == pytest.approx(-20 * math.log10(told["error"] / 2), abs=1e-6)
    narrow = [result("a", draw, x=0.05 * rng.standard_normal(shape)) for draw in range(19)]
    assert summary.spread(narrow, truth)["covered"] < 0.5
    assert summary.spread(group[:2], truth)["nominal"] == pytest.approx(1 / 3)


def test_a_row_of_several_draws_has_what_they_say():
    group = [result(p, draw, x=np.full(SHAPE, v)) for p in "ab" for draw, v in enumerate((-0.2, 0.2))]
    row = summary.row(found(*group), {"a": GREY, "b": GREY + 0.5}, 4)
    assert row["covered"] == (0.5, pytest.approx(12.7062 * 0.7071068 / math.sqrt(2), rel=1e-4))
    assert row["deviation"][0] == pytest.approx(0.2 * math.sqrt(2), rel=1e-4) and row["nominal"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "base", "other", "word"),
    [
        ("psnr", [20, 21, 22], [21, 22.1, 23], "better"),
        ("psnr", [20, 21, 22], [19, 19.9, 21], "worse"),
        ("psnr", [20, 21, 22], [21, 20, 22], "no difference"),
        ("feature_distance", [0.5, 0.6, 0.7], [0.4, 0.49, 0.6], "better"),
        ("ratio", [0.3, 0.4, 0.35], [0.9, 1.0, 1.04], "better"),
        ("ratio", [1.0, 1.02, 0.99], [0.5, 0.53, 0.48], "worse"),
        ("ratio", [1.5, 1.52, 1.49], [0.5, 0.48, 0.51], "no difference"),
        ("psnr", [20.0, 21.0], [20.0, 21.0], "no difference"),
    ],
)
def test_the_word_is_of_the_interval(name, base, other, word):
    mean, half, said = summary.verdict(name, np.asarray(base, float), np.asarray(other, float))
    assert said == word and mean == pytest.approx(np.mean(other) - np.mean(base))


def test_a_wrapper_is_compared_picture_by_picture_with_its_base():
    base = found(*(result(p, psnr=v) for p, v in zip("abc", (10.0, 20.0, 30.0))))
    own = [result("a", psnr=11.0), result("b", psnr=21.0), result("c", first_bad_step=0.0), result("d", psnr=99.0)]
    rows = summary.compared([base, found(*own, label="ReGuidance(DPS)", base=base.cell)])
    assert len(rows) == 1 and rows[0]["method"] == "ReGuidance(DPS) - DPS" and rows[0]["pictures"] == 2
    assert rows[0]["psnr_added"] == (1.0, 0.0) and rows[0]["psnr_word"] == "better"
    assert rows[0]["ratio_word"] == "no difference" and "ssim_added" not in rows[0]
    alone = found(result("a"), label="ReGuidance(DPS)", base=base.cell)
    assert summary.compared([base, alone]) == []

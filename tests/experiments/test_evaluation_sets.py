"""Sets of restored pictures: their distances are the metrics', their classes the pictures' own, features are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from test_evaluation_summary import cell, result
from test_realism import pack

from configs.tables import defaults
from diffinv import data
from diffinv.metrics import distribution, features
from experiments.evaluation import items, realism, sets, shards, summary
from experiments.evaluation.summary import Found

SHAPE = (8, 8, 3)


@struct.dataclass
class Drawn:
    """Features of one drawn layer, where those of EfficientNet would take most of the time."""

    kernel: jax.Array

    def pooled(self, x):
        return jnp.concatenate([x.mean((0, 1)), jnp.tanh(x.reshape(-1) @ self.kernel)])


@pytest.fixture
def drawn(monkeypatch):
    kernel = np.random.default_rng(1).standard_normal((192, realism.WIDTH - 3)).astype(np.float32)
    monkeypatch.setattr(features, "efficientnet_features", lambda: Drawn(jnp.asarray(kernel)))
    monkeypatch.setattr(realism, "splits", lambda source: (None, None))
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    return pack(tmp_path / "in", np.random.default_rng(0))


def config(source, reference=12, training=0):
    found = defaults.get_config()
    found.update(data=source, first=2, pictures=10, reference=reference, training=training, seed=0)
    return found


def restored(pictures, failing=0):
    """Every picture as it is, the first ones diverged."""
    truth = np.asarray(data.to_unit(pictures.pixels))
    bad = lambda i: {"first_bad_step": 4.0} if i < failing else {}
    results = [result(digest, x=truth[i], **bad(i)) for i, digest in enumerate(pictures.digests)]
    return Found(cell("DPS"), {each.item: each for each in results}), truth


def test_distances_are_of_what_did_not_fail_from_other_pictures(source, tmp_path, drawn):
    chosen, pictures = items.pictures(source, SHAPE, 2, 10, 0)
    found, truth = restored(pictures, failing=3)
    same, (cells,), (line,) = sets.told(config(source), SHAPE, pictures, tmp_path / "f", [found])
    others = items.pictures(source, SHAPE, 12, 12, 0)[1]
    assert not set(others.digests) & set(pictures.digests + chosen.digests)
    eye = realism.Eye(features.efficientnet_features())
    half = lambda x: np.asarray(eye(np.asarray(x, np.float32)), np.float16).astype(float)
    seen, reference = half(shards.unit(shards.stored(truth[3:]))), half(data.to_unit(others.pixels))
    kid = distribution.feature_kid(seen, reference)
    assert cells["kid"] == pytest.approx((kid.value, kid.half), rel=1e-3)
    assert cells["cmmd"] == pytest.approx(distribution.feature_cmmd(seen, reference), rel=1e-3)
    assert line["method"] == "truth" and line["pictures"] == 10 and "taken" not in line and same == [found]


def test_features_are_found_once(source, tmp_path, drawn, monkeypatch):
    pictures = items.pictures(source, SHAPE, 2, 10, 0)[1]
    ask = lambda: sets.told(config(source), SHAPE, pictures, tmp_path / "f", [restored(pictures)[0]])[1:]
    first = ask()
    monkeypatch.setattr(realism.Eye, "__call__", lambda *_: pytest.fail("nothing is left to be looked at"))
    assert ask() == first


def test_pictures_are_taken_for_their_own_class(source, tmp_path, drawn, monkeypatch):
    """Dark and bright ones: of what is restored right all are, of what has the other class's pixels none."""
    monkeypatch.setattr(realism, "splits", lambda source: (None, 0))
    monkeypatch.setattr(realism, "drawn", lambda source, shape, split, *more: DRAWN(source, shape, None, *more))
    pictures = items.pictures(source, SHAPE, 2, 10, 0)[1]
    found, truth = restored(pictures, failing=1)
    wrong = {item: each._replace(x=shards.stored(-shards.unit(each.x))) for item, each in found.results.items()}
    both = [found, found._replace(results=wrong)]
    told, cells, (line,) = sets.told(config(source, 0, 40), SHAPE, pictures, tmp_path / "f", both)
    assert line["taken"] == 1.0 and cells == [{}, {}]
    rows = [summary.row(each, dict(zip(pictures.digests, truth)), 10) for each in told]
    assert [row["taken"] for row in rows] == [(1.0, 0.0), (0.0, 0.0)] and rows[0]["pictures"] == 9


DRAWN = realism.drawn


def test_nothing_is_looked_at_where_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "efficientnet_features", lambda: pytest.fail("no network is needed"))
    asked = config("nowhere", 0, 0)
    assert sets.told(asked, SHAPE, None, tmp_path, ["a", "b"]) == (["a", "b"], [{}, {}], [])

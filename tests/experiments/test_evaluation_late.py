"""Scores of kept pictures: the metrics' own, of what did not fail, found once; files that are wrong are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from ml_collections import ConfigDict
from test_evaluation_summary import cell, result

from configs.tables import defaults, reguidance
from diffinv.metrics import image, lpips, natural
from experiments.evaluation import late, shards, summary
from experiments.evaluation.fields import check
from experiments.evaluation.summary import Found

SHAPE = (8, 8, 3)


@struct.dataclass
class Apart:
    """A distance of no network: a weight times the mean difference."""

    weight: jax.Array

    def __call__(self, x, y):
        return self.weight * jnp.mean(jnp.abs(x - y))


@pytest.fixture(autouse=True)
def as_the_command_computes():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def config(**changes):
    found = defaults.get_config()
    found.update(changes)
    return found


def restored(shape=SHAPE, count=11):
    """Pictures a little off, the last one diverged."""
    rng = np.random.default_rng(0)
    truth = {f"{i:032x}": rng.uniform(-0.9, 0.9, shape) for i in range(count)}
    bad = lambda i: {"first_bad_step": 2.0} if i == count - 1 else {}
    results = [result(name, x=x + 0.05 * (i % 3), **bad(i)) for i, (name, x) in enumerate(truth.items())]
    return Found(cell("DPS"), {each.item: each for each in results}), truth


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Files of a distance, which are read as they are asked for."""
    for name in ("vgg", "linear"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.setattr(lpips, "lpips", lambda *paths: Apart(jnp.float32(2.0)))
    return {"lpips_vgg": str(tmp_path / "vgg"), "lpips_linear": str(tmp_path / "linear")}


def test_a_distance_is_of_truth_and_what_is_kept(tmp_path, given):
    found, truth = restored()
    (told,) = late.told(config(**given), truth, tmp_path / "kept", [found])
    for i, (item, each) in enumerate(told.results.items()):
        if i == 10:
            assert "lpips" not in each.scores, "it failed"
            continue
        expected = 2 * np.abs(truth[item.picture] - shards.unit(found.results[item].x)).mean()
        assert each.scores["lpips"] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    row = summary.row(told, truth, 11)
    assert row["lpips"][0] == pytest.approx(np.mean([0, 0.1, 0.2, 0, 0.1, 0.2, 0, 0.1, 0.2, 0]), rel=0.02)
    assert row["pictures"] == 10 and row["failed"] == 1


def test_it_is_found_once_and_again_for_other_files_or_pictures(tmp_path, given, monkeypatch):
    found, truth = restored()
    asked, batched = [], late.batched
    counting = lambda metric, *leaves: lambda *pair: (asked.append(len(pair[1])), batched(metric, *leaves)(*pair))[1]
    monkeypatch.setattr(late, "batched", counting)
    ask = lambda found: [each.results for each in late.told(config(**given), truth, tmp_path / "kept", [found])]
    first = ask(found)
    assert ask(found) == first and asked == [10]
    moved = {item: each._replace(x=each.x + np.uint16(1)) for item, each in found.results.items()}
    ask(found._replace(results=moved))
    (tmp_path / "linear").write_bytes(b"another")
    ask(found)
    assert asked == [10, 10, 10]


def test_large_pictures_have_several_scales(tmp_path):
    found, truth = restored((176, 176, 1), 2)
    (told,) = late.told(config(), truth, tmp_path, [found])
    name, x = next(iter(truth.items()))
    first = next(iter(told.results.values()))
    assert first.scores["ms_ssim"] == pytest.approx(float(image.ms_ssim(x, x, (-1, 1))), abs=1e-4)
    assert late.scores(config(), (175, 176, 1)) == {}


def test_nothing_is_asked_for_by_default(tmp_path):
    found, truth = restored()
    assert list(late.told(config(), truth, tmp_path, [found])) == [found]


def test_a_flat_picture_has_no_naturalness(monkeypatch):
    model = natural.Pristine(np.zeros(36), np.eye(36), 8)
    monkeypatch.setattr(natural, "pristine", lambda path: model)
    score = late.scores(config(niqe="there"), (16, 16, 3))["niqe"]
    noisy = np.random.default_rng(0).uniform(-1, 1, (16, 16, 3))
    values = score(None, np.stack([np.zeros((16, 16, 3)), noisy]))
    assert values[0] == np.inf and values[1] == natural.niqe(noisy, (-1, 1), model)
    with pytest.raises(ValueError, match="patches of 8 pixels, and the pictures have"):
        late.scores(config(niqe="there"), (7, 16, 3))


def test_files_that_are_wrong_are_named(tmp_path):
    missing = str(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="none.pth; give the path of torchvision's vgg16-397923af.pth"):
        late.scores(config(lpips_vgg=missing, lpips_linear=missing), SHAPE)
    with pytest.raises(FileNotFoundError, match="none.pth; give the path of NIQE's model, which is in"):
        late.scores(config(niqe=missing), SHAPE)
    with pytest.raises(FileNotFoundError, match="download.pytorch.org"):
        late.scores(config(dists_vgg=missing, dists_weights=missing), SHAPE)
    asked: ConfigDict = reguidance.get_config("smoke")
    asked.update(lpips_vgg=missing)
    with pytest.raises(ValueError, match="config.lpips_vgg and config.lpips_linear belong together"):
        check(asked)

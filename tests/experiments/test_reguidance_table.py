"""The verdict's table: what chooses, what is said of a difference, and a small run that is stopped and goes on."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from flax import struct

from configs import satellite
from diffinv import weights
from diffinv.metrics import features
from experiments.restore import operators
from experiments.tables import published, realism, reguidance

NETWORK = {**nets.TINY, "multipliers": (1,), "attention": ()}
CARD = {
    "architecture": {"name": "unet", **NETWORK, "dtype": "float32"},
    "parametrisation": {"parametrisation": "edm", "sigma_data": 0.4},
    "process": {"name": "EDM", "sigma_max": 40.0},
    "shape": [8, 8, 3],
}
tiny = cache(lambda: nets.tiny(**NETWORK))


@struct.dataclass
class Drawn:
    """Features of one drawn layer, where those of EfficientNet would take most of the time."""

    kernel: jax.Array

    def __call__(self, x):
        return (jnp.tanh(x @ self.kernel),)

    def pooled(self, x):
        return self(x)[0].mean((0, 1))


def scores(*feature):
    return {"feature_distance": np.asarray(feature)}


def test_the_pair_of_the_least_mean_is_chosen_and_one_that_diverged_is_none():
    pairs = [reguidance.Pair(0.1, 1.0, 40), reguidance.Pair(0.1, 3.0, 20), reguidance.Pair(0.2, 1.0, 40)]
    found = dict(zip(pairs, [scores(0.5, 0.7), scores(0.5, 0.6), scores(0.1, np.nan)]))
    assert reguidance.chosen_pair(found) == pairs[1] and str(pairs[1]) == "T 0.1, rho 3, 20 steps"


def test_a_verdict_is_of_paired_differences():
    """What all pictures share does not widen the interval, which is 1.96 s / sqrt(n) of the differences."""
    rng = np.random.default_rng(0)
    shared, noise = 10 * rng.standard_normal(100), 0.1 * rng.standard_normal(100)
    base, other = 20 + shared, 20.5 + shared + noise
    half = 1.96 * noise.std(ddof=1) / 10
    assert reguidance.verdict("psnr", base, other) == f"{(other - base).mean():+.2f} ± {half:.2f}, better"
    assert reguidance.verdict("psnr", other, base).endswith("worse")
    assert reguidance.verdict("feature_distance", base, other).endswith("worse")
    assert reguidance.verdict("psnr", base, base + noise - noise.mean()).endswith("no difference")


def test_a_residual_is_better_where_it_is_nearer_to_the_noise():
    rng = np.random.default_rng(0)
    low, high = 0.4 + 0.01 * rng.standard_normal(50), 1.1 + 0.01 * rng.standard_normal(50)
    assert reguidance.verdict("ratio", low, high).endswith("better")  # from 0.6 below the noise to 0.1 above
    assert reguidance.verdict("ratio", high, high + 0.5).endswith("worse")


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("title", reguidance.TASKS)
def test_every_task_fits_the_pictures(title, side):
    task, config = reguidance.TASKS[title], satellite.get_config()
    with config.unlocked():
        config.update(task.settings(side))
    operators.require_fit(config, [task.name], (side, side, 3))
    if task.name == "box_inpainting":
        operator = operators.OPERATORS[task.name](config, jax.random.key(0), (side, side, 3))
        hidden = 1 - np.asarray(operator.mask, float)[..., 0]
        share = {"box 1/4": 0.25, "box 1/2": 0.5, "box 5/8": 0.625}[title]
        assert hidden.sum() == (share * side) ** 2 and (hidden == hidden[::-1, ::-1]).all()


def options(tmp_path, **given):
    if not (tmp_path / "prior.json").exists():
        weights.save(str(tmp_path / "prior"), tiny()[1], CARD)
    known = {"data": "gradients", "prior": str(tmp_path / "prior"), "kept": str(tmp_path / "kept.json")}
    return published.values(reguidance.OPTIONS, quick=True, **{**known, **given})


@pytest.fixture
def quick(monkeypatch):
    settings = satellite.get_config("smoke")
    monkeypatch.setattr(reguidance.satellite, "get_config", settings.copy_and_resolve_references)
    kernel = np.random.default_rng(0).standard_normal((3, realism.WIDTH)).astype(np.float32)
    monkeypatch.setattr(features, "efficientnet_features", lambda: Drawn(jnp.asarray(kernel)))
    with jax.enable_x64(False):
        yield


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_table(tmp_path, monkeypatch, quick):
    table = reguidance.main(options(tmp_path))
    assert (table.failed, table.whole) == (0, 4)  # two pictures, by the base and by ReGuidance of it
    whole = table.text
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert whole.startswith("2 pictures; T, rho and steps are chosen on 2 others: the second table\ntask")
    assert "ReGuidance, T 0.2, rho 3, 12 steps" in whole and "\ntruth" in whole
    assert "perfect candidate" in whole and "\nT 0.2, rho 3, 12 steps  " in whole
    group = max(2, jax.device_count())  # groups fill the devices
    lengths = {name: {len(value) for value in each.values()} for name, each in kept.items() if isinstance(each, dict)}
    assert len(lengths) == 3  # what chooses, the base, ReGuidance of it; beside the reference and the truth
    packed = {4 * -(-2 * realism.WIDTH * count // 3) for count in (2, group)}
    assert all(found <= {2, group, *packed} for found in lengths.values()) and len(kept) == 5
    (tmp_path / "kept.json").write_text(json.dumps(dict(list(kept.items())[:3])))
    assert reguidance.main(options(tmp_path)).text == whole
    monkeypatch.setattr(reguidance.Trial, "scored", lambda *_: pytest.fail("nothing is left to be done"))
    assert reguidance.main(options(tmp_path)).text == whole


@pytest.mark.slow
def test_more_pictures_compute_only_what_is_missing(tmp_path, monkeypatch, quick):
    """Of 2 reported pictures in groups of 2, then of 4: the first two and those that choose are kept."""
    few = reguidance.main(options(tmp_path, group=2)).text
    done, scored = [], reguidance.Trial.scored
    monkeypatch.setattr(reguidance.Trial, "scored", lambda self, x, g: (done.append(g), scored(self, x, g))[1])
    more = reguidance.main(options(tmp_path, group=2, pictures=4)).text
    last = 1 if jax.device_count() > 2 else 2  # where devices are many, the last group was not full
    assert done == [last, last] and more.startswith("4 pictures") and few.split("\n\n")[1] == more.split("\n\n")[1]


def test_what_cannot_be_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="--data is ''; give held-out pictures"):
        reguidance.main(options(tmp_path, data=""))
    with pytest.raises(ValueError, match="--data holds 16 pictures, and 10[0-9]+ are asked for; lower --pictures"):
        reguidance.main(options(tmp_path, pictures=1000))
    (tmp_path / "kept.json").write_text("[")
    with pytest.raises(ValueError, match="--kept is .*, which holds no scores"):
        reguidance.main(options(tmp_path))

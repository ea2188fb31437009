"""The training task of upscalers: its modes, one step of each method, stage 2 from stage 1's export, bad values."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

pytest.importorskip("ml_collections")
pytest.importorskip("grain")

from configs import ctmsr_x4
from diffinv import data, degrade, train, weights
from diffinv.consistency import ctmsr
from diffinv.data.builders import Resident
from diffinv.metrics import image
from diffinv.nn import unet
from experiments.tasks import run as training
from experiments.tasks.super_resolution import SuperResolution

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def as_experiments_run():
    """Single precision and the usual promotion, which optax's Adam needs."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def smoke(**changes):
    config = ctmsr_x4.get_config("smoke")
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def source():
    grid = np.linspace(0, 6, 32)
    waves = np.sin(grid[:, None] + grid[None])[..., None] + np.arange(3) / 2
    images = np.stack([np.uint8(127.5 + 60 * np.roll(waves, k, 0)) for k in range(16)])
    return data.Source(Resident(images, np.zeros(16, np.int32)), 32, 3, ("",), ())


def test_every_mode_is_a_configuration(source):
    made = {mode: ctmsr_x4.get_config(mode) for mode in ctmsr_x4.MODES}
    assert len({(c.name, c.method, c.steps) for c in made.values()}) == len(made)
    assert made["multistep"].steps == made[""].steps + made["dtm"].steps
    assert made["published"].curriculum_steps == 502_000 and made["published"].index == "batch"
    with pytest.raises(ValueError, match="mode is 'big'"):
        ctmsr_x4.get_config("big")


@pytest.mark.slow
def test_the_published_mode_has_the_published_network(source):
    config = ctmsr_x4.get_config("published")
    config.feature_weight = 0.0  # LPIPS needs the user's files
    shapes = jax.eval_shape(SuperResolution(config, source).init, jax.random.key(0))
    assert round(unet.parameter_count(shapes) / 1e6, 2) == 171.52


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "dtm"}, "config.start is empty"),
        ({"size": 30}, "must be a multiple of config.scale 4"),
        ({"method": "ctm"}, "config.method is 'ctm'"),
        ({"degradation": "jpeg"}, "config.degradation is 'jpeg'"),
        ({"feature_weight": 1.0, "perceptual": "lpips", "lpips_vgg": "nowhere.pth"}, "nothing is downloaded"),
    ],
)
def test_wrong_values_are_said_in_one_line(changes, said, source):
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        SuperResolution(smoke(**changes), source)
    assert "\n" not in str(caught.value)


START = train.Context(jnp.int32(0), (), ())


@pytest.mark.slow
def test_stage_two_goes_on_from_stage_one(source, tmp_path):
    run = training.Run(smoke(), source)
    begin = jax.jit(run._init, compiler_options=FAST)(run.start), run.put(source.take(range(8)))
    state, metrics = run.step.lower(*begin).compile(FAST)(*begin)
    assert np.isfinite(metrics.loss) and metrics.skipped == 0
    training.export(run, state, 0, 1.0, {}, source, str(tmp_path))
    path = str(tmp_path / "ctmsr_x4")
    upscaler, card = weights.load_upscaler(path), weights.read_card(path)
    assert (card["scale"], card["method"], card["network"]) == (4, "ctmsr", "srnet") and upscaler.scale == 4
    key, low = jax.random.key(3), run.task.prompts(source, 1)[0]
    made = jax.jit(ctmsr.super_resolve, compiler_options=FAST)(key, upscaler, jnp.asarray(low))
    sampled = jax.jit(run.task.sample, compiler_options=FAST)(key, jax.device_get(state.ema[0]), low)
    np.testing.assert_allclose(sampled, made, atol=1e-5)

    params, batch = weights.restore(path)[0], source.take(range(4))
    options = {"method": "dtm", "start": path, "matching": "l2", "matching_weight": 1.0}
    later = SuperResolution(smoke(**options), source)
    assert later.contextual and later.refresh == 500 and later.frozen(params) is None
    random = SuperResolution(smoke(**options, reference="random"), source).frozen(params)
    assert "l2 x" in later.card()["schedule"]
    loss = jax.jit(lambda frozen: later.loss(key, params, batch, START._replace(frozen=frozen)), compiler_options=FAST)
    head = jax.tree.map(lambda a: a + 0.05, random)
    assert np.isfinite(loss(params)) and abs(loss(params) - loss(head)) > 1e-6


@pytest.mark.slow
def test_errors_of_stage_one_and_the_multistep_networks_loss_and_picture(source):
    one, batch = SuperResolution(smoke(), source), source.take(range(4))
    params, key = one.init(jax.random.key(0)), jax.random.key(1)
    errors = jax.jit(one.errors, compiler_options=FAST)(key, params, batch)
    assert set(errors) == {"finished", "semigroup_1_3", "semigroup_2_3", "semigroup_3_3"}
    many = SuperResolution(smoke(method="resshift", sigma_max=2.0), source)
    assert not many.contextual and len(many.times) == 4 and many.times[0] < 1
    assert 0 < jax.jit(many.loss, compiler_options=FAST)(key, params, batch) < 1
    picture = jax.jit(many.sample, compiler_options=FAST)(key, params, many.prompts(source, 1)[0])
    assert picture.shape == (32, 32, 3) and np.abs(picture).max() <= 1


def test_the_checkpoint_of_a_prior_is_no_upscaler():
    with pytest.raises(ValueError, match="names no scale; load it with load_prior"):
        weights.load_upscaler(weights.embedded("prior32"))


@pytest.mark.slow
def test_the_shipped_upscaler_beats_bicubic_on_a_photograph(shared):
    """Set5's butterfly, where bicubic has 22.1 dB."""
    path = weights.embedded("ctmsr_x4")
    assert os.path.getsize(f"{path}.safetensors") < 15e6
    file = str(shared / "data" / "sr" / "Set5" / "HR" / "butterfly.png")
    high = data.to_unit(jnp.asarray(data.decode(file)))
    low = degrade.matlab_bicubic(high, 4, rounded=True)
    upscaler = weights.load_upscaler(path)
    found = jax.jit(ctmsr.super_resolve)(jax.random.key(0), upscaler, low)
    score = lambda x: image.psnr_y(x, high, (-1, 1), 4)
    assert score(found) > score(upscaler.upsample(low)) + 1.5

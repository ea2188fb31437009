"""The tasks of an autoencoder and of a prior over its codes: losses by hand, statistics, cards, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

pytest.importorskip("ml_collections")

from configs import autoencoder as coder_config
from configs import latent_prior as latent_config
from configs import prior32 as prior_config
from diffinv import data, weights
from diffinv.data.builders import Resident
from diffinv.weights import cards
from experiments.tasks import fields, principal, run
from experiments.tasks.autoencoder import Autoencoder
from experiments.tasks.denoising import Denoising
from experiments.tasks.latent import Latent

GRID = np.linspace(0, 6, 8)
WAVES = np.sin(GRID[:, None] + GRID[None])[..., None] + np.arange(3) / 2
IMAGES = np.stack([np.uint8(100 + 60 * np.roll(WAVES, k, 0)) for k in range(8)])


@pytest.fixture(autouse=True)
def as_experiments_run():
    """Single precision and the usual promotion, which optax's Adam needs."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def source(labels=1):
    found = Resident(IMAGES, np.arange(8, dtype=np.int32) % labels)
    return data.Source(found, 8, 3, tuple(map(str, range(labels))), ())


def smoke(module, **changes):
    config = module.get_config("smoke")
    config.data = "gradients"
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    """A task of autoencoders with drawn weights as `finished` leaves them, and where they are saved."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = Autoencoder(smoke(coder_config), source())
        params = jax.jit(found.init, compiler_options=FAST)(jax.random.key(0))
        params = jax.jit(found.finished, compiler_options=FAST)(jax.random.key(1), params)
        path = str(tmp_path_factory.mktemp("coder") / "tiny")
        weights.save(path, params, {"name": "tiny", **found.card(), "shape": [8, 8, 3]})
        yield found, params, path


def test_finished_codes_have_mean_0_and_variance_1(coder):
    found, params, path = coder
    codec = weights.load_autoencoder(path)
    codes = np.asarray(jax.jit(jax.vmap(codec.encode))(data.to_unit(jnp.asarray(IMAGES))))
    np.testing.assert_allclose(codes.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(codes.std((0, 1, 2)), 1, rtol=1e-4)
    assert codec.shape == (4, 4, 4) and codec.net.plain_conv is False


def test_the_loss_is_a_distance_and_a_divergence(coder):
    """By hand, from the law of the codes and one draw of them."""
    found, params, path = coder
    key, x = jax.random.key(3), data.to_unit(jnp.asarray(IMAGES[0]))
    net, variables = found.net, {"params": params["params"]}
    mean, log_variance = net.apply(variables, x, method="encode")
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    gap = np.asarray(net.apply(variables, z, method="decode") - x, np.float64)
    m, v = np.asarray(mean, np.float64), np.exp(np.asarray(log_variance, np.float64))
    divergence = 0.5 * np.mean(m**2 + v - 1 - np.log(v))
    for distance, value in (("l2", np.mean(gap**2)), ("l1", np.mean(np.abs(gap)))):
        task = Autoencoder(smoke(coder_config, distance=distance, divergence_weight=0.3), source())
        np.testing.assert_allclose(task._loss(key, params, x), value + 0.3 * divergence, rtol=1e-5)


def test_it_begins_as_the_principal_components_of_squares():
    """Two of twelve, of pictures of noise: the error is that of NumPy's singular vectors; codes have variance 1."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    noise[..., 0, :] = noise[..., 1, :] // 2 + 60
    found = data.Source(Resident(noise, np.zeros(8, np.int32)), 8, 3, ("",), ())
    config = smoke(coder_config)
    config.net.update({"code_channels": 2, "channels": 13})
    task = Autoencoder(config, found)
    params = jax.jit(task.init, compiler_options=FAST)(jax.random.key(0))
    x = np.asarray(data.to_unit(jnp.asarray(noise)), np.float64)
    rows = x.reshape(8, 4, 2, 4, 2, 3).swapaxes(2, 3).reshape(-1, 12)
    centred = rows - rows.mean(0)
    basis = np.linalg.svd(centred, full_matrices=False)[2][:2]
    error = np.sqrt(np.mean((centred - centred @ basis.T @ basis) ** 2))
    batch = {"image": jnp.asarray(noise), "label": jnp.zeros(8, jnp.int32)}
    both = lambda p: (
        task.errors(jax.random.key(0), p, batch),
        jax.vmap(task._law, (None, 0))(p, jnp.asarray(x, jnp.float32)),
    )
    errors, (mean, log_variance) = jax.jit(both, compiler_options=FAST)(params)
    np.testing.assert_allclose(errors["root mean square"], error, rtol=0.02)
    np.testing.assert_allclose(np.std(mean, (0, 1, 2)), 1, rtol=0.05)
    np.testing.assert_allclose(log_variance, principal.LOG_VARIANCE, atol=1e-3)


def test_errors_and_samples_are_of_the_decoded_mean(coder):
    found, params, path = coder
    batch = {"image": jnp.asarray(IMAGES), "label": jnp.zeros(8, jnp.int32)}
    rows = found.prompts(source(), 4)
    np.testing.assert_array_equal(rows["image"][2:], IMAGES[[1, 1]])
    both = lambda p: (found.errors(jax.random.key(0), p, batch), jax.vmap(found.sample, (None, None, 0))(0, p, rows))
    errors, samples = jax.jit(both, compiler_options=FAST)(params)
    np.testing.assert_allclose(samples[0], data.to_unit(jnp.asarray(IMAGES[0])), atol=1e-6)
    gaps = jax.vmap(lambda x: found._picture(params, found._law(params, x)[0]) - x)(data.to_unit(batch["image"]))
    np.testing.assert_allclose(errors["root mean square"], np.sqrt(np.mean(np.asarray(gaps) ** 2)), rtol=1e-4)
    np.testing.assert_allclose(samples[1] - samples[0], gaps[0], atol=1e-4)


def latent(coder, labels=0, **changes):
    config = smoke(latent_config, autoencoder=coder[2], classes=labels, **changes)
    if labels:  # of which a network of local view knows nothing
        with config.unlocked():
            config.architecture, config.net = "unet", {**prior_config.get_config("smoke").net, "patch": 1}
    return config, Latent(config, source(max(labels, 1)))


def test_a_prior_over_codes_is_trained_on_codes(coder):
    """The loss is the denoising task's on the encoded pictures, with the labels beside them."""
    config, found = latent(coder, labels=2, flip=False, turn=False)
    assert found.shape == (4, 4, 4) and found.architecture["out_channels"] == 4
    batch = {"image": jnp.asarray(IMAGES), "label": jnp.arange(8, dtype=jnp.int32) % 2}
    examples = found.examples(jax.random.key(0), batch)
    codes = jax.vmap(weights.load_autoencoder(coder[2]).encode)(data.to_unit(batch["image"]))
    np.testing.assert_allclose(examples["image"], codes, atol=1e-4)
    assert set(examples) == {"image", "label"}
    params = jax.eval_shape(found.init, jax.random.key(0))
    prompt = {"label": jax.ShapeDtypeStruct((), jnp.int32)}
    assert jax.eval_shape(found.sample, jax.random.key(0), params, prompt).shape == (8, 8, 3)
    assert jax.eval_shape(found.loss, jax.random.key(0), params, batch).shape == ()


def test_its_card_rebuilds_both(coder, tmp_path):
    config, found = latent(coder)
    card = {"name": "codes", **found.card(), "shape": list(found.shape)}
    digest = weights.read_card(coder[2])["sha256"]
    assert card["latent"] == {"autoencoder": "tiny", "sha256": digest, "picture": [8, 8, 3]}
    assert run.pictured(card) == {"layout": "HWC"}
    assert run.pictured({"shape": [8, 8, 3]}) == {"layout": "HWC, RGB", "range": [-1, 1]}
    flat = {name: np.full(shape, 0.01, np.float32) for name, shape in cards.expected_shapes(card).items()}
    weights.save(str(tmp_path / "codes"), weights.unflatten(flat), card)
    pair = weights.load_latent(str(tmp_path / "codes"), autoencoder=coder[2])
    assert pair.shape == (8, 8, 3) and pair.prior.shape == (4, 4, 4)


def test_a_run_is_of_the_codes_and_not_of_a_path(coder, tmp_path):
    """The same autoencoder elsewhere is the same run."""
    config, found = latent(coder)
    told = run.identity(config, source())
    assert told["config.autoencoder"] == weights.read_card(coder[2])["sha256"][:16]
    json.dumps(told)


REFUSED = [
    (latent_config, {"autoencoder": ""}, "config.autoencoder is ''; name an autoencoder"),
    (latent_config, {"autoencoder": "prior32"}, "is of a prior, and autoencoder is wanted"),
    (latent_config, {"size": 9}, "config.size is 9 and config.channels 3"),
    (latent_config, {"channels": 1}, "config.size is 8 and config.channels 1"),
    (latent_config, {"coarse": 4}, "config.coarse is 4; a prior over codes is told of no coarse picture"),
    (coder_config, {"size": 9}, "config.size is 9; config.net wants a multiple of 2"),
    (coder_config, {"net": {"groups": 5}}, "config.net.channels make a norm of 12 channels"),
    (
        coder_config,
        {"net": {"groups": 2}},
        "config.principal is True, and config.net has 1 levels, 2 groups and 12 channels",
    ),
    (coder_config, {"net": {"channels": 8}}, "8 channels; give one level, one group and at least 10 channels"),
]


@pytest.mark.parametrize("module, changes, said", REFUSED, ids=[said[:40] for *_, said in REFUSED])
def test_what_does_not_fit_is_one_line_before_pictures_are_read(coder, module, changes, said):
    given = {"autoencoder": coder[2]} if module is latent_config else {}
    config = smoke(module, **{**given, **changes})
    with pytest.raises(ValueError, match=said) as error:
        fields.check(config)
    assert "\n" not in str(error.value)


NET = {"channels": 16, "blocks": 1, "heads": 2, "patch": 2, "ratio": 2.0, "time_scale": 40.0, "frequency_shift": 0,
       "eps": 1e-6, "eps_mlp": 1e-6, "remat": True, "dtype": "float32"}  # fmt: skip


def transformer(module, **more):
    config = smoke(module, architecture="dit", classes=2, size=8)
    with config.unlocked():
        config.net = NET
        config.update(more)
    fields.check(config)
    return config


def test_a_transformer_is_trained_on_pixels_by_the_one_trainer():
    """With labels: a few steps on one batch lessen the loss."""
    task = Denoising(transformer(prior_config), source(2))
    assert weights.cards.build_network(task.architecture).classes == 3
    params = jax.jit(task.init, compiler_options=FAST)(jax.random.key(0))
    batch = {"image": jnp.asarray(IMAGES), "label": jnp.arange(8, dtype=jnp.int32) % 2}

    def step(params):
        loss, slope = jax.value_and_grad(lambda p: task.loss(jax.random.key(1), p, batch))(params)
        return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)

    losses, fast = [], jax.jit(step, compiler_options=FAST)
    for _ in range(4):
        loss, params = fast(params)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[3] < losses[0]


def test_a_transformer_is_trained_on_codes(coder):
    task = Latent(transformer(latent_config, autoencoder=coder[2]), source(2))
    params = jax.eval_shape(task.init, jax.random.key(0))
    assert params["params"]["x_embedder_proj"]["kernel"].shape == (2 * 2 * 4, 16)
    batch = {"image": jnp.asarray(IMAGES), "label": jnp.zeros(8, jnp.int32)}
    assert jax.eval_shape(jax.grad(task.loss, 1), jax.random.key(1), params, batch) == params

"""Restoring under a prior over codes: which methods may, what each is given, and what is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from cells import WITHOUT
from flax import linen as nn

import diffinv as di
from configs import latent as configuration
from diffinv import charts, codec, operators, posterior, process, times, weights
from diffinv.weights import cards
from experiments import judge
from experiments.common import priors
from experiments.methods import solvers
from experiments.methods.derivative_free import DERIVATIVE_FREE
from experiments.methods.table import METHODS
from experiments.restore import part
from experiments.tables import denoising

flags.FLAGS.mark_as_parsed()

SHAPE = (4, 4, 3)


class Halves(nn.Module):
    """Codes are means of 2 x 2 pixels, bent."""

    factor, code_channels = 2, 3

    @nn.compact
    def encode(self, x):
        return jnp.arcsinh(x.reshape(2, 2, 2, 2, 3).mean((1, 3))), None

    def decode(self, z):
        return jnp.sinh(jnp.repeat(jnp.repeat(z, 2, 0), 2, 1))


def latent():
    found = codec.Codec(
        {"params": {}, "codes": {"shift": jnp.full(3, 0.1), "scale": jnp.full(3, 2.0)}}, Halves(), SHAPE
    )
    return di.LatentPrior(di.gaussian(process.VP(), jnp.zeros((2, 2, 3)), 0.5 * jnp.eye(12)), found)


def smoke(**changes):
    config = configuration.get_config("smoke")
    config.update(dps={"steps": 3}, reguidance={"steps": 2}, psld={"steps": 3}, **changes)
    config.resample.update({"steps": 3, "every": 2, "iterations": 2, "pixel_iterations": 2})
    return config


def measurement(key):
    return di.measure(key, operators.average_pool(SHAPE, 2), 0.3 * jnp.ones(SHAPE), 0.05)


@pytest.mark.parametrize("name", METHODS)
def test_who_can_restore_through_a_decoder(name):
    """Those that take any differentiable operator, those that ask for values alone, and those made for codes."""
    A, config, prior = operators.average_pool(SHAPE, 2), smoke(), latent()
    if name in WITHOUT or name in DERIVATIVE_FREE or METHODS[name].codes:
        assert solvers.require_able([name], config, "super_resolution", prior, A) is None
        return
    with pytest.raises(ValueError, match="config.prior is over codes, whose decoder is not linear: operator Decoded"):
        solvers.require_able([name], config, "super_resolution", prior, A)


def test_methods_of_codes_are_given_the_chart(key):
    config, prior, m = smoke(), latent(), measurement(key)
    found = jax.jit(lambda k, prior: solvers.solver("psld", config, prior)(k, m).x)(key, prior)
    method = lambda m: posterior.psld(prior.prior, m, prior.codec.chart(), config.psld.gamma, config.psld.omega)
    np.testing.assert_allclose(found, di.as_solver(method, times.grid(3))(key, m).x, rtol=1e-9)
    assert found.shape == SHAPE


def test_others_run_within_the_chart(key):
    config, prior, m = smoke(), latent(), measurement(key)
    found = jax.jit(lambda k, prior: solvers.solver("dps", config, prior)(k, m).x)(key, prior)
    dps = charts.within(prior.codec.chart(), lambda m: posterior.dps(prior.prior, m, config.dps.zeta))
    np.testing.assert_allclose(found, di.as_solver(dps, times.grid(3))(key, m).x, rtol=1e-9)


def test_a_wrapper_starts_from_the_code_of_its_candidate(key):
    config, prior, m = smoke(), latent(), measurement(key)
    solver = solvers.solver("reguidance", config, prior)
    candidate = prior.codec.decode(0.2 * jnp.ones((2, 2, 3)))
    x, other = (solver(key, m, each).x for each in (candidate, -candidate))
    assert x.shape == SHAPE and jnp.isfinite(x).all() and jnp.abs(x - other).max() > 1e-3


def test_what_is_of_pictures_is_refused_under_codes_and_the_other_way():
    config, prior = smoke(), latent()
    solvers.require_codes(["psld", "resample", "dps"], config, prior)
    with pytest.raises(ValueError, match="of pictures, and psld, resample restore through an autoencoder"):
        solvers.require_codes(["resample", "dps", "psld"], config, prior.prior)
    config.dps.clip = True
    with pytest.raises(ValueError, match="config.dps.clip is True, and the codes of config.prior"):
        solvers.require_codes(["dps"], config, prior)
    solvers.require_codes(["psld"], config, prior)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The path of a latent prior of 64 x 64 pictures with drawn weights, its autoencoder beside it."""
    folder, generator = tmp_path_factory.mktemp("latent"), np.random.default_rng(0)
    fields = {"channels": 4, "multipliers": [1], "patch": 8, "attention": False, "groups": 1, "blocks": 1}
    coder = {"name": "coder", "shape": [64, 64, 3], "autoencoder": fields}
    net = {"name": "conv", "channels": 4, "multipliers": [1], "blocks": 1, "patch": 1, "out_channels": 4}
    told = {"architecture": net, "parametrisation": {"parametrisation": "edm", "sigma_data": 1.0}, "shape": [8, 8, 4]}
    draw = lambda shape: 0.1 * generator.standard_normal(shape).astype(np.float32) + (len(shape) == 1)
    flat = lambda card: {name: draw(shape) for name, shape in cards.expected_shapes(card).items()}
    digest = weights.save(str(folder / "coder"), weights.unflatten(flat(coder)), coder)["sha256"]
    section = {"autoencoder": "coder", "sha256": digest, "picture": [64, 64, 3]}
    card = {"name": "codes", **told, "process": {"name": "EDM"}, "latent": section}
    weights.save(str(folder / "codes"), weights.unflatten(flat(card)), card)
    return str(folder / "codes")


def test_a_prior_over_codes_is_loaded_where_it_may_be(saved):
    found, card = priors.load(saved, latent=True)
    assert isinstance(found, di.LatentPrior) and found.shape == (64, 64, 3) and found.process == process.VP()
    assert not weights.any_size(card)  # the network takes any code, and the picture is of one size
    with pytest.raises(ValueError, match="--prior is .*, over codes, which experiments.reconstruct takes"):
        priors.load(saved)


def test_a_part_of_the_command_fits_its_solvers_to_the_prior(saved):
    config = smoke(prior=saved, pictures=1)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        made = part.part(config)
        assert made.shots.pixels[0].shape == (64, 64, 3) and made.methods == ["psld", "resample"]
        config.solver = "dps,psld"
        assert part.part(config).methods == ["dps", "psld"]
        for solver, said in {"ddrm": "ddrm needs adjoint and solve", "tikhonov": "tikhonov needs"}.items():
            config.solver = solver
            with pytest.raises(ValueError, match=said) as error:
                part.part(config)
            assert "\n" not in str(error.value)


def test_a_prior_over_codes_is_judged_by_its_pictures(saved):
    card = weights.read_card(saved)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert judge.of_prior(saved, card).shape == (64, 64, 3)
        pair = weights.load_latent(saved)
        codes = np.random.default_rng(0).standard_normal((3, 8, 8, 4)).astype(np.float32)
        found = judge.decoded(pair)(codes)
        np.testing.assert_allclose(found[1], pair.codec.decode(jnp.asarray(codes[1])), atol=1e-4)
    with pytest.raises(ValueError, match="over codes, which experiments.reconstruct takes; give one of pictures"):
        denoising.loaded(saved)

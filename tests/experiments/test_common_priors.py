"""The prior of a command: under the process that solvers expect, and of pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import process, weights
from diffinv.nn import unet
from experiments.common import priors
from experiments.upscale import upscaling

FIELDS = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 8, "patch": 4}


def saved(folder, shape, kind=None):
    """A prior with drawn weights; trained under EDM, or under the process of a card."""
    net = unet.UNet(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in FIELDS.items()}, out_channels=shape[2]
    )
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros(shape), jnp.zeros(()))
    card = {
        "name": "made",
        "architecture": {"name": "unet", **FIELDS, "out_channels": shape[2]},
        "parametrisation": {"parametrisation": "eps"} if kind else {"parametrisation": "edm", "sigma_data": 0.5},
        "process": kind or {"name": "EDM", "sigma_max": 80.0},
        "shape": list(shape),
    }
    weights.save(str(folder / "made"), jax.tree.map(np.asarray, params), card)
    return str(folder / "made")


@pytest.mark.parametrize("shape", [(8, 16, 1), (8, 8, 3)])
def test_a_prior_of_pictures_is_under_the_variance_preserving_process(tmp_path, shape):
    prior, card = priors.load(saved(tmp_path, shape))
    assert prior.process == process.VP() and prior.shape == shape and card["name"] == "made"


def test_one_of_a_thousand_steps_keeps_its_own_table(tmp_path):
    kind = {"name": "discrete", "kind": "cosine", "steps": 1000}
    prior, _ = priors.load(saved(tmp_path, (8, 8, 3), kind))
    own = weights.cards.build_process(kind)
    for t in (0.1, 0.5, 1.0):
        assert float(prior.process.alpha(t)) == float(own.alpha(t)) != float(process.VP().alpha(t))


def test_nothing_named_is_the_embedded_one_and_other_shapes_are_refused(tmp_path):
    assert priors.load("")[1]["name"] == "prior32"
    path = saved(tmp_path, (8, 8, 2))
    with pytest.raises(
        ValueError, match=r"config.prior is '.*made' of shape \(8, 8, 2\); give one of grey or RGB pictures"
    ):
        priors.load(path, "config.prior")


def test_tiles_are_square_and_coloured(tmp_path):
    for shape in ((8, 16, 3), (8, 8, 1)):
        with pytest.raises(ValueError, match="--prior has shape .* give one of square RGB pictures"):
            upscaling.Solver("dps", saved(tmp_path, shape), 2, 4)

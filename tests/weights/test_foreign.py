"""An ONNX file and its card as a prior: the law that the file holds, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import diffinv as di
from diffinv import weights
from diffinv.weights.convert import onnx
from experiments.common import keeping, priors

SOURCE = Path(__file__).parents[2] / "examples" / "denoiser.onnx"
CARD = json.loads(SOURCE.with_suffix(".json").read_text())


@pytest.fixture
def placed(tmp_path):
    """The example's file with another card."""

    def placed(**changes):
        shutil.copy(SOURCE, tmp_path / "net.onnx")
        card = {name: value for name, value in {**CARD, **changes}.items() if value is not None}
        (tmp_path / "net.json").write_text(json.dumps(card))
        return str(tmp_path / "net.onnx")

    return placed


def field(process):
    """Its law: variances 1 / (1 + k^2 + l^2) over the DCT, 0.25 on average."""
    k = np.arange(8.0)
    variance = 1 / (1 + k[:, None] ** 2 + k**2)
    spectrum = jnp.asarray(0.25 * variance / variance.mean())[..., None]
    return di.gaussian_field(process, jnp.zeros((8, 8, 1)), spectrum)


@pytest.mark.parametrize("process", [di.process.EDM(), di.process.VP()], ids=["own", "another"])
def test_the_prior_of_a_file_is_the_law_it_holds(process, key):
    prior, card = weights.load_onnx(SOURCE, None if isinstance(process, di.process.EDM) else process)
    assert prior.process == process and prior.shape == (8, 8, 1)
    for t in (0.1, 0.5, 0.9):  # the file's weights are in float32
        noisy = process.sigma(t) * jax.random.normal(key, prior.shape)
        assert_allclose(prior.denoise(noisy, t), field(process).denoise(noisy, t), atol=5e-6)
    assert len(card["sha256"]) == 64 and card["onnx"]["digest"] == onnx.network(SOURCE)[0].digest


def test_commands_take_it_and_stamp_their_records_with_it(placed):
    prior, card = priors.load(placed())
    assert prior.process == di.process.VP() and not weights.any_size(card)
    table, own = priors.load(placed(process={"name": "discrete", "kind": "linear", "steps": 1000}))
    assert table.process != di.process.VP() and own["name"] == "denoiser"
    other = priors.load(placed(parametrisation={"parametrisation": "x0", "condition": "log_sigma"}))[1]
    assert len({keeping.weights(each) for each in (card, own, other)}) == 3


def refusal(path, kind=ValueError):
    with pytest.raises(kind) as error:
        weights.load_onnx(path)
    assert "\n" not in str(error.value) and "net." in str(error.value)
    return str(error.value)


def test_a_card_that_is_missing_or_wrong_is_refused_in_one_line(placed, tmp_path):
    assert "card.onnx is missing; give an object with channels_first" in refusal(placed(onnx=None))
    wild = {"parametrisation": "x0", "condition": "noise"}
    assert "card.parametrisation.condition is 'noise'" in refusal(placed(parametrisation=wild))
    assert "condition is missing; give what the time is: index" in refusal(
        placed(parametrisation={"parametrisation": "x0"})
    )
    assert "card.onnx" in refusal(placed(onnx={}))
    assert "card.process is missing" in refusal(placed(process=None))
    assert "'spectral', of our own networks alone" in refusal(
        placed(parametrisation={"parametrisation": "spectral"}, process={"name": "HeatDissipation", "shape": [8, 8]})
    )
    assert "its card says 000000000000" in refusal(placed(sha256="0" * 64))
    assert "does not fit its card's shape" in refusal(placed(shape=[9, 8, 1]))
    assert "does not fit its card's shape" in refusal(placed(onnx={"channels_first": False}))
    (tmp_path / "net.json").unlink()
    said = refusal(str(tmp_path / "net.onnx"), FileNotFoundError)
    assert "has no card; write" in said and "docs/networks.md" in said

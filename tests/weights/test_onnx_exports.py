"""Real exports as functions of JAX, against onnxruntime: of PyTorch's exporters, and the published terrain model."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import diffinv as di
from diffinv import weights
from diffinv.weights.convert import onnx, public

needs = pytest.mark.torch


def computed(path, inputs):
    """What onnxruntime makes of the same numbers."""
    runtime = pytest.importorskip("onnxruntime", reason="the comparison needs onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([each.name for each in session.get_inputs()], inputs)))[0]


OLDER = {"dynamo": False, "opset_version": 17}
EXPORTERS = {
    "dynamo": {"dynamo": True},
    "dynamo 23": {"dynamo": True, "opset_version": 23, "external_data": False},  # with operations of attention
    "torchscript": OLDER,
    "torchscript free": {**OLDER, "dynamic_axes": {"x": {0: "n"}, "t": {0: "n"}}},
}


@needs
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kind", ["diffusers", "own"])
@pytest.mark.filterwarnings("ignore")
def test_exports_of_pytorch_agree_with_onnxruntime(kind, exporter, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    torch.manual_seed(0)
    import torchnets

    net = torchnets.diffusers_unet() if kind == "diffusers" else torchnets.Mixed()
    place, example = str(tmp_path / "net.onnx"), (torch.zeros(1, 3, 16, 16), torch.zeros(1))
    torch.onnx.export(net.eval(), example, place, input_names=["x", "t"], output_names=["out"], **EXPORTERS[exporter])
    apply, params = onnx.network(place)
    draw, count = np.random.default_rng(0), 2 if "free" in exporter else 1
    inputs = draw.standard_normal((count, 3, 16, 16), np.float32), draw.uniform(1, 9, count).astype(np.float32)
    assert_allclose(jax.jit(apply)(params, *inputs), computed(place, inputs), atol=5e-6)


@needs
def test_the_file_of_the_example_is_what_its_module_computes():
    torch = pytest.importorskip("torch")
    import torchnets

    apply, params = onnx.network(Path(__file__).parents[2] / "examples" / "denoiser.onnx")
    draw = np.random.default_rng(0)
    x, sigma = draw.standard_normal((3, 1, 8, 8), np.float32), np.float32([0.1, 1.0, 9.0])
    with torch.no_grad():
        theirs = torchnets.Field()(torch.from_numpy(x), torch.from_numpy(sigma)).numpy()
    assert_allclose(apply(params, x, sigma), theirs, atol=2e-6)


@needs
def test_the_published_terrain_model_agrees_with_onnxruntime_and_with_our_network():
    path = os.environ.get("DIFFINV_TERRAIN_ONNX", "")
    if not os.path.exists(path):
        pytest.skip("set DIFFINV_TERRAIN_ONNX to the published file, whose place in its wheel docs/terrain.md tells")
    apply, params = onnx.network(path)
    draw = np.random.default_rng(0)
    single = lambda value: np.asarray([value], np.float32)
    x = 3 * draw.standard_normal((1, 1, 128, 128), np.float32)
    inputs = x, single(3.0), single(0.4)
    assert_allclose(jax.jit(apply)(params, *inputs), computed(path, inputs), atol=3e-5)  # 250 ln sigma in float32
    prior = weights.build(*public.load_public(path)).given(label=jnp.float32(0.4))
    t = di.times.from_sigma(prior.process, jnp.float32(3.0)).astype(jnp.float32)
    found = prior.denoise(jnp.asarray(x[0].transpose(1, 2, 0)), t)
    assert_allclose(found[..., 0], apply(params, x, single(3.0), single(0.4))[0, 0], atol=3e-5)

"""The U-Net against its PyTorch re-implementation (`benchmarks.torch_unet`), weights copied: values and gradients."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from compiling import FAST

from diffinv.nn import convnet, unet

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

CONFIGS = {
    "adm": {},
    "attention_in_plain_order": {"legacy_attention": False, "channels": 16},
    "plain_resampling": {"resample_blocks": False},
    "two_blocks_and_wide_scale": {"blocks": 2, "time_scale": 40.0, "out_channels": 6},
    "embedded": {"patch": 2, "resample_blocks": False, "multipliers": (1, 1.5, 2), "attention": (2, 4), "channels": 16},
}


def assert_close(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CONFIGS)
def test_values_and_gradients_are_those_of_pytorch(name):
    from benchmarks import torch_unet

    net = unet.UNet(**{**nets.TINY, **CONFIGS[name]})
    size = 16 if net.patch > 1 else 8
    params = nets.drawn(net, size)
    generator = np.random.default_rng(1)
    x = generator.standard_normal((3, size, size, 3)).astype(np.float32)
    target = generator.standard_normal((3, size, size, net.out_channels)).astype(np.float32)
    conditions = np.array([0.3, -0.7, 1.1], np.float32)

    def loss(x):
        out = jax.vmap(net.apply, (None, 0, 0))(params, x, jnp.asarray(conditions))
        return jnp.sum((out - target) ** 2), out

    differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=FAST)
    (value, out), gradient = differentiate(jnp.asarray(x))

    model = torch_unet.load(params, net)
    picture = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    theirs = model(picture, torch.from_numpy(conditions))
    distance = torch.sum((theirs - torch.from_numpy(target).permute(0, 3, 1, 2)) ** 2)
    distance.backward()

    assert_close(theirs.detach().permute(0, 2, 3, 1).numpy(), np.asarray(out))
    assert_close(picture.grad.permute(0, 2, 3, 1).numpy(), np.asarray(gradient))
    np.testing.assert_allclose(distance.item(), value, rtol=1e-5)


def test_every_parameter_has_its_place():
    from benchmarks import torch_unet

    net, params = nets.tiny()
    model = torch_unet.load(params, net)
    assert sum(p.numel() for p in model.parameters()) == unet.parameter_count(params)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("changes", [{}, {"blocks": 2, "multipliers": (1, 1, 2), "patch": 1, "out_channels": 6}])
def test_the_network_for_any_size_is_that_of_pytorch(changes):
    from benchmarks import torch_convnet

    net = convnet.ConvUNet(**{"channels": 8, "multipliers": (1, 1.5), "blocks": 1, **changes})
    params = nets.drawn(net, 16)
    x = np.random.default_rng(1).standard_normal((2, 16, 24, 3)).astype(np.float32)
    conditions = np.array([0.3, -0.7], np.float32)
    out = jax.vmap(net.apply, (None, 0, 0))(params, jnp.asarray(x), jnp.asarray(conditions))
    model = torch_convnet.load(params, net)
    theirs = model(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(conditions))
    assert_close(theirs.permute(0, 2, 3, 1).numpy(), np.asarray(out))
    assert sum(p.numel() for p in model.parameters()) == unet.parameter_count(params)


def test_labels_are_refused():
    from benchmarks import torch_unet

    with pytest.raises(ValueError, match="no labels"):
        torch_unet.UNet(unet.UNet(**nets.TINY, classes=3))

"""The classifier against a reference written without convolutions, and its loader."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffinv.nn import classifier


def _random_state(rng):
    """A state dict of EfficientNet-Lite0's names and shapes, with gains that keep activations moderate."""
    state = {}

    def conv(name, norm, out, inner, size):
        state[f"{name}.weight"] = rng.normal(size=(out, inner, size, size)) / np.sqrt(inner * size**2)
        state[f"{norm}.weight"], state[f"{norm}.bias"] = rng.uniform(0.8, 2, out), rng.normal(size=out)
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = rng.normal(size=out) / 3, rng.uniform(0.3, 1, out)

    conv("_conv_stem", "_bn0", 32, 3, 3)
    channels, index = 32, 0
    for repeats, size, _, expansion, features in classifier.LITE0:
        for _ in range(repeats):
            name, wide = f"_blocks.{index}", channels * expansion
            if expansion > 1:
                conv(f"{name}._expand_conv", f"{name}._bn0", wide, channels, 1)
            conv(f"{name}._depthwise_conv", f"{name}._bn1", wide, 1, size)
            conv(f"{name}._project_conv", f"{name}._bn2", features, wide, 1)
            channels, index = features, index + 1
    conv("_conv_head", "_bn1", 1280, 320, 1)
    state["_fc.weight"], state["_fc.bias"] = rng.normal(size=(1000, 1280)) / 36, rng.normal(size=1000)
    return state


@pytest.fixture(scope="module")
def state():
    return _random_state(np.random.default_rng(0))


def _correlate(x, kernel, stride):
    """TensorFlow's SAME, from its definition: pads max((ceil(n / s) - 1) s + k - n, 0), the larger half behind."""
    size = kernel.shape[-1]
    out = [-(-n // stride) for n in x.shape[1:]]
    pads = [max((m - 1) * stride + size - n, 0) for m, n in zip(out, x.shape[1:])]
    x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads)])
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    if kernel.shape[1] == 1:
        return np.einsum("chwpq,cpq->chw", views, kernel[:, 0])
    return np.einsum("chwpq,ocpq->ohw", views, kernel)


def _reference(state, image):
    """Channels first, float64, batch-norm not folded; taps, pooled and logits."""

    def layer(x, conv, norm, stride=1, act=True):
        x = _correlate(x, state[f"{conv}.weight"], stride)
        get = lambda n: state[f"{norm}.{n}"][:, None, None]
        x = (x - get("running_mean")) / np.sqrt(get("running_var") + 1e-3) * get("weight") + get("bias")
        return np.clip(x, 0, 6) if act else x

    x = layer((np.moveaxis(image, -1, 0) * 127.5 + 127.5 - 127) / 128, "_conv_stem", "_bn0", 2)
    taps, index = [], 0
    for repeats, _, first, expansion, _ in classifier.LITE0:
        for repeat in range(repeats):
            name, stride = f"_blocks.{index}", first if repeat == 0 else 1
            if stride == 2:
                taps.append(x)
            h = layer(x, f"{name}._expand_conv", f"{name}._bn0") if expansion > 1 else x
            h = layer(h, f"{name}._depthwise_conv", f"{name}._bn1", stride)
            h = layer(h, f"{name}._project_conv", f"{name}._bn2", act=False)
            x, index = (x + h if repeat else h), index + 1
    pooled = layer(x, "_conv_head", "_bn1").mean((1, 2))
    return [*taps, x], pooled, state["_fc.weight"] @ pooled + state["_fc.bias"]


def test_imported_weights_give_the_reference_outputs(state):
    image = np.random.default_rng(1).uniform(-1, 1, (38, 32, 3))
    out = jax.jit(classifier.efficientnet_lite0().apply)(classifier.from_torch(state), jnp.asarray(image))
    taps, pooled, logits = _reference(state, image)
    assert [tap.shape for tap in out.taps] == [(19, 16, 16), (10, 8, 24), (5, 4, 40), (3, 2, 112), (2, 1, 320)]
    for ours, expected in zip(out.taps, taps, strict=True):
        np.testing.assert_allclose(ours, np.moveaxis(expected, 0, -1), atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(out.pooled, pooled, atol=1e-4 * pooled.max())
    np.testing.assert_allclose(out.logits, logits, atol=1e-4 * np.abs(logits).max())


def test_the_loaded_tree_is_the_networks(state):
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    net = classifier.efficientnet_lite0()
    made = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((32, 32, 3), jnp.float32))
    assert shapes(made) == shapes(classifier.from_torch(state))


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("shape", [(8, 6, 4), (7, 5, 4), (1, 2, 4)])
def test_depthwise_equals_the_grouped_convolution(kernel, stride, shape):
    layer, rng = classifier.Depthwise(kernel, stride), np.random.default_rng(0)
    x, weights = (rng.standard_normal(s).astype(np.float32) for s in (shape, (kernel, kernel, 4)))
    params = {"kernel": weights / kernel, "bias": np.arange(4, dtype=np.float32)}
    made = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, made)
    numbers, groups = ("NHWC", "HWIO", "NHWC"), dict(feature_group_count=4)

    @jax.jit
    def both(params, x):
        weights, strides = params["kernel"][:, :, None], (stride, stride)
        grouped = lax.conv_general_dilated(x[None], weights, strides, "SAME", dimension_numbers=numbers, **groups)
        return layer.apply({"params": params}, x), grouped[0] + params["bias"][None, None]

    found, expected = both(params, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_vmapped_equals_each_alone():
    net = classifier.EfficientNetLite(classifier.LITE0[:3])
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((32, 32, 3), jnp.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32) / 4, shapes)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3), jnp.float32, -1, 1)
    apply = jax.jit(net.apply)
    together = jax.jit(jax.vmap(net.apply, (None, 0)))(variables, x).logits
    alone = jnp.stack([apply(variables, image).logits for image in x])
    np.testing.assert_allclose(together, alone, atol=1e-4 * float(jnp.abs(alone).max()))


def test_another_state_dict_is_refused(state):
    lacking = {k: v for k, v in state.items() if k != "_blocks.3._bn1.bias"}
    with pytest.raises(ValueError, match=r"no '_blocks\.3\._bn1\.bias'"):
        classifier.from_torch(lacking)
    with pytest.raises(ValueError, match=r"also has \['_blocks\.16"):
        classifier.from_torch({**state, "_blocks.16._bn1.bias": np.zeros(3)})
    classifier.from_torch({**state, "_bn0.num_batches_tracked": np.array(3)})


def test_a_batch_is_refused(state):
    with pytest.raises(ValueError, match="vmap"):
        classifier.efficientnet_lite0().apply(classifier.from_torch(state), jnp.zeros((1, 32, 32, 3)))

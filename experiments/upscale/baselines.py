"""Published networks from their own weights, as functions of one picture: VDSR, ESRGAN-slim and DnCNN."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, jax.Array]
LAYERS = 18  # of VDSR, between its first and its last
DNCNN = 17  # layers of DnCNN for one noise level


def convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """(h, w, c) by (k, k, c, d), zeros outside."""
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=numbers)[0]
    return y if bias is None else y + bias[None, None]


def vdsr(params: Params, y: jax.Array) -> jax.Array:
    """Luma (h, w, 1) in [0, 1], interpolated to its final size, to the sharp one.

    Source: Kim et al. 2016, arXiv:1511.04587, section 3.1: 20 layers of 3 x 3, a residual.
    """
    h = jax.nn.relu(convolve(y, params["input"]))
    for i in range(LAYERS):
        h = jax.nn.relu(convolve(h, params[f"layer{i}"]))
    return y + convolve(h, params["output"])


def load_vdsr(path: str) -> Params:
    """From the torch names (OIHW) of twtygqyy/pytorch-vdsr in an .npz. Raises ValueError for another network."""
    names = {"input": "input.weight", "output": "output.weight"}
    names |= {f"layer{i}": f"residual_layer.{i}.conv.weight" for i in range(LAYERS)}
    stored = _stored(path, list(names.values()), "VDSR")
    return {ours: stored[theirs].transpose(2, 3, 1, 0) for ours, theirs in names.items()}


ESRGAN_SLIM = ("F_m1", "F_0", "F_1_1", "LFF_1", "F_2_1", "LFF_2", "GFF_1", "GFF_2", "UPN1", "UPN2", "UPN3", "SR")


def esrgan_slim(params: Params, low: jax.Array) -> jax.Array:
    """(h, w, 3) to (4h, 4w, 3), both in [0, 1].

    Source: the layer graph of @upscalerjs/esrgan-slim 1.0.0: a residual dense network with two blocks, nearest pixels.
    """
    layer = lambda name, x: convolve(x, params[f"{name}/kernel"], params[f"{name}/bias"])
    shallow = layer("F_m1", low)
    x, blocks = layer("F_0", shallow), []
    for i in (1, 2):
        dense = jnp.concatenate([x, jax.nn.relu(layer(f"F_{i}_1", x))], -1)
        x = x + layer(f"LFF_{i}", dense)
        blocks.append(x)
    x = shallow + layer("GFF_2", layer("GFF_1", jnp.concatenate(blocks, -1)))
    x = layer("UPN3", jax.nn.relu(layer("UPN2", jax.nn.relu(layer("UPN1", x)))))
    return layer("SR", jnp.repeat(jnp.repeat(x, 4, 0), 4, 1))


def load_esrgan_slim(path: str) -> Params:
    """From the layers' names (HWIO) in an .npz. Raises ValueError for another network."""
    return _stored(path, [f"{name}/{part}" for name in ESRGAN_SLIM for part in ("kernel", "bias")], "ESRGAN-slim")


def dncnn(params: Params, y: jax.Array) -> jax.Array:
    """Grey values with noise (h, w, 1), black 0 and white 1, to those without, for the noise that it was trained on.

    Source: Zhang et al. 2017, arXiv:1608.03981, section III: it predicts the noise; the convolutions hold the norms.
    """
    h = y
    for i in range(DNCNN):
        h = convolve(h, params[f"kernel{i}"], params[f"bias{i}"])
        h = jax.nn.relu(h) if i < DNCNN - 1 else h
    return y - h


def load_dncnn(path: str) -> Params:
    """From the torch names (OIHW) of cszn/KAIR's `dncnn_25` in an .npz. Raises ValueError for another network."""
    names = {f"kernel{i}": f"model.{2 * i}.weight" for i in range(DNCNN)}
    names |= {f"bias{i}": f"model.{2 * i}.bias" for i in range(DNCNN)}
    stored = _stored(path, list(names.values()), "DnCNN")
    turned = lambda a: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a
    return {ours: turned(stored[theirs]) for ours, theirs in names.items()}


def _stored(path: str, names: list[str], network: str) -> dict[str, Any]:
    """The arrays of an .npz under `names`."""
    with np.load(path, allow_pickle=False) as arrays:
        missing = sorted(set(names) - set(arrays.files))
        if missing:
            raise ValueError(f"{path} lacks {missing[0]} and {len(missing) - 1} more; it holds no {network}")
        return {name: arrays[name] for name in names}

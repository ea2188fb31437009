r"""The terrain consistency model of adaptive-terrain-diffusion: height maps of 128 x 128 in one step.

The network is ADM's, with a number for a label, under a consistency model's boundary; its file is ONNX. It was
distilled from the ends of a teacher's trajectories, so it is an endpoint map: near the largest noise its answer is a
terrain. At lower noise it is neither that nor a posterior mean; see `metrics.denoising` and docs/terrain.md.

Source: adaptive-terrain-diffusion 0.4.2 (MIT, Youwei Yu); the conversion is original.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from diffinv import schema
from diffinv.typing import Array
from diffinv.weights import cards
from diffinv.weights.convert import adm, onnx, placing
from diffinv.weights.convert.placing import Imported, State

ARCHITECTURE, PREFIX = "consistency-unet-32", "network."
NORMS = {"in_layers.2": "in_layers.0", "out_layers.3": "out_layers.0", "qkv": "norm", "out.2": "out.0"}
HEIGHT, SOFT = 22.16864013671875, 0.1
HIDDEN = {"head_channels": 32, "legacy_attention": False, "smallest_group": 1, "time_scale": 1000.0}


def _norm(layer: str) -> str:
    """The norm before an ADM layer."""
    for after, before in NORMS.items():
        if layer.endswith(after):
            return layer.removesuffix(after) + before
    raise ValueError(f"a norm comes before {schema.shown(layer)}, and before no such layer of ADM; check the file")


def named(graph: onnx.Graph) -> State:
    """The network's tensors under ADM's names; a norm's are named by the layer after it.

    Raises ValueError as `onnx.norms` does.
    """
    state = {name: value for name, value in graph.arrays.items() if name.startswith(PREFIX)}
    for layer, (scale, shift) in onnx.norms(graph).items():
        state |= {f"{_norm(layer)}.weight": scale, f"{_norm(layer)}.bias": shift}
    return placing.without(state, PREFIX)


def imported(graph: onnx.Graph) -> Imported:
    """The file as parameters of `nn.unet.UNet` and a card; the label, 0.5, may be given anew.

    Raises ValueError for an ONNX file of another model, with its architecture.
    """
    told, side = graph.notes.get("architecture"), graph.notes.get("native_size", "")
    if told != ARCHITECTURE or not (side.isdecimal() and len(side) < 5):
        raise ValueError(
            f"the ONNX file says architecture = {schema.shown(told)}, native_size = {schema.shown(side)}; of such "
            f"files the terrain consistency model, {ARCHITECTURE}, is known: export others as a state dict"
        )
    state = named(graph)
    found = adm.detect(state)
    channels = found.pop("in_channels")
    architecture = {"name": "unet", **found, **HIDDEN}
    params = placing.fill(cards.build_network(architecture, "the file's network"), state, adm.torch_name, channels)
    return Imported(
        params, {**_card(int(side)), "architecture": architecture, "shape": [int(side), int(side), channels]}
    )


def _card(side: int) -> dict[str, Any]:
    return {
        "name": "terrain",
        "family": "consistency U-Net (adaptive-terrain-diffusion)",
        "parametrisation": {"parametrisation": "boundary", "sigma_data": 0.5, "bounds": [0.002, 80.0], "clip": True},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "schedule": "EDM noise levels, 0.002 to 80",
        "method": "endpoint map, valid near sigma 80; no posterior mean",
        "data": f"height maps of {side} x {side} on an asinh scale; the label is (difficulty - 1) / 99",
        "licence": "MIT, Youwei Yu; parts MIT, OpenAI (consistency_models)",
        "given": {"label": 0.5},
    }


def from_heights(heights: Array) -> Array:
    r"""Heights to the model's picture: `2 asinh(h / 0.1) / asinh(221.7) - 1`, of `h` above its minimum, up to 22.17.

    The unit of `heights` is the data's own. Source: adaptive-terrain-diffusion 0.4.2, `TerrainGenerator`.
    """
    above = jnp.clip(heights - jnp.min(heights), 0, HEIGHT)
    return 2 * jnp.arcsinh(above / SOFT) / np.arcsinh(HEIGHT / SOFT) - 1


def to_heights(x: Array) -> Array:
    r"""The model's picture to heights: `0.1 sinh(asinh(221.7) (x + 1) / 2)`, of `x` clipped to [-1, 1].

    Source: adaptive-terrain-diffusion 0.4.2, `TerrainGenerator`.
    """
    return SOFT * jnp.sinh((jnp.clip(x, -1, 1) + 1) / 2 * np.arcsinh(HEIGHT / SOFT))

"""A prior out of an ONNX file and a card beside it, `NET.onnx` and `NET.json`, which says what the file does not.

    {"parametrisation": {"parametrisation": "eps", "condition": "index"}, "process": {"name": "VP"},
     "shape": [64, 64, 3], "onnx": {"channels_first": true}}

The first three are as on every card; the condition is a name of `adapters.TIMES`.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import jax
import jax.numpy as jnp

from diffinv import adapters, limits, schema
from diffinv.prior import PRECONDITIONED, Prior
from diffinv.process import Process
from diffinv.schema import Schema
from diffinv.weights import cards, loading
from diffinv.weights.convert import onnx

ONNX: Schema = {
    "channels_first": schema.switch("whether it takes (1, C, H, W), else (1, H, W, C)"),
}


def read_onnx_card(path: str) -> dict[str, Any]:
    """The card beside a `.onnx` file, checked, with the file's `sha256`. Raises as `load_onnx` does."""
    beside = path.removesuffix(".onnx") + ".json"
    if not os.path.exists(beside):
        wanted = "parametrisation (and its condition), process, shape and onnx: {channels_first}"
        raise FileNotFoundError(f"{path} has no card; write {beside} with {wanted}, see docs/networks.md")
    card = limits.read_object(beside)
    cards.require_card(card, beside, ours=False)
    told = card["parametrisation"]
    if told["parametrisation"] == "spectral":
        raise ValueError(f"{beside}: card.parametrisation is 'spectral', of our own networks alone; give another")
    if told["parametrisation"] not in PRECONDITIONED and "condition" not in told:
        known = ", ".join(adapters.TIMES)
        raise ValueError(f"{beside}: card.parametrisation.condition is missing; give what the time is: {known}")
    if "onnx" not in card:
        raise ValueError(f"{beside}: card.onnx is missing; give an object with {', '.join(ONNX)}")
    schema.require(ONNX, card["onnx"], f"{beside}: card.onnx")
    found = hashlib.sha256(limits.read_bytes(path, limits.allowance(path))).hexdigest()
    if card.get("sha256", found) != found:
        raise ValueError(f"{path} has sha256 {found[:12]}.., its card says {card['sha256'][:12]}..; copy both again")
    return {"name": os.path.basename(beside).removesuffix(".json"), **card, "sha256": found}


def load_onnx(path: str, process: Process | None = None, limit: int | None = None) -> tuple[Prior, dict[str, Any]]:
    """The prior of an ONNX file, and its card, which gets the file's `sha256` and the digest of its network.

    Args:
      path: of a `.onnx` file, with a `.json` of the same name beside it.
      process: the forward process to use it under; by default the card's.
      limit: as in `onnx.read_graph`.

    Raises FileNotFoundError where the card is missing, and ValueError as `onnx.network` does, where the card is not
    sound, and where the network does not take or give pictures of the card's shape.
    """
    path = os.fspath(path)
    card = read_onnx_card(path)
    network, params = onnx.network(path, limit)
    layout = adapters.channels_first if card["onnx"]["channels_first"] else adapters.batch_of_one
    prior = loading.build(params, card, process, layout(network))
    _require_fit(path, prior)
    return prior, {**card, "onnx": {**card["onnx"], "digest": network.digest}}


def _require_fit(path: str, prior: Prior) -> None:
    picture, time = jax.ShapeDtypeStruct(prior.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    try:
        found = jax.eval_shape(prior.denoise, picture, time)
    except (TypeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{path} does not fit its card's shape {prior.shape}, time or layout: {said}") from None
    if found.shape != prior.shape:
        raise ValueError(f"{path} makes {found.shape} of the card's shape {prior.shape}; correct the card")

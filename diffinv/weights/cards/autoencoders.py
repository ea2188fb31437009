"""The card of an autoencoder, and what the card of a prior over its codes says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffinv import schema
from diffinv.nn import autoencoder
from diffinv.nn.leaves import leaves
from diffinv.schema import Schema, several, switch, text, whole
from diffinv.weights.cards import fields

_unet = fields.NETWORKS["unet"]
AUTOENCODER: Schema = {
    **{name: _unet[name] for name in ("channels", "multipliers", "blocks", "out_channels", "groups", "eps")},
    **{name: _unet[name] for name in ("patch", "dtype", "plain_conv")},
    "code_channels": whole("of a code", 1, 64),
    "attention": switch("whether the middle attends to all positions"),
    "quant": switch("whether a 1x1 convolution follows the encoder"),
    "post_quant": switch("whether a 1x1 convolution precedes the decoder"),
}
LATENT: Schema = {
    "autoencoder": schema.component("of the autoencoder's two files, beside the prior's or shipped"),
    "sha256": text("of the autoencoder's weights", 64),
    "picture": several(whole("of a picture, (H, W, C)", 1, fields.SIDE), 3, 3),
}


def is_autoencoder(card: Mapping[str, Any]) -> bool:
    """Whether the card is of an autoencoder, and of no prior, upscaler or generator."""
    return "autoencoder" in card


def build_autoencoder(card: Mapping[str, Any], where: str = "autoencoder") -> autoencoder.AutoencoderKL:
    """The Linen module that the section `autoencoder` describes. Raises ValueError for a field out of its range, and
    for widths that its groups do not divide."""
    fields.first(schema.refusals(AUTOENCODER, card, where, partial=True))
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in card.items()}
    net = autoencoder.AutoencoderKL(**{**known, "dtype": fields.dtype(known.get("dtype", "float32"))})
    fields.first(fields.width_refusals(net, where))
    return net


def autoencoder_refusals(card: Mapping[str, Any]) -> Iterator[str]:
    """One line for each thing that is wrong with the fields that an autoencoder alone has."""
    try:
        net = build_autoencoder(card["autoencoder"], "card.autoencoder")
    except ValueError as error:
        yield str(error)
        return
    shape = card.get("shape", (net.factor, net.factor, net.out_channels))
    if len(shape) != 3 or shape[2] != net.out_channels or any(side % net.factor for side in shape[:2]):
        wanted = f"(H, W, {net.out_channels}) with sides that are multiples of {net.factor}"
        yield f"card.shape is {schema.shown(shape)}; give {wanted}"


def autoencoder_shapes(card: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Flat names and shapes of the weights that a sound card describes: the network's, and shift and scale of codes."""
    net = build_autoencoder(card["autoencoder"])
    codes = {f"codes/{name}": (net.code_channels,) for name in ("shift", "scale")}
    return {**leaves(net, net.out_channels), **codes}


def latent_refusals(card: Mapping[str, Any]) -> Iterator[str]:
    """One line for each thing that is wrong with the section `latent` of a prior over codes."""
    if "latent" in card:
        yield from schema.refusals(LATENT, card["latent"], "card.latent")

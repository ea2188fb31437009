"""Whether a card's fields fit each other and the weights beside it; see the package's head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from diffinv import schema
from diffinv.nn import ctmsr_unet, song, srnet
from diffinv.nn.leaves import leaves
from diffinv.schema import number, whole
from diffinv.weights.cards import autoencoders, fields, generators
from diffinv.weights.cards.autoencoders import is_autoencoder
from diffinv.weights.cards.fields import build_network, network_refusals, process_refusals
from diffinv.weights.cards.generators import is_generator

VERSION = 1


def side_multiple(net: Any) -> int:
    """What a picture's sides must be multiples of."""
    if isinstance(net, srnet.SRNet):
        return net.scale
    coarsest = 2 ** (fields.levels(net) - 1)
    if isinstance(net, ctmsr_unet.CTMSRUNet):
        windows = [min(net.window, net.resolution >> i) << i for i in range(fields.levels(net))]
        return net.scale * math.lcm(coarsest, *windows)
    return getattr(net, "patch", 1) * coarsest


def is_upscaler(card: Mapping[str, Any]) -> bool:
    """Whether the card is of an upscaler, and not of a prior."""
    return "scale" in card


def kind_of(card: Mapping[str, Any]) -> str:
    """ "generator", "autoencoder", "upscaler" or "prior"."""
    known = {"generator": is_generator, "autoencoder": is_autoencoder, "upscaler": is_upscaler}
    return next((kind for kind, holds in known.items() if holds(card)), "prior")


def _basics(card: Mapping[str, Any]) -> Iterator[str]:
    version = card.get("version", 1)
    if type(version) is not int or not 1 <= version <= VERSION:
        yield f"card.version is {schema.shown(version)}; this diffinv knows {VERSION}: update it, or export again"
    known = {name: card[name] for name in fields.FIELDS if name in card}
    yield from schema.refusals(fields.FIELDS, known, "card", partial=True)
    digest = card.get("sha256", "0" * 64)  # in memory there is none yet
    if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        yield f"card.sha256 is {schema.shown(digest)}; download or export it again"
    if "range" in card and card["range"] not in ([-1, 1], (-1, 1)):
        yield f"card.range is {schema.shown(card['range'])}; pictures are in [-1, 1] here: train or convert it so"
    shape = card.get("shape", ())
    if fields.SHAPE.accepts(shape) and math.prod(shape) > fields.VALUES:
        yield f"card.shape is {schema.shown(shape)}; give at most {fields.VALUES} values"
    yield from _given(card)


def _shape(value: Any, depth: int = 4) -> tuple[int, ...] | None:
    """Of numbers in nested lists; None for a ragged list, and for what is no number."""
    if not isinstance(value, list):
        return () if number(low=-(2**31), high=2**31 - 1).accepts(value) else None
    inner = {_shape(each, depth - 1) for each in value} if depth and len(value) <= 4096 else {None}
    same = inner.pop() if len(inner) == 1 else None
    return None if same is None else (len(value), *same)


def _given(card: Mapping[str, Any]) -> Iterator[str]:
    given = card.get("given", {})
    if not isinstance(given, Mapping):
        yield f"card.given is {schema.shown(given)}; give an object of names and numbers"
        return
    for name, value in given.items():
        if not name.isidentifier() or _shape(value) is None:
            yield f"card.given has {schema.shown(name)}: {schema.shown(value)}; give a name and numbers"
    labels = card.get("labels", [])
    if not isinstance(labels, list) or not all(fields.NOTE.accepts(label) for label in labels):
        yield f"card.labels is {schema.shown(labels)}; give a list of names"


def _architecture(card: Mapping[str, Any]) -> Iterator[str]:
    """The network against its kind and the labels, then against the picture."""
    net, upscaler = build_network(card["architecture"], "card.architecture"), is_upscaler(card)
    if isinstance(net, (srnet.SRNet, ctmsr_unet.CTMSRUNet)) != upscaler:
        kind = "an upscaler's" if upscaler else "a prior's"
        yield f"card.architecture.name is {card['architecture']['name']!r}, which is not {kind} network"
        return
    if upscaler and not net.scale == card["scale"] == card["parametrisation"].get("scale", 4):
        yield f"card.scale is {card['scale']}, the network's {net.scale}; make them agree"
    yield from _labels(card, net)
    if "shape" in card:
        yield from _picture(card, net)
        yield from _low(card, net)


def _picture(card: Mapping[str, Any], net: Any) -> Iterator[str]:
    shape = card["shape"]
    if len(shape) != 3:
        yield f"card.shape is {schema.shown(shape)}; give (H, W, C)"
        return
    if any(side % side_multiple(net) for side in shape[:2]):
        yield f"card.shape is {schema.shown(shape)}; the network wants sides that are multiples of {side_multiple(net)}"
    if isinstance(net, song.SongUNet) and list(shape[:2]) != [net.resolution] * 2:
        yield f"card.shape is {schema.shown(shape)}, the network's resolution is {net.resolution}; make them agree"
    wanted = shape[2] * (1 + bool(card["parametrisation"].get("learned_variance", False)))
    if net.out_channels != wanted:
        yield f"card.architecture.out_channels is {net.out_channels}; a picture of shape {shape} wants {wanted}"


def _low(card: Mapping[str, Any], net: Any) -> Iterator[str]:
    """The coarse picture that the network is told of, against the card's own picture."""
    told, wanted = getattr(net, "low_channels", 0), card["shape"][-1] if "coarse" in card else 0
    if told != wanted:
        yield f"card.architecture.low_channels is {told}; the card's shape and coarse want {wanted}: make them agree"
    if "coarse" in card and any(side % card["coarse"]["side"] for side in card["shape"][:2]):
        yield f"card.coarse.side is {card['coarse']['side']}; it must divide the sides of shape {card['shape']}"


def _labels(card: Mapping[str, Any], net: Any) -> Iterator[str]:
    given, classes = card.get("given", {}), getattr(net, "classes", None)
    if unknown := sorted(set(given) - {"label"}):
        yield f"card.given has {schema.shown(unknown[0])}; our networks take a label alone"
    if "label" in given and getattr(net, "scalar_label", False):
        if not number(low=0, high=1).accepts(given["label"]):
            yield f"card.given.label is {schema.shown(given['label'])}; the network takes a number from 0 to 1"
    elif "label" in given:
        label = given["label"]
        if classes is None or not whole(low=0, high=classes - 1).accepts(label):
            known = f"0 to {classes - 1}" if classes else "none at all"
            yield f"card.given.label is {schema.shown(label)}; the network knows {known}"


def _processes(card: Mapping[str, Any]) -> Iterator[str]:
    process, (*sides, _) = card["process"], card["shape"] if len(card["shape"]) == 3 else (0, 0, 0)
    acts = "shape" in fields.PROCESSES[process["name"]][1]
    if acts and list(process["shape"]) != sides:
        yield f"card.process.shape is {process['shape']}, card.shape {card['shape']}; make them agree"
    if any(side % process.get("block", 4 if process["name"] == "Relay" else 1) for side in sides):
        yield f"card.process.block is {process.get('block', 4)}; it must divide the sides of shape {card['shape']}"
    if acts != (card["parametrisation"]["parametrisation"] == "spectral"):
        kind = card["parametrisation"]["parametrisation"]
        yield f"card.process is {process['name']}, which does not go with parametrisation {kind!r}"
    if process["name"] == "VP" and process.get("beta_min", 0.1) + process.get("beta_max", 20.0) < 8:
        yield "card.process is a VP whose betas leave the picture in the noise; give beta_min + beta_max of 8 or more"
    bounds = card["parametrisation"].get("bounds", (0, 1))
    if bounds[0] >= bounds[1]:
        yield f"card.parametrisation.bounds are {bounds}; give the smaller one first"
    for low, high in (("beta_min", "beta_max"), ("sigma_min", "sigma_max"), ("blur_min", "blur_max")):
        if low in process and high in process and process[low] >= process[high]:
            yield f"card.process.{low} is {process[low]} and {high} {process[high]}; give a larger {high}"


def _certificate(card: Mapping[str, Any]) -> Iterator[str]:
    if "certificate" in card:
        given = card["certificate"]
        known = fields.CERTIFICATE
        told = {name: given[name] for name in known if name in given} if isinstance(given, Mapping) else given
        yield from schema.refusals(known, told, "card.certificate")


def _coarse(card: Mapping[str, Any]) -> Iterator[str]:
    if "coarse" in card:
        yield from schema.refusals(fields.COARSE, card["coarse"], "card.coarse")


def _consistency(card: Mapping[str, Any]) -> Iterator[str]:
    given = card.get("consistency", {})
    if not isinstance(given, Mapping):
        yield f"card.consistency is {schema.shown(given)}; give an object"
        return
    told = {name: given[name] for name in fields.CONSISTENCY if name in given}
    yield from schema.refusals(fields.CONSISTENCY, told, "card.consistency", partial=True)


def card_refusals(card: Mapping[str, Any], ours: bool = True) -> Iterator[str]:
    """One line for each thing that is wrong with a card; the checks that need sound fields come after these.

    Args: `ours`: the network is one of `ARCHITECTURES`, which the card must describe.
    """
    if is_generator(card):
        yield from [*_basics(card), *generators.generator_refusals(card)]
        return
    if is_autoencoder(card):
        yield from (lines := list(_basics(card)))
        yield from () if lines else autoencoders.autoencoder_refusals(card)
        return
    needed = ["parametrisation"] + ["shape", "process"] * (not is_upscaler(card)) + ["architecture"] * ours
    lines = list(_basics(card))
    lines += [f"card.{name} is missing" for name in needed if name not in card]
    lines += [*_consistency(card), *_certificate(card), *_coarse(card), *autoencoders.latent_refusals(card)]
    if "architecture" in card and ours:
        lines += network_refusals(card["architecture"])
    if "parametrisation" in card:
        known, first = (fields.UPSCALING, "") if is_upscaler(card) else (fields.PARAMETRISATION, "parametrisation")
        lines += fields.section_refusals(known, card["parametrisation"], "card.parametrisation", first)
    if "process" in card and not is_upscaler(card):
        lines += process_refusals(card["process"])
    yield from lines
    if not lines:
        yield from _architecture(card) if ours else ()
        yield from () if is_upscaler(card) else _processes(card)


def require_card(card: Mapping[str, Any], path: str, ours: bool = True) -> None:
    """ValueError with the card's path and the first thing that is wrong with it."""
    try:
        fields.first(card_refusals(card, ours))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def expected_shapes(card: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Flat names and shapes of the weights that a sound card describes."""
    if is_generator(card):
        return generators.generator_shapes(card)
    if is_autoencoder(card):
        return autoencoders.autoencoder_shapes(card)
    net = build_network(card["architecture"])
    channels = card["shape"][2] if "shape" in card else net.out_channels
    if card["parametrisation"].get("parametrisation") == "spectral":
        field = tuple(card["shape"])
        return {**leaves(net, 2 * channels), "field/mean": field, "field/variance": field}
    return leaves(net, channels + bool(card.get("consistency", {}).get("second_time", False)))


def require_weights(card: Mapping[str, Any], flat: Mapping[str, Any], path: str) -> None:
    """ValueError where weights are missing, left over or of another shape than the card's network has; it says which.

    Args: `flat`: names to arrays.
    """
    wanted = expected_shapes(card)
    for name in {**wanted, **flat}:
        here = tuple(flat[name].shape) if name in flat else "absent"
        there = wanted.get(name, "absent")
        if here != there:
            raise ValueError(
                f"{path}: {schema.shown(name)} is {here} among the weights and {there} in the card's network; "
                "they are not of one export"
            )


def require_numbers(flat: Mapping[str, np.ndarray], path: str) -> None:
    """ValueError for weights that are not floating-point, or not finite; it says which."""
    for name, leaf in flat.items():
        if leaf.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
            raise ValueError(f"{path}: weight {schema.shown(name)} is {leaf.dtype}; weights are floating-point numbers")
        if not np.isfinite(leaf).all():
            raise ValueError(f"{path}: weight {schema.shown(name)} is not finite; the training or the file is broken")

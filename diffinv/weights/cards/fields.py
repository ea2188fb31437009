"""What the fields of a model card may hold, and the closed tables of networks and processes that it chooses from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from diffinv import process as processes
from diffinv import scalespace, schema
from diffinv.adapters import TIMES
from diffinv.nn import convnet, ctmsr_unet, dit, edm2, song, srnet, unet
from diffinv.nn.leaves import leaves
from diffinv.prior import PARAMETRISATIONS, PRECONDITIONED
from diffinv.schema import Schema, choice, either, exactly, number, several, switch, text, whole
from diffinv.weights.convert import schedule

SIDE, VALUES = 8192, 2**26  # of a picture
ARCHITECTURES = {
    "unet": unet.UNet,
    "song": song.SongUNet,
    "edm2": edm2.EDM2UNet,
    "srnet": srnet.SRNet,
    "conv": convnet.ConvUNet,
    "ctmsr": ctmsr_unet.CTMSRUNet,
    "dit": dit.DiT,
}
LEVELS = (0.1, 1.0, 10.0)  # noise-to-signal ratios of the certificate
NONE = exactly(None, "null")

_channels = whole("width of the network", 2, 8192)
_multipliers = several(number("widths of the levels over channels", above=0, high=64), 1, 12)
_whole_multipliers = several(whole("widths of the levels over channels", 1, 64), 1, 12)
_attention = several(whole("where attention follows each block", 1, SIDE), 0, 12)
_blocks = whole("residual blocks a level", 1, 64)
_SHARED: Schema = {
    "channels": _channels,
    "blocks": _blocks,
    "out_channels": whole("channels of the result", 1, 64),
    "dtype": choice(("float32", "bfloat16", "float16"), "of the computation"),
    "plain_conv": switch("lax's own convolution"),
}
_DROPOUT: Schema = {"dropout": number("rate", low=0, below=1), "remat": switch("recompute blocks backwards")}
_CLASSES: Schema = {"classes": either(NONE, whole("labels", 1, 2**20))}
_RESOLUTION = whole("native size, which names the levels", 1, SIDE)
NETWORKS: dict[str, Schema] = {
    "unet": {
        **_SHARED,
        **_DROPOUT,
        **_CLASSES,
        "multipliers": _multipliers,
        "attention": _attention,
        "head_channels": whole("channels of a head", 1, 8192),
        "heads": either(NONE, whole("attention heads, in the place of head_channels", 1, 1024)),
        "patch": whole("space to depth", 1, 64),
        "time_scale": number("multiplies the condition", above=0, high=1e6),
        "groups": whole("of GroupNorm", 1, 8192),
        "smallest_group": whole("fewest channels a group", 1, 8192),
        "eps": number("of GroupNorm", above=0, high=1),
        "frequency_shift": whole("of the embedding", 0, 1),
        **{name: switch() for name in ("legacy_attention", "film", "resample_convs", "corner_padding")},
        "resample_blocks": switch("whether residual blocks change the resolution"),
        "scalar_label": switch("the label is a number from 0 to 1, in the place of classes"),
        "low_channels": whole("of a coarse picture that the network is told of, 0 for none", 0, 64),
    },
    "song": {
        **_SHARED,
        **_DROPOUT,
        **_CLASSES,
        "resolution": _RESOLUTION,
        "multipliers": _whole_multipliers,
        "attention": _attention,
        "noise_channels": whole("multiplies the embedding's width", 1, 16),
        "fourier": switch(),
        "residual": switch("whether the encoder adds the shrunken input at every level"),
        "taps": several(number("of the resampling filter", low=-1e3, high=1e3), 2, 16),
    },
    "edm2": {
        **_SHARED,
        **_DROPOUT,
        **_CLASSES,
        "resolution": _RESOLUTION,
        "multipliers": _whole_multipliers,
        "attention": _attention,
        "head_channels": whole("channels of a head", 1, 8192),
        "noise_channels": whole("multiplies channels to the Fourier features' number, 0 for the first level's", 0, 64),
        "label_balance": number("share of the label in the embedding", 0, 1),
        "concat_balance": number("share of the skip in a join", 0, 1),
        "balance": several(number("share of the residual and of the attention branch", 0, 1), 2, 2),
        "clip": number("largest activation", above=0, high=1e6),
        "taps": several(number("of the resampling filter", low=-1e3, high=1e3), 2, 16),
    },
    "conv": {
        **_SHARED,
        "multipliers": _multipliers,
        "patch": whole("space to depth", 1, 64),
        "time_scale": number("multiplies the condition", above=0, high=1e6),
        "remat": _DROPOUT["remat"],
    },
    "srnet": {
        **_SHARED,
        "scale": whole("of the sides", 1, 16),
        "residual": switch("whether the enlarged input is added to what the network gives"),
        "cubic": number("of the upsampling", -1, 0),
        "time_scale": number("multiplies the condition", above=0, high=1e6),
    },
    "ctmsr": {
        **_SHARED,
        **_DROPOUT,
        "resolution": _RESOLUTION,
        "multipliers": _whole_multipliers,
        "attention": _attention,
        "heads": whole("of the attention", 1, 1024),
        "window": whole("side of a window", 1, 256),
        "embed": whole("width of the attention, 0 for channels", 0, 8192),
        "scale": choice((1, 2, 4, 8, 16), "of the sides"),
        "residual": switch("whether the enlarged input is added to what the network gives"),
        "cubic": number("of the upsampling", -1, 0),
    },
    "dit": {
        **{name: _SHARED[name] for name in ("out_channels", "dtype")},
        **_CLASSES,
        "channels": whole("of a token, a multiple of 4", 4, 8192),
        "blocks": whole("of the transformer", 1, 256),
        "heads": whole("of each attention", 1, 1024),
        "patch": whole("side of the square that is a token", 1, 64),
        "ratio": number("hidden units of an MLP over its channels", above=0, high=64),
        "time_scale": number("multiplies the condition", above=0, high=1e6),
        "frequency_shift": whole("of the embedding", 0, 1),
        "eps": number("of the norms", above=0, high=1),
        "eps_mlp": number("of the norms before an MLP", above=0, high=1),
        "remat": _DROPOUT["remat"],
    },
}

_betas: Schema = {"beta_min": number(above=0, below=1), "beta_max": number(above=0, below=1)}
_frequencies = lambda kind: lambda shape, **fields: kind(processes.dct_frequencies(*shape), **fields)
_dct_shape = several(whole("of the picture", 1, SIDE), 2, 2)
PROCESSES: dict[str, tuple[Callable[..., processes.Process], Schema]] = {
    "EDM": (processes.EDM, {"sigma_max": number("largest noise", low=1, high=1e6)}),
    "VP": (processes.VP, {"beta_min": number(above=0, high=100), "beta_max": number(above=0, high=1000)}),
    "VE": (
        processes.VE,
        {"sigma_min": number(above=0, high=1), "sigma_max": number("largest noise", low=1, high=1e6)},
    ),
    "Cosine": (processes.Cosine, {"margin": number(above=0, high=0.1)}),
    "Flow": (processes.Flow, {}),
    "ResidualShift": (processes.ResidualShift, {"kappa": number(above=0, high=1e3), "power": number(above=0, high=8)}),
    "discrete": (
        schedule.discrete,
        {"kind": choice(("linear", "scaled_linear", "cosine")), "steps": choice((1000,)), **_betas},
    ),
    "Blurring": (
        _frequencies(processes.Blurring),
        {"shape": _dct_shape, "sigma_blur": number(above=0, high=SIDE, unit="pixels")}
        | {"d_min": number(above=0, high=0.5), "margin": number(above=0, high=0.1)},
    ),
    "Relay": (
        lambda shape, **fields: scalespace.relay(*shape, **fields),
        {"shape": _dct_shape, "sigma_blur": number(above=0, high=SIDE, unit="pixels")}
        | {"block": whole("side of the squares in which it blurs", 1, SIDE), "d_min": number(above=0, high=0.5)},
    ),
    "HeatDissipation": (
        _frequencies(processes.HeatDissipation),
        {"shape": _dct_shape, "blur_min": number(above=0, high=SIDE), "blur_max": number(above=0, high=SIDE)}
        | {"delta": number(above=0, high=10)},
    ),
}

PARAMETRISATION: Schema = {
    "parametrisation": choice((*PRECONDITIONED, *PARAMETRISATIONS, "spectral"), "what the network predicts"),
    "learned_variance": switch("the last half of the channels is ADM's variance"),
    "condition": choice(tuple(TIMES), "what the network is told of the time, a name of adapters.TIMES"),
    "clip": switch("clamp x0 to [-1, 1]"),
    "sigma_data": number("deviation of the data", low=1e-4, high=1e4, unit="of the data"),
    "bounds": several(number("noise levels of the training", above=0, high=1e6), 2, 2),
}
UPSCALING: Schema = {
    "scale": whole("of the sides", 1, 16),
    "sigma_max": number("noise at time 1", above=0, high=1e3),
    "method": choice(("ctmsr", "resshift")),
    "cubic": number("of the upsampling", -1, 0),
    "boundary": number(above=0, high=10),
    "stochastic": switch(),
}
NOTE = text("a note")
SHAPE = several(whole("of a picture, (H, W, C)", 1, SIDE), 1, 4)
FIELDS: Schema = {
    "name": schema.component("of the two files"),
    "shape": SHAPE,
    "parameters": whole("how many weights there are", 0, 2**50),
    "layout": choice(("HWC, RGB", "HWC, grey", "HWC")),
    "scale": whole("of an upscaler", 1, 16),
    "label_null": whole("the label that stands for none", 0, 2**20),
    "label_dropout": number(low=0, high=1),
    **{name: NOTE for name in ("schedule", "data", "data_licence", "family", "method", "network", "degradation")},
    "ema": either(NOTE, number()),
}
CONSISTENCY: Schema = {
    "second_time": switch("the network takes a time to go to"),
    "middle": number("noise of the second step", above=0, high=1e6),
}
COARSE: Schema = {
    "side": whole("of the coarse picture that the network is told of", 1, SIDE, "pixels"),
    "level": number("greatest deviation of the noise on it", low=0, high=1e4, unit="of the data"),
}
CERTIFICATE: Schema = {
    "shape": several(whole("of the probe", 1, 512), 3, 3),
    "values": several(several(number("a reference output"), 3, 64), len(LEVELS), len(LEVELS)),
}


def _known(table: Mapping[str, Any], given: Any, where: str) -> Iterator[str]:
    """A section with a `name` from a closed table."""
    if not isinstance(given, Mapping):
        yield f"{where} is {schema.shown(given)}; give an object with name, one of {', '.join(table)}"
    elif not isinstance(given.get("name"), str) or given["name"] not in table:
        yield f"{where}.name is {schema.shown(given.get('name'))}; known are {', '.join(table)}"


def section_refusals(fields: Schema, given: Any, where: str, needed: str = "") -> Iterator[str]:
    """What is wrong with a section, all of whose fields have defaults but `needed`."""
    yield from schema.refusals(fields, given, where, partial=True)
    if needed and isinstance(given, Mapping) and needed not in given:
        yield f"{where}.{needed} is missing"


def network_refusals(card: Mapping[str, Any], where: str = "card.architecture") -> Iterator[str]:
    """What is wrong with `{"name": ..., fields}`."""
    yield from (unknown := list(_known(NETWORKS, card, where)))
    if not unknown:
        yield from schema.refusals({"name": choice(tuple(NETWORKS)), **NETWORKS[card["name"]]}, card, where, True)


def process_refusals(card: Mapping[str, Any], where: str = "card.process") -> Iterator[str]:
    """What is wrong with `{"name": ..., fields}`."""
    yield from (unknown := list(_known(PROCESSES, card, where)))
    if unknown:
        return
    fields = PROCESSES[card["name"]][1]
    yield from schema.refusals({"name": choice(tuple(PROCESSES)), **fields}, card, where, True)
    if "shape" in fields and "shape" not in card:
        yield f"{where}.shape is missing; give (height, width)"


def first(lines: Iterator[str]) -> None:
    """ValueError with the first line, where there is one."""
    for line in lines:
        raise ValueError(line)


def build_process(card: Mapping[str, Any], where: str = "process") -> processes.Process:
    """The process that `{"name": ..., fields}` describes; `shape` where it acts on coefficients.

    Raises ValueError for a name that is not in `PROCESSES`, and for a field out of its range.
    """
    first(process_refusals(card, where))
    fields = {name: value for name, value in card.items() if name != "name"}
    return PROCESSES[card["name"]][0](**fields)


def build_network(card: Mapping[str, Any], where: str = "architecture") -> Any:
    """The Linen module that `{"name": ..., fields}` describes.

    Raises ValueError for a name that is not in `ARCHITECTURES`, a field out of its range, and for widths that
    no norm or attention divides.
    """
    first(network_refusals(card, where))
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in card.items() if key != "name"}
    net = ARCHITECTURES[card["name"]](**{**fields, "dtype": dtype(card.get("dtype", "float32"))})
    first(width_refusals(net, where))
    return net


def dtype(name: str) -> np.dtype:
    """A network's dtype, of the name that a card gives it."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def levels(net: Any) -> int:
    """How many sizes a network works at."""
    return len(net.multipliers) if hasattr(net, "multipliers") else 1


def width_refusals(net: Any, where: str) -> Iterator[str]:
    """Widths that are 0, that groups do not divide, or that heads do not."""
    blocks = getattr(net, "blocks", 1)
    if getattr(net, "scalar_label", False) and net.classes is not None:
        yield f"{where}.classes is {net.classes} and scalar_label is True; give one of them"
    if levels(net) * blocks > 256:
        yield f"{where} has {levels(net)} levels of {blocks} blocks; give at most 256 blocks"
    if isinstance(net, dit.DiT) and net.channels % 4:
        yield f"{where}.channels is {net.channels}; the positions take a multiple of 4"
    if hasattr(net, "resolution") and net.resolution >> (levels(net) - 1) < 1:
        yield f"{where}.resolution is {net.resolution}, too small for {levels(net)} levels; give a larger one"
    elif min(int(getattr(net, "channels", 1) * m) for m in getattr(net, "multipliers", (1,))) < 1:
        yield f"{where}.multipliers are {net.multipliers}: a level has no channel; give larger ones"
    else:
        yield from _undivided(net, where)


def _undivided(net: Any, where: str) -> Iterator[str]:
    groups, smallest = getattr(net, "groups", 32), getattr(net, "smallest_group", 4)
    for name, shape in leaves(net, 1).items():
        if name.endswith("/scale") and shape[0] % max(1, min(groups, shape[0] // smallest)):
            yield f"{where}.channels make a norm of {shape[0]} channels, which its groups do not divide; change them"
        if name.endswith("qkv/kernel") and shape[0] % (heads := _heads(net, shape[0])):
            yield f"{where}.heads make {heads}, which do not divide {shape[0]} channels; choose a divisor"


def _heads(net: Any, width: int) -> int:
    if isinstance(net, song.SongUNet):
        return 1
    return getattr(net, "heads", None) or max(1, width // net.head_channels)

"""The networks that may be trained: which fields `config.net` has for each, and how they are built.

Every network that model cards know (`diffinv.weights.cards.fields`) may be trained. `config.net` has all of its fields
but those that the task or the picture decides, or those that an entry of `CHOSEN` lists.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from flax import linen as nn
from ml_collections import ConfigDict

from diffinv.nn.leaves import leaves
from diffinv.schema import Field, Schema, choice
from diffinv.weights import cards
from diffinv.weights.cards.fields import NETWORKS as DECLARED

WEIGHTS = 2**32
DEFAULT = "unet"
"""Of configurations that do not say."""


class Network(NamedTuple):
    """A network that may be trained.

    Attributes:
      fields: of `config.net`; the others are the task's, or keep their defaults.
      enlarges: it takes a picture of low resolution besides.
      sized: its `resolution` is the side of the pictures.
    """

    fields: tuple[str, ...]
    enlarges: bool = False
    sized: bool = False


_UNET = "channels multipliers blocks attention head_channels patch time_scale resample_blocks dropout remat dtype"
_SONG = "channels multipliers blocks attention noise_channels fourier residual taps dropout remat dtype"
_CTMSR = "channels multipliers blocks heads resolution residual cubic dtype remat dropout"
CHOSEN: dict[str, Network] = {
    "unet": Network(tuple(_UNET.split())),
    "song": Network(tuple(_SONG.split()), sized=True),
    "srnet": Network(("channels", "blocks", "residual", "cubic", "dtype"), enlarges=True),
    "ctmsr": Network(tuple(_CTMSR.split()), enlarges=True),
}
DECIDED = ("out_channels", "classes", "scale", "plain_conv", "low_channels")
COARSE = tuple(name for name, fields in DECLARED.items() if "low_channels" in fields)
"""Networks that may be told of a coarse picture."""
ANY = Field(lambda _: True, "anything")


def _network(name: str) -> Network:
    """With all that the cards declare, where nothing was chosen."""
    return Network(tuple(field for field in DECLARED[name] if field not in DECIDED), "scale" in DECLARED[name])


NETWORKS: dict[str, Network] = {name: CHOSEN.get(name) or _network(name) for name in DECLARED}


def architecture(config: ConfigDict) -> str:
    """The name of the configuration's network."""
    return config.get("architecture", DEFAULT)


def takes_coarse(config: ConfigDict) -> bool:
    """Whether the configuration's network may be told of a coarse picture."""
    return architecture(config) in COARSE


def fields(config: ConfigDict, enlarges: bool = False) -> Schema:
    """`architecture`, of the networks that enlarge pictures or of the others, and the fields of `net`."""
    known = [name for name, network in NETWORKS.items() if network.enlarges == enlarges]
    told: Schema = {"architecture": choice(tuple(known), "the network")}
    if not enlarges and "architecture" not in config:
        told = {}  # written before there was a choice
    name = architecture(config)
    if name not in known:
        return {**told, "net": dict.fromkeys(config.get("net", {}), ANY)}
    return {**told, "net": {field: DECLARED[name][field] for field in NETWORKS[name].fields}}


def card(config: ConfigDict, **more: Any) -> dict[str, Any]:
    """The card's `architecture`, with what the task knows of it besides."""
    name = architecture(config)
    resolution = {"resolution": config.size} if NETWORKS[name].sized else {}
    return {"name": name, **config.net.to_dict(), **resolution, **more}


def build(card: dict[str, Any]) -> nn.Module:
    """The network in `lax`'s own convolutions, whose weight gradient XLA wants in its own form."""
    plain = {"plain_conv": True} if "plain_conv" in DECLARED[card["name"]] else {}
    return cards.build_network({**card, **plain}, "config.net")


def require_fit(config: ConfigDict) -> None:
    """The network by the rules of a card: widths, groups, heads, and the picture's sides. Raises ValueError."""
    net = cards.build_network(card(config), "config.net")
    if config.size % (unit := cards.side_multiple(net)):
        raise ValueError(f"config.size is {config.size}; config.net wants a multiple of {unit} (patch, multipliers)")
    count = sum(map(math.prod, leaves(net, config.channels).values()))
    if count > WEIGHTS:
        raise ValueError(f"config.net makes {count:,} weights; give fewer channels or levels, for at most {WEIGHTS:,}")

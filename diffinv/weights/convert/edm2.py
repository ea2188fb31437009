r"""EDM2's networks (Karras et al. 2024), of NVlabs/edm2, as `nn.edm2.EDM2UNet`.

    D = c_skip x + c_out F(c_in x, log(sigma) / 4)        as EDM's, of x = x_0 + sigma noise

They are published as pickles of classes, which run code and are refused; docs/bring-your-own-prior.md gives the short
program that writes a state dict and, beside it, a JSON file of the fields that it does not show. The estimate of the
loss's logarithm, which only training uses, is left out. Of ImageNet at 512 pixels they are networks of codes, (64, 64,
4), of deviation 0.5.

Source: Karras et al. 2024, arXiv:2312.02696, and the names in NVlabs/edm2; the conversion is original.
"""

from __future__ import annotations

import math
import re
from typing import Any

from diffinv import schema
from diffinv.schema import Schema, choice, number, several, whole
from diffinv.weights import cards
from diffinv.weights.convert import edm, placing
from diffinv.weights.convert.placing import Imported, State

MARK = "emb_noise.weight"
FIELDS: Schema = {
    "class": choice(("Precond",)),
    "sigma_data": number(above=0, high=1e4),
    "img_resolution": whole(low=1, high=8192),
    "channels_per_head": whole(low=1, high=8192),
    "label_balance": number(low=0, high=1),
    "concat_balance": number(low=0, high=1),
    "res_balance": number(low=0, high=1),
    "attn_balance": number(low=0, high=1),
    "clip_act": number(above=0, high=1e6),
    "resample_filter": several(number(low=-1e3, high=1e3), 2, 16),
}
PUBLISHED: dict[str, Any] = {
    "sigma_data": 0.5,
    "channels_per_head": 64,
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
    "resample_filter": [1, 1],
}
"""What every network of theirs has; a file beside the weights may say otherwise."""


def detect(state: State) -> dict[str, Any]:
    """The fields of `EDM2UNet` that a state dict shows."""
    if not (sizes := edm.resolutions(state)):
        raise ValueError("the state dict has no levels such as enc.64x64_conv; it is of another architecture")
    need = lambda name, axes: placing.need(state, name, axes).shape
    widths = [need(f"enc.{n}x{n}_block0.conv_res1.weight", 4)[0] for n in sizes]
    features, embedding = need(MARK, 2)[::-1]
    unit = math.gcd(*widths, features)
    count = sum(bool(re.fullmatch(rf"enc\.{sizes[0]}x{sizes[0]}_block\d+\.conv_res0\.weight", name)) for name in state)
    if embedding != max(widths):
        raise ValueError(f"the embedding has {embedding} channels, the widest level {max(widths)}; they are one here")
    return {
        "resolution": sizes[0],
        "channels": unit,
        "multipliers": tuple(width // unit for width in widths),
        "blocks": count,
        "attention": tuple(n for n in sizes if f"enc.{n}x{n}_block0.attn_qkv.weight" in state),
        "out_channels": need("out_conv.weight", 4)[0],
        "noise_channels": features // unit,
        "classes": need("emb_label.weight", 2)[1] if "emb_label.weight" in state else None,
    }


def edm2_name(path: tuple[str, ...]) -> str:
    """("params", "enc_16x16_block0", "conv_res0", "kernel") to "enc.16x16_block0.conv_res0.weight"."""
    return re.sub(r"^(enc|dec)_", r"\1.", ".".join(path[1:])).replace("kernel", "weight")


def imported(state: State, fields: dict[str, Any]) -> Imported:
    """An EDM2 state dict as parameters and a card.

    Args:
      state: of a `Precond`, or of the network in it.
      fields: what the state does not show, `FIELDS`; where one is missing, what the published networks have.

    Raises ValueError for another architecture or other fields, with both values.
    """
    told = {name: fields[name] for name in FIELDS if name in fields}
    schema.require(FIELDS, told, "the JSON beside the weights", partial=True)
    used = {**PUBLISHED, **told}
    state = placing.without(state, "unet.")
    state = {name: value for name, value in state.items() if not name.startswith("logvar_")}
    found = detect(state)
    if (size := used.get("img_resolution", found["resolution"])) != found["resolution"]:
        raise ValueError(f"the fields say img_resolution = {size}, the weights {found['resolution']}; of one model?")
    architecture = {
        "name": "edm2",
        **found,
        "head_channels": used["channels_per_head"],
        "balance": (used["res_balance"], used["attn_balance"]),
        "clip": float(used["clip_act"]),
        "taps": tuple(used["resample_filter"]),
        **{name: used[name] for name in ("label_balance", "concat_balance")},
    }
    inside = found["out_channels"]
    params = placing.fill(cards.build_network(architecture, "the checkpoint's network"), state, edm2_name, inside)
    card = {
        "name": "edm2",
        "family": "EDM2 (NVlabs/edm2)",
        "architecture": architecture,
        "shape": [found["resolution"], found["resolution"], inside],
        "parametrisation": {"parametrisation": "edm", "sigma_data": float(used["sigma_data"])},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "schedule": "EDM noise levels, ln sigma ~ N(-0.4, 1)",
    }
    return Imported(params, card)

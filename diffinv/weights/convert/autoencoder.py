r"""diffusers' `AutoencoderKL`: a folder of `config.json` and safetensors, as Stable Diffusion's `vae` has it.

Its names are those of `nn.autoencoder` with dots; q, k and v are stacked. Codes are brought to unit variance as its
config says, by `shift_factor` and `scaling_factor`.

Source: huggingface/diffusers, `AutoencoderKL` and its configs (stabilityai/sd-vae-ft-mse); the conversion is original.
"""

from __future__ import annotations

import re
from typing import Any

from diffinv import schema
from diffinv.codec import standard
from diffinv.schema import Schema, either, exactly, number, several, switch, text, whole
from diffinv.weights import cards
from diffinv.weights.convert import diffusers, placing
from diffinv.weights.convert.placing import Imported, State

ALLOWED = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
}
CONFIG: Schema = {
    "_class_name": text(),
    "block_out_channels": several(whole(low=1, high=8192), 1, 12),
    "layers_per_block": whole(low=1, high=64),
    "in_channels": whole(low=1, high=64),
    "out_channels": whole(low=1, high=64),
    "latent_channels": whole(low=1, high=64),
    "norm_num_groups": whole(low=1, high=8192),
    "sample_size": whole(low=1, high=8192),
    "scaling_factor": number(above=0, high=1e6),
    "shift_factor": either(exactly(None, "null"), number(low=-1e6, high=1e6)),
    "use_quant_conv": switch(),
    "use_post_quant_conv": switch(),
    "mid_block_add_attention": switch(),
    "down_block_types": several(exactly("DownEncoderBlock2D", "'DownEncoderBlock2D'"), 1, 12),
    "up_block_types": several(exactly("UpDecoderBlock2D", "'UpDecoderBlock2D'"), 1, 12),
}


def check_autoencoder(config: dict[str, Any]) -> None:
    """Raises ValueError for a `config.json` of another topology: the field, its value and what is supported."""
    for field, allowed in ALLOWED.items():
        if config.get(field, allowed[0]) not in allowed:
            raise ValueError(f"config.json has {field} = {config[field]!r}; supported is {allowed[0]!r}")
    known = {field: config[field] for field in CONFIG if field in config}
    schema.require(CONFIG, known, "config.json", partial=True)
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        raise ValueError("config.json has other in_channels than out_channels; autoencoders of one picture are read")


def section(config: dict[str, Any]) -> dict[str, Any]:
    """The card's `autoencoder`, with diffusers' defaults for what the config does not say."""
    widths = config.get("block_out_channels", (64,))
    return {
        "channels": widths[0],
        "multipliers": [width // widths[0] if width % widths[0] == 0 else width / widths[0] for width in widths],
        "blocks": config.get("layers_per_block", 1),
        "code_channels": config.get("latent_channels", 4),
        "out_channels": config.get("out_channels", 3),
        "groups": config.get("norm_num_groups", 32),
        "attention": config.get("mid_block_add_attention", True),
        "quant": config.get("use_quant_conv", True),
        "post_quant": config.get("use_post_quant_conv", True),
    }


def diffusers_name(path: tuple[str, ...]) -> str:
    """diffusers' name of a parameter, q, k and v being one `qkv`."""
    *modules, leaf = path[1:]
    name = re.sub(r"_(\d+)(?=\.|_|$)", r".\1", ".".join(modules))
    name = re.sub(r"\.(\d+)_(resnets|attentions|downsamplers|upsamplers)", r".\1.\2", name)
    name = re.sub(r"mid_block_(?=resnets|attentions)", "mid_block.", name)
    for ours, theirs in (("samplers.0.op", "samplers.0.conv"), ("attentions.0.norm", "attentions.0.group_norm")):
        name = name.replace(ours, theirs)
    return f"{name}.{'weight' if leaf in ('kernel', 'scale') else 'bias'}"


def _named(state: State) -> State:
    """With q, k and v stacked, and the attention's last projection under one name for its older and newer ones."""
    last = re.compile(r"(attentions\.0)\.(?:to_out\.0|proj_attn)\.")
    return {last.sub(r"\1.proj_out.", name): value for name, value in diffusers.stacked_qkv(state).items()}


def imported(state: State, config: dict[str, Any], name: str = "autoencoder") -> Imported:
    """An `AutoencoderKL` as the parameters of a `codec.Codec` and their card.

    Args: `state`: its tensors; `config`: config.json; `name`: of the card.

    Raises ValueError for another topology, and for a tensor that is missing, left over or of another shape.
    """
    check_autoencoder(config)
    fields = section(config)
    net = cards.build_autoencoder(fields, "the checkpoint's autoencoder")
    filled = placing.fill(net, _named(state), diffusers_name, net.out_channels)
    scale, shift = config.get("scaling_factor", 0.18215), config.get("shift_factor") or 0.0
    side = -(-config.get("sample_size", 32) // net.factor) * net.factor
    card = {
        "name": name,
        "family": "AutoencoderKL (huggingface/diffusers)",
        "autoencoder": fields,
        "shape": [side, side, net.out_channels],
    }
    return Imported({**filled, "codes": standard(net.code_channels, shift, scale)}, card)

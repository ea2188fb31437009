r"""Diffusion transformers: the state dicts of facebookresearch/DiT, and diffusers' `DiTTransformer2DModel`.

diffusers' tensors are renamed to the paper's and read as those. It keeps the embeddings of time and label once in each
block; here they are one, and a file in which they differ is refused.

Source: facebookresearch/DiT and huggingface/diffusers, `DiTTransformer2DModel` (facebook/DiT-XL-2-256); the conversion
is original.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from diffinv import schema
from diffinv.nn import dit
from diffinv.schema import Schema, either, exactly, number, text, whole
from diffinv.weights import cards
from diffinv.weights.convert import diffusers, placing
from diffinv.weights.convert.placing import Imported, State

ENDS = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
BLOCK = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.qkv": "attn.qkv",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
EMBEDDINGS = {
    "norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm1.emb.class_embedder.embedding_table": "y_embedder.embedding_table",
}
ALLOWED = {
    "_class_name": ("DiTTransformer2DModel",),
    "activation_fn": ("gelu-approximate",),
    "norm_type": ("ada_norm_zero",),
    "norm_elementwise_affine": (False,),
    "attention_bias": (True,),
    "upcast_attention": (False,),
    "dropout": (0, 0.0),
}
CONFIG: Schema = {
    "_class_name": text(),
    "num_attention_heads": whole(low=1, high=1024),
    "attention_head_dim": whole(low=1, high=8192),
    "in_channels": whole(low=1, high=64),
    "out_channels": either(exactly(None, "null"), whole(low=1, high=64)),
    "num_layers": whole(low=1, high=256),
    "num_embeds_ada_norm": whole(low=1, high=2**20),
    "sample_size": whole(low=1, high=8192),
    "patch_size": whole(low=1, high=64),
    "norm_eps": number(above=0, high=1),
}
OFFICIAL = {"num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "sample_size": 32, "patch_size": 2}
"""diffusers' defaults, which are those of XL/2."""


def check_transformer(config: dict[str, Any]) -> None:
    """Raises ValueError for a `config.json` of another topology: the field, its value and what is supported."""
    for field, allowed in ALLOWED.items():
        if config.get(field, allowed[0]) not in allowed:
            raise ValueError(f"config.json has {field} = {config[field]!r}; supported is {allowed[0]!r}")
    known = {field: config[field] for field in CONFIG if field in config}
    schema.require(CONFIG, known, "config.json", partial=True)


def to_official(state: State) -> State:
    """diffusers' tensors under the names of facebookresearch/DiT.

    Raises ValueError where the embeddings of two blocks differ, or one of q, k and v is missing.
    """
    found: State = {}
    for name, value in diffusers.stacked_qkv(state).items():
        new = _official(name)
        if new in found and not np.array_equal(found[new], value):
            raise ValueError(f"{name} differs from that of another block; one embedding for all blocks is supported")
        found[new] = value
    return found


def _official(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    if match := re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", stem):
        block, part = match.groups()
        return f"{EMBEDDINGS[part]}.{leaf}" if part in EMBEDDINGS else f"blocks.{block}.{BLOCK.get(part, part)}.{leaf}"
    return f"{ENDS.get(stem, stem)}.{leaf}"


def official_name(path: tuple[str, ...]) -> str:
    """facebookresearch/DiT's name of a parameter."""
    *modules, leaf = path[1:]
    name = re.sub(r"^(blocks)_(\d+)$", r"\1.\2", modules[0])
    rest = [re.sub(r"^(x_embedder|t_embedder|y_embedder|final_layer)_", r"\1.", part) for part in (name, *modules[1:])]
    rest = [re.sub(r"^(attn|mlp)_", r"\1.", part) for part in rest]
    rest = [re.sub(r"(adaLN_modulation|mlp)_(\d)$", r"\1.\2", part) for part in rest]
    return f"{'.'.join(rest)}.{'bias' if leaf == 'bias' else 'weight'}"


def _patched(state: State) -> State:
    """The first convolution, (D, C, p, p), as a dense layer of squares, channels last; without the fixed positions."""
    name = "x_embedder.proj.weight"
    kernel = placing.need(state, name, 4)
    kept = {each: value for each, value in state.items() if each != "pos_embed"}
    return {**kept, name: kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)}


def architecture_fields(state: State, config: dict[str, Any]) -> dict[str, Any]:
    """The card's `architecture`, of diffusers' config."""
    told = {**OFFICIAL, "in_channels": 4, "num_embeds_ada_norm": 1000, "norm_eps": 1e-5, **config}
    label = "y_embedder.embedding_table.weight"
    return {
        "name": "dit",
        "channels": told["num_attention_heads"] * told["attention_head_dim"],
        "blocks": told["num_layers"],
        "heads": told["num_attention_heads"],
        "patch": told["patch_size"],
        "out_channels": told.get("out_channels") or told["in_channels"],
        "classes": len(placing.need(state, label, 2)) if label in state else None,
        "frequency_shift": 1,
        "eps_mlp": told["norm_eps"],
    }


def imported(state: State, config: dict[str, Any], scheduler: dict[str, Any]) -> Imported:
    """A `DiTTransformer2DModel` as parameters of `nn.dit.DiT` and a card, whose label is the null one.

    Args: `state`: its tensors; `config`: config.json; `scheduler`: scheduler_config.json.

    Raises ValueError for another topology, schedule or channel count, with both values.
    """
    check_transformer(config)
    state = to_official(state)
    return _card(state, architecture_fields(state, config), config.get("sample_size", 32), scheduler)


def official(state: State, heads: int | None = None) -> Imported:
    """A state dict of facebookresearch/DiT as parameters of `nn.dit.DiT` and a card; its positions tell its side.

    Args: `heads`: of the attention, which the shapes hide; by default those of the published size of so many channels.

    Raises ValueError where they are not known, and for a tensor that is missing, left over or of another shape.
    """
    kernel = placing.need(state, "x_embedder.proj.weight", 4)
    width, channels, patch, _ = kernel.shape
    known = {channels: heads for _, channels, heads in dit.SIZES.values()}
    if heads is None and width not in known:
        raise ValueError(f"the transformer has {width} channels, which no published one has; give --heads=N")
    label = "y_embedder.embedding_table.weight"
    fields = {
        "name": "dit",
        "channels": width,
        "blocks": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        "heads": known.get(width) if heads is None else heads,
        "patch": patch,
        "out_channels": len(placing.need(state, "final_layer.linear.weight", 2)) // patch**2,
        "classes": len(placing.need(state, label, 2)) if label in state else None,
    }
    side = round(placing.need(state, "pos_embed", 3).shape[1] ** 0.5)
    return _card(state, fields, side * patch, {})


def _card(state: State, fields: dict[str, Any], size: int, scheduler: dict[str, Any]) -> Imported:
    trained, prediction = diffusers.process(scheduler)
    kernel = placing.need(state, "x_embedder.proj.weight", 4)
    channels = kernel.shape[1]
    net = cards.build_network(fields, "the checkpoint's network")
    params = placing.fill(net, _patched(state), official_name, channels)
    card = {
        "name": "dit",
        "family": "DiT (facebookresearch/DiT)",
        "architecture": fields,
        "parametrisation": {"parametrisation": prediction, "learned_variance": fields["out_channels"] == 2 * channels},
        "process": trained,
        "schedule": f"{trained['kind']} beta from {trained['beta_min']:g} to {trained['beta_max']:g}, 1000 steps",
        "shape": [size, size, channels],
    }
    if fields["classes"] is not None:
        card |= {"given": {"label": fields["classes"] - 1}, "label_null": fields["classes"] - 1}
    return Imported(params, card)

r"""diffusers' `UNet2DModel`: a folder of `config.json`, weights as safetensors, and the scheduler's config.

Its blocks are DDPM's and ADM's under other names, so the tensors are renamed to ADM's and read by `convert.adm`:
q, k and v are stacked in the order (3, heads, d), and a sine-first embedding becomes a permutation of the first dense
layer's inputs.

Source: huggingface/diffusers, `UNet2DModel` and its configs (google/ddpm-cifar10-32, google/ddpm-celebahq-256); the
conversion is original.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffinv import schema
from diffinv.schema import Schema, either, exactly, number, several, switch, text, whole
from diffinv.weights import cards
from diffinv.weights.convert import adm, placing
from diffinv.weights.convert.placing import Imported, State

REQUIRED = {
    "act_fn": ("silu", "swish"),
    "time_embedding_type": ("positional",),
    "center_input_sample": (False,),
    "mid_block_scale_factor": (1, 1.0),
    "class_embed_type": (None,),
    "attention_legacy_order": (False,),
    "add_attention": (True,),
}
BLOCKS = {"DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out", "proj_attn": "proj_out"}
QKV = {"to_q": 0, "query": 0, "to_k": 1, "key": 1, "to_v": 2, "value": 2}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}

CONFIG: Schema = {
    "_class_name": text(),
    "sample_size": whole(low=1, high=8192),
    "layers_per_block": whole(low=1, high=64),
    "norm_num_groups": whole(low=1, high=8192),
    "norm_eps": number(above=0),
    "attention_head_dim": either(exactly(None, "null"), whole(low=1, high=8192)),
    "downsample_padding": whole(low=0, high=1),
    "freq_shift": whole(low=0, high=1),
    "flip_sin_to_cos": switch(),
    "down_block_types": several(text(), most=12),
    "up_block_types": several(text(), most=12),
}
SCHEDULER: Schema = {
    "_class_name": text(),
    "beta_schedule": text(),
    "prediction_type": text(),
    "beta_start": number(above=0, below=1),
    "beta_end": number(above=0, below=1),
    "num_train_timesteps": whole(low=1),
}


def _require(known: Schema, config: dict[str, Any], name: str) -> None:
    """ValueError where a field that matters here is of another type; the others are diffusers' own affair."""
    schema.require(known, {field: config[field] for field in known if field in config}, name, partial=True)


def _place(side: str, block: int, kind: str, index: int, layers: int, attends: bool) -> str:
    """ADM's name of member `kind`.`index` of a block."""
    if side == "mid_block":
        return f"middle_block.{2 * index if kind == 'resnets' else 1}"
    first = 1 + block * (layers + 1) if side == "down_blocks" else block * (layers + 1)
    stem = "input_blocks" if side == "down_blocks" else "output_blocks"
    if kind == "downsamplers":
        return f"{stem}.{first + layers}.0"
    if kind == "upsamplers":
        return f"{stem}.{first + layers}.{1 + attends}"
    return f"{stem}.{first + index}.{int(kind == 'attentions')}"


def _part(kind: str, rest: str) -> str:
    """ADM's name inside a member; the strided and the upsampling convolution are `op` and `conv`."""
    if rest == "conv":
        return "op" if kind == "downsamplers" else "conv"
    known = ATTENTION if kind == "attentions" else RESNET
    return known.get(rest, rest)


def _renamed(state: State, layers: int) -> Iterator[tuple[str, np.ndarray]]:
    pattern = re.compile(r"(mid_block|down_blocks|up_blocks)\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)\.(weight|bias)")
    attending = {name.split(".")[1] for name in state if re.match(r"up_blocks\.\d+\.attentions\.", name)}
    for name, value in state.items():
        if match := pattern.fullmatch(name):
            side, block, kind, index, rest, leaf = match.groups()
            place = _place(side, int(block or 0), kind, int(index), layers, block in attending)
            yield f"{place}.{_part(kind, rest)}.{leaf}", value
        else:
            stem, _, leaf = name.rpartition(".")
            yield f"{ENDS.get(stem, stem)}.{leaf}", value


def stacked_qkv(state: State) -> State:
    """q, k and v as one `qkv`, in the order (3, heads, d). Raises ValueError where one of them is missing."""
    out: State = {}
    parts: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for name, value in state.items():
        stem, part, leaf = (["", ""] + name.rsplit(".", 2))[-3:]
        if part in QKV:
            parts.setdefault((stem, leaf), {})[QKV[part]] = value
        else:
            out[name] = value
    for (stem, leaf), found in parts.items():
        if len(found) != 3:
            raise ValueError(f"{stem} has {len(found)} of q, k and v; fetch the checkpoint again")
        out[f"{stem}.qkv.{leaf}"] = np.concatenate([found[i] for i in range(3)])
    return out


def to_adm(state: State, config: dict[str, Any]) -> State:
    """The tensors under ADM's names, cosines first."""
    state = stacked_qkv(dict(_renamed(state, config.get("layers_per_block", 2))))
    name = "time_embed.0.weight"
    if name in state and not config.get("flip_sin_to_cos", True):
        if placing.need(state, name, 2).shape[1] % 2:
            raise ValueError(f"{name} has shape {state[name].shape}; half of its inputs are sines: fetch it again")
        sines, cosines = np.split(state[name], 2, axis=1)
        state[name] = np.concatenate([cosines, sines], axis=1)
    return state


def check_config(config: dict[str, Any]) -> None:
    """Raises ValueError for a `config.json` of another topology: the field, its value and what is supported."""
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(f"config.json is of a {config['_class_name']}; UNet2DModel is supported")
    for field, allowed in REQUIRED.items():
        if config.get(field, allowed[0]) not in allowed:
            raise ValueError(f"config.json has {field} = {config[field]!r}; supported is {allowed[0]!r}")
    _require(CONFIG, config, "config.json")
    used = {*config.get("down_block_types", ()), *config.get("up_block_types", ())}
    if used - BLOCKS:
        raise ValueError(f"config.json has the blocks {sorted(used - BLOCKS)}; supported are {sorted(BLOCKS)}")
    if "sample_size" not in config:
        raise ValueError("config.json.sample_size is missing; give a whole number")


def process(config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The card's process and parametrisation, of a scheduler's config. Raises ValueError for another schedule."""
    _require(SCHEDULER, config, "scheduler_config.json")
    kind = config.get("_class_name", "")
    if "Sde" in kind or "Karras" in kind:
        raise ValueError(f"the scheduler is {kind}; checkpoints of a discrete schedule of betas (DDPM) are supported")
    schedule, prediction = config.get("beta_schedule", "linear"), config.get("prediction_type", "epsilon")
    if schedule not in SCHEDULES or config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
        raise ValueError(f"the scheduler's betas are {schedule!r} or its own; supported are {', '.join(SCHEDULES)}")
    if prediction not in PREDICTIONS:
        raise ValueError(f"the scheduler has prediction_type = {prediction!r}; known are {', '.join(PREDICTIONS)}")
    steps = config.get("num_train_timesteps", 1000)
    if steps != 1000:
        raise ValueError(f"the scheduler has {steps} steps, and 1000 are supported; use a network of 1000 steps")
    ends = {"beta_min": config.get("beta_start", 1e-4), "beta_max": config.get("beta_end", 0.02)}
    return {"name": "discrete", "kind": SCHEDULES[schedule], "steps": steps, **ends}, PREDICTIONS[prediction]


def architecture_fields(found: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The card's `architecture`. Raises ValueError where weights and config disagree, with both values."""
    widths = [int(found["channels"] * m) for m in found["multipliers"]]
    stated = {"in_channels": 3, "out_channels": 3, "block_out_channels": (224, 448, 672, 896), "layers_per_block": 2}
    seen = {"in_channels": found["in_channels"], "out_channels": found["out_channels"], "block_out_channels": widths}
    for field, value in {**seen, "layers_per_block": found["blocks"]}.items():
        if (want := config.get(field, stated[field])) not in (value, tuple(widths)):
            raise ValueError(f"the weights have {field} = {value}, config.json says {want}; they are not of one model")
    size = config.get("attention_head_dim", 8)
    return {
        "name": "unet",
        **{key: value for key, value in found.items() if key != "in_channels"},
        **({"heads": 1} if size is None else {"head_channels": size}),
        "legacy_attention": False,
        "resample_convs": not found["resample_blocks"],
        "corner_padding": config.get("downsample_padding", 1) == 0,
        "frequency_shift": int(config.get("freq_shift", 0)),
        "groups": config.get("norm_num_groups", 32),
        "smallest_group": 1,
        "eps": config.get("norm_eps", 1e-5),
    }


def imported(state: State, config: dict[str, Any], scheduler: dict[str, Any]) -> Imported:
    """A `UNet2DModel` as parameters of `nn.unet.UNet` and a card.

    Args:
      state: its tensors; config: config.json; scheduler: scheduler_config.json.

    Raises ValueError for another topology, schedule or channel count, with both values.
    """
    check_config(config)
    trained, prediction = process(scheduler)
    state = to_adm(state, config)
    found = adm.detect(state)
    fields, learned = architecture_fields(found, config), adm.check_channels(found)
    net = cards.build_network(fields, "the checkpoint's network")
    params = placing.fill(net, state, adm.torch_name, found["in_channels"])
    card = {
        "name": "diffusers",
        "family": "UNet2DModel (huggingface/diffusers)",
        "architecture": fields,
        "parametrisation": {"parametrisation": prediction, "learned_variance": learned},
        "process": trained,
        "schedule": f"{trained['kind']} beta from {trained['beta_min']:g} to {trained['beta_max']:g}, 1000 steps",
        "shape": [config["sample_size"], config["sample_size"], found["in_channels"]],
    }
    return Imported(params, card)


def read_model(folder: Path, limit: int | None = None) -> tuple[State, dict[str, Any]]:
    """`(state, config)` of a model's folder, or of the `unet` or `transformer` of a pipeline's.

    Raises FileNotFoundError, ValueError for what is missing or damaged.
    """
    inner = next(
        (folder / kind for kind in ("unet", "transformer") if (folder / kind / "config.json").is_file()), folder
    )
    config = placing.read_json(inner / "config.json")
    names = [inner / f"diffusion_pytorch_model.{kind}" for kind in ("safetensors", "bin")]
    state, _ = placing.read_state(next((name for name in names if name.is_file()), names[0]), limit=limit)
    return state, config


def read_scheduler(folder: Path, schedule: str | None = None) -> dict[str, Any]:
    """scheduler_config.json of a downloaded folder; `schedule` where it has none.

    Raises FileNotFoundError, ValueError for what is missing, damaged or of another schedule than the given one.
    """
    places = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    place = next((path for path in places if path.is_file()), None)
    if place is None:
        if schedule is None:
            raise FileNotFoundError(f"no file {places[1]}; fetch it too, or give --schedule=linear where you know it")
        names_back = {value: key for key, value in SCHEDULES.items()}
        return {"beta_schedule": names_back.get(schedule, schedule)}
    scheduler = placing.read_json(place)
    if schedule not in (None, SCHEDULES.get(scheduler.get("beta_schedule", "linear"))):
        raise ValueError(f"schedule is {schedule}, {place} says {scheduler.get('beta_schedule')}; leave schedule out")
    return scheduler

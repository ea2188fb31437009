r"""ADM checkpoints: OpenAI's guided-diffusion, the FFHQ network of DPS, and what improved-diffusion left.

A state dict shows widths, blocks, attention levels, labels and the learned variance. It does not show the attention
heads, the order of their channels, the noise schedule and the native size: those come from a preset, which is
recognised by its shapes, or must be given.

Source: Dhariwal & Nichol 2021, arXiv:2105.05233, and the flags in openai/guided-diffusion's README.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from diffinv.describe import described
from diffinv.weights import cards
from diffinv.weights.convert import placing
from diffinv.weights.convert import schedule as schedules
from diffinv.weights.convert.placing import Imported, State


@described
class Preset(NamedTuple):
    """A published network: what the shapes of its weights show, and what they hide.

    Attributes:
      visible: fields of `UNet` that the shapes show.
      size: the native side of a picture, in pixels.
      head_channels: channels of an attention head, or None where `heads` is fixed.
      heads: attention heads, or None where `head_channels` is fixed.
      new_attention_order: whether q, k and v come before the heads among the channels.
      schedule: of beta, by its name.
    """

    visible: dict[str, Any]
    size: int
    head_channels: int | None = 64
    heads: int | None = None
    new_attention_order: bool = False
    schedule: str = "linear"


def _visible(channels: int, multipliers: tuple, blocks: int, attention: tuple, classes: int | None) -> dict[str, Any]:
    fields = {"channels": channels, "multipliers": multipliers, "blocks": blocks, "attention": attention}
    return {**fields, "classes": classes, "out_channels": 6}


PRESETS = {
    "ffhq256": Preset(_visible(128, (1, 1, 2, 2, 4, 4), 1, (16,), None), 256),
    "imagenet256_uncond": Preset(_visible(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), None), 256),
    "imagenet256": Preset(_visible(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 1000), 256),
    "imagenet64": Preset(
        _visible(192, (1, 2, 3, 4), 3, (2, 4, 8), 1000), 64, new_attention_order=True, schedule="cosine"
    ),
    "imagenet128": Preset(_visible(256, (1, 1, 2, 3, 4), 2, (4, 8, 16), 1000), 128, head_channels=None, heads=4),
    "imagenet512": Preset(_visible(256, (0.5, 1, 1, 2, 2, 4, 4), 2, (16, 32, 64), 1000), 512),
    "demo32": Preset(_visible(32, (1, 2), 1, (2,), None), 32, head_channels=16),
}


def torch_name(path: tuple[str, ...]) -> str:
    """("params", "input_blocks_3_0", "in_layers_2", "kernel") to "input_blocks.3.0.in_layers.2.weight"."""
    *modules, leaf = path[1:]
    dotted = ".".join(re.sub(r"_(?=\d)", ".", name) for name in modules)
    return f"{dotted}.{'bias' if leaf == 'bias' else 'weight'}"


def _outputs(state: State) -> list[set[str]]:
    """For each output block, the kinds of its members after the first: "attention", "block" or "conv"."""
    found: dict[int, set[str]] = {}
    kinds = {"qkv.weight": "attention", "in_layers.0.weight": "block", "conv.weight": "conv"}
    for name in state:
        if match := re.fullmatch(r"output_blocks\.(\d+)\.(\d+)\.(.*)", name):
            members = found.setdefault(int(match[1]), set())
            if int(match[2]) and match[3] in kinds:
                members.add(kinds[match[3]])
    return [found[i] for i in sorted(found)]


def detect(state: State) -> dict[str, Any]:
    """The fields of `UNet` that a state dict's names and shapes show; `in_channels` too.

    Raises ValueError where it is no ADM U-Net.
    """
    outputs = _outputs(state)
    ups = [i for i, members in enumerate(outputs) if members & {"block", "conv"}]
    levels = len(ups) + 1
    required = (
        "time_embed.0.weight",
        "input_blocks.0.0.weight",
        "input_blocks.1.0.emb_layers.1.weight",
        "out.2.weight",
    )
    missing = [name for name in required if name not in state]
    if missing or not outputs or len(outputs) % levels:
        why = f"{missing[0]} is missing" if missing else f"{len(outputs)} output blocks do not make {levels} levels"
        raise ValueError(f"the state dict is no ADM U-Net: {why}; its first name is {next(iter(state), None)!r}")
    blocks = len(outputs) // levels - 1
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    unknown = [f"input_blocks.{i}.0.in_layers.2.weight" for i in firsts]
    if absent := [name for name in unknown if name not in state]:
        raise ValueError(
            f"the state dict is no ADM U-Net of {levels} levels of {blocks} blocks: {absent[0]} is missing"
        )
    need = lambda name, axes: placing.need(state, name, axes).shape
    channels = need("time_embed.0.weight", 2)[1]
    widths = [need(name, 4)[0] for name in unknown]
    ratios = [width / channels for width in widths]
    return {
        "channels": channels,
        "multipliers": tuple(int(ratio) if ratio == int(ratio) else ratio for ratio in ratios),
        "blocks": blocks,
        "attention": tuple(2**i for i, n in enumerate(firsts) if f"input_blocks.{n}.1.qkv.weight" in state),
        "classes": need("label_emb.weight", 2)[0] if "label_emb.weight" in state else None,
        "out_channels": need("out.2.weight", 4)[0],
        "in_channels": need("input_blocks.0.0.weight", 4)[1],
        "film": need("input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        "resample_blocks": not any("conv" in members for members in outputs),
        **({"scalar_label": True} if "label_emb.0.weight" in state else {}),
    }


def recognise(found: dict[str, Any], name: str | None = None) -> tuple[str, Preset] | None:
    """The preset `name`, or without a name the one of the shapes `found`; None for "none" and where there is none.

    Raises ValueError with both values of what differs.
    """
    if name == "none":
        return None
    if name is None:
        fits = [(n, p) for n, p in PRESETS.items() if {k: found[k] for k in p.visible} == p.visible]
        return fits[0] if fits else None
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; known are {', '.join(PRESETS)}")
    for field, value in PRESETS[name].visible.items():
        if found[field] != value:
            raise ValueError(f"the checkpoint has {field} = {found[field]}, preset {name} has {value}; choose another")
    return name, PRESETS[name]


def _agreed(field: str, given: Any, preset: Any, name: str) -> Any:
    if given is not None and preset is not None and given != preset:
        raise ValueError(
            f"{field} is {given}, preset {name} was trained with {preset}; leave {field} out, or give --preset=none"
        )
    return preset if given is None else given


def hidden(
    found: dict[str, Any],
    preset: str | None = None,
    size: int | None = None,
    head_channels: int | None = None,
    heads: int | None = None,
    new_attention_order: bool | None = None,
    schedule: str | None = None,
) -> tuple[str | None, Preset]:
    """What the shapes hide, by preset or as given; ValueError for what is missing or contradicts the preset."""
    known = recognise(found, preset)
    if known is not None:
        name, values = known
        _agreed("size", size, values.size, name)
        _agreed("schedule", schedule, values.schedule, name)
        _agreed("new_attention_order", new_attention_order, values.new_attention_order, name)
        if (head_channels, heads) != (None, None):
            _agreed("(head_channels, heads)", (head_channels, heads), (values.head_channels, values.heads), name)
        return known
    if size is None or schedule is None or (head_channels is None) == (heads is None):
        shown = {field: found[field] for field in ("channels", "multipliers", "blocks", "attention", "classes")}
        raise ValueError(
            f"no preset has the shapes {shown}; give --size, --schedule, and --head_channels or --heads, which "
            "the file does not show"
        )
    return None, Preset({}, size, head_channels, heads, bool(new_attention_order), schedule)


def architecture_fields(found: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """The card's `architecture`: every field that is not UNet's default."""
    fields = {key: value for key, value in found.items() if key != "in_channels"}
    fields |= {"legacy_attention": not preset.new_attention_order, "smallest_group": 1}
    fields |= {"heads": preset.heads} if preset.head_channels is None else {"head_channels": preset.head_channels}
    fields |= {"resample_convs": True} if not found["resample_blocks"] else {}
    return {"name": "unet", **fields}


def check_channels(found: dict[str, Any]) -> bool:
    """Whether the variance is learned. Raises ValueError where the output fits neither the input nor twice it."""
    inside, out = found["in_channels"], found["out_channels"]
    if out not in (inside, 2 * inside):
        raise ValueError(
            f"the network has {inside} input and {out} output channels; a prior has {inside} or {2 * inside}"
        )
    return out == 2 * inside


def imported(state: State, **options: Any) -> Imported:
    """An ADM state dict as parameters of `nn.unet.UNet` and a card; `options` as in `hidden`.

    Source: openai/guided-diffusion; the conversion is original. Betas beside the weights are checked and left out.
    Raises ValueError for another architecture, schedule or channel count, with both values.
    """
    state, betas = dict(state), state.get("betas")
    state.pop("betas", None)
    found = detect(state)
    name, preset = hidden(found, **options)
    process = {"name": "discrete", "kind": preset.schedule, "steps": 1000}
    if betas is not None:
        schedules.check_betas(np.asarray(betas, np.float64), process)
    learned = check_channels(found)
    fields = architecture_fields(found, preset)
    net = cards.build_network(fields, "the checkpoint's network")
    params = placing.fill(net, state, torch_name, found["in_channels"])
    card = {
        "name": name or "adm",
        "family": "ADM (openai/guided-diffusion)",
        "preset": name,
        "architecture": fields,
        "parametrisation": {"parametrisation": "eps", "learned_variance": learned},
        "process": process,
        "schedule": f"{preset.schedule} beta, 1000 steps",
        "shape": [preset.size, preset.size, found["in_channels"]],
    }
    return Imported(params, card)

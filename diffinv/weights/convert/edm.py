r"""EDM's networks (Karras et al. 2022): DDPM++ and NCSN++ (`SongUNet`) and ADM (`DhariwalUNet`), preconditioned.

With F the network and D its denoiser (table 1), of x = x_0 + sigma noise:

    EDMPrecond   D = c_skip x + c_out F(c_in x, log(sigma) / 4)
    VPPrecond    D = x - sigma F(x / sqrt(1 + sigma^2), 999 t),   t the time of VP at that sigma: F is its noise
    VEPrecond    D = x + sigma F(x, log(sigma / 2)):              -F is its noise

so that the last two are "eps" under their own processes, VE with the sign of its last layer turned.

They are published as pickles of classes, which run code and are refused; docs/bring-your-own-prior.md gives the short
program that writes a state dict and, beside it, a JSON file of the fields that it does not show.

Source: Karras et al. 2022, arXiv:2206.00364, and the names in NVlabs/edm; the conversion is original.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from diffinv import schema
from diffinv.schema import Schema, either, exactly, number, text, whole
from diffinv.weights import cards
from diffinv.weights.convert import adm, placing
from diffinv.weights.convert.placing import Imported, State

BLOCK = {
    "norm0": "0.in_layers.0",
    "conv0": "0.in_layers.2",
    "affine": "0.emb_layers.1",
    "norm1": "0.out_layers.0",
    "conv1": "0.out_layers.3",
    "skip": "0.skip_connection",
    "norm2": "1.norm",
    "qkv": "1.qkv",
    "proj": "1.proj_out",
}
ENDS = {"map_layer0": "time_embed.0", "map_layer1": "time_embed.2", "out_norm": "out.0", "out_conv": "out.2"}

BETAS, SIGMAS = ("beta_d", "beta_min"), ("sigma_min", "sigma_max")
FIELDS: Schema = {
    "class": text(),
    "sigma_data": either(exactly(None, "null"), number(above=0, high=1e4)),
    "img_resolution": whole(low=1, high=8192),
    "channels_per_head": whole(low=1, high=8192),
    **{name: either(exactly(None, "null"), number(above=0, high=1e6)) for name in BETAS + SIGMAS},
    "M": either(exactly(None, "null"), exactly(1000, "1000")),
}


def resolutions(state: State) -> list[int]:
    """Of the levels, largest first."""
    found = {int(match[1]) for name in state if (match := re.match(r"enc\.(\d+)x\1_", name))}
    return sorted(found, reverse=True)


def _reordered(value: np.ndarray, heads: int) -> np.ndarray:
    """qkv from EDM's channel order (heads, d, 3) to (heads, 3, d)."""
    return value.reshape(heads, -1, 3, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def _heads(state: State, head_channels: int | None) -> State:
    """Every qkv reordered, for heads of `head_channels`, or one head."""

    def place(name: str, value: np.ndarray) -> np.ndarray:
        if not re.search(r"\.qkv\.(weight|bias)$", name):
            return value
        if value.ndim < 1 or len(value) % 3 or not len(value):
            raise ValueError(f"{name} has shape {value.shape}; q, k and v are a third each: fetch the checkpoint again")
        count = max(1, len(value) // 3 // head_channels) if head_channels else 1
        if len(value) % (3 * count):
            raise ValueError(f"{name} has shape {value.shape}, which {count} heads do not divide; check the fields")
        return _reordered(value, count)

    return {name: place(name, value) for name, value in state.items()}


def _taps(state: State, residual: bool) -> tuple[int, ...]:
    """The resampling filter, from its buffer."""
    for name, value in state.items():
        if name.endswith(".resample_filter"):
            row = value.reshape(value.shape[-2:]).sum(axis=0)
            if not (np.isfinite(row).all() and (row > 0).all()):
                raise ValueError(f"{name} is {schema.shown(row.tolist())}; a filter's taps are above 0")
            return tuple(int(tap) for tap in np.round(row / row.min()))
    return (1, 3, 3, 1) if residual else (1, 1)


def detect(state: State) -> dict[str, Any]:
    """The fields of `SongUNet` that a state dict shows, all but the head count of 1."""
    sizes = resolutions(state)
    need = lambda name, axes: placing.need(state, name, axes).shape
    channels = need(f"enc.{sizes[0]}x{sizes[0]}_conv.weight", 4)[0]
    residual = any("aux_residual" in name for name in state)
    count = sum(bool(re.fullmatch(rf"enc\.{sizes[0]}x{sizes[0]}_block\d+\.conv0\.weight", name)) for name in state)
    return {
        "resolution": sizes[0],
        "channels": channels,
        "multipliers": tuple(need(f"enc.{n}x{n}_block0.conv0.weight", 4)[0] // channels for n in sizes),
        "blocks": count,
        "attention": tuple(n for n in sizes if f"enc.{n}x{n}_block0.qkv.weight" in state),
        "out_channels": need(f"dec.{sizes[0]}x{sizes[0]}_aux_conv.weight", 4)[0],
        "noise_channels": need("map_layer0.weight", 2)[1] // channels,
        "fourier": "map_noise.freqs" in state,
        "residual": residual,
        "taps": _taps(state, residual),
        "classes": need("map_label.weight", 2)[1] if "map_label.weight" in state else None,
    }


def song_name(path: tuple[str, ...]) -> str:
    """("params", "enc_16x16_block0", "conv0", "kernel") to "enc.16x16_block0.conv0.weight"."""
    *modules, leaf = path[1:]
    stem = re.sub(r"^(enc|dec)_", r"\1.", ".".join(modules))
    return f"{stem}.{leaf if leaf in ('bias', 'freqs') else 'weight'}"


def to_adm(state: State) -> State:
    """A `DhariwalUNet`'s tensors under ADM's names; its upsampling block closes the level above."""
    sizes = resolutions(state)
    names = lambda side: {name.split(".")[1] for name in state if name.startswith(f"{side}.")}
    blocks = sum(name.startswith(f"{sizes[0]}x{sizes[0]}_block") for name in names("enc"))
    level = lambda stem: sizes.index(int(stem.split("x")[0]))
    attends = {level(name.split(".")[1]) for name in state if re.match(r"dec\..*_block.*\.qkv", name)}

    def place(side: str, stem: str, part: str) -> str:
        kind, depth = stem.split("_")[1], level(stem)
        if kind == "conv":
            return "input_blocks.0.0"
        if kind in ("in0", "in1"):
            index = {"in0": {"0": "0", "1": "1"}, "in1": {"0": "2"}}[kind]
            return f"middle_block.{index[BLOCK[part][0]]}{BLOCK[part][1:]}"
        if kind == "down":
            return f"input_blocks.{depth * (blocks + 1)}.{BLOCK[part]}"
        index = int(kind.removeprefix("block")) if kind != "up" else -1
        if side == "enc":
            return f"input_blocks.{1 + depth * (blocks + 1) + index}.{BLOCK[part]}"
        first = (len(sizes) - 1 - depth) * (blocks + 1)
        if kind == "up":
            return f"output_blocks.{first - 1}.{1 + (depth + 1 in attends)}{BLOCK[part][1:]}"
        return f"output_blocks.{first + index}.{BLOCK[part]}"

    out = {}
    for name, value in state.items():
        head, *rest, leaf = name.split(".")
        if head in ("enc", "dec"):
            out[f"{place(head, rest[0], rest[1] if len(rest) > 1 else '')}.{leaf}"] = value
        elif name == "map_label.weight":
            out["label_emb.weight"] = value.T
        else:
            out[f"{ENDS.get(head, head)}.{leaf}"] = value
    return out


def _require_names(state: State) -> None:
    """ValueError for a tensor whose name is not one of EDM's."""
    part = "|".join(BLOCK)
    inner = rf"(enc|dec)\.\d+x\d+_(conv|(in0|in1|up|down|block\d+)\.({part})|aux_\w+)\.(weight|bias|resample_filter)"
    for name in state:
        known = re.fullmatch(inner, name) or re.fullmatch(r"(map|out)_\w+\.\w+", name)
        if not known:
            raise ValueError(f"{schema.shown(name)} is not a name of EDM's networks; save their state_dict() alone")


def _checked(fields: dict[str, Any], resolution: int) -> None:
    told = {name: fields[name] for name in FIELDS if name in fields}
    schema.require(FIELDS, told, "the JSON beside the weights", partial=True)
    kind, size = fields.get("class"), fields.get("img_resolution", resolution)
    if kind not in PRECONDITIONINGS:
        known = ", ".join(PRECONDITIONINGS)
        raise ValueError(f"the fields beside the weights have class = {kind!r}; known are {known}")
    if size != resolution:
        raise ValueError(f"the fields say img_resolution = {size}, the weights {resolution}; they are not of one model")


def _edm(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "parametrisation": {"parametrisation": "edm", "sigma_data": float(fields.get("sigma_data") or 0.5)},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "schedule": "EDM noise levels, ln sigma ~ N(-1.2, 1.2^2)",
    }


def _vp(fields: dict[str, Any]) -> dict[str, Any]:
    rise, least = (float(fields.get(name) or usual) for name, usual in zip(BETAS, (19.9, 0.1)))
    return {
        "parametrisation": {"parametrisation": "eps", "condition": "score_sde"},
        "process": {"name": "VP", "beta_min": least, "beta_max": least + rise},
        "schedule": "variance preserving, of uniform times",
    }


def _ve(fields: dict[str, Any]) -> dict[str, Any]:
    low, high = (float(fields.get(name) or usual) for name, usual in zip(SIGMAS, (0.02, 100.0)))
    return {
        "parametrisation": {"parametrisation": "eps", "condition": "log_half_sigma"},
        "process": {"name": "VE", "sigma_min": low, "sigma_max": high},
        "schedule": "variance exploding, of geometric noise levels",
    }


PRECONDITIONINGS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "EDMPrecond": _edm,
    "VPPrecond": _vp,
    "VEPrecond": _ve,
}
"""What a card says of each class: parametrisation, process, schedule."""


def _signed(state: State, resolution: int, kind: str) -> State:
    """VE's network with its last layer's sign turned: the noise, as the others predict it."""
    last = (f"dec.{resolution}x{resolution}_aux_conv.", "out_conv.") if kind == "VEPrecond" else ()
    return {name: -value if name.startswith(last) else value for name, value in state.items()}


def imported(state: State, fields: dict[str, Any]) -> Imported:
    """An EDM state dict as parameters of `nn.song.SongUNet` or `nn.unet.UNet`, and a card.

    Args:
      state: of a preconditioning, or of the network in it.
      fields: what the state does not show: "class" (one of `PRECONDITIONINGS`), "img_resolution", for EDM "sigma_data",
        for VP "beta_d" and "beta_min", for VE "sigma_min" and "sigma_max", and, for ADM, "channels_per_head".

    Raises ValueError for another architecture, preconditioning or channel count, with both values.
    """
    state = placing.without(state, "model.")
    if not (sizes := resolutions(state)) or "map_layer0.weight" not in state:
        raise ValueError(f"the state dict is no network of EDM: its first name is {next(iter(state), None)!r}")
    _checked(fields, sizes[0])
    _require_names(state)
    build = _adm if "out_conv.weight" in state else _song
    params, architecture, inside = build(_signed(state, sizes[0], fields["class"]), fields)
    if (out := architecture["out_channels"]) != inside:
        raise ValueError(f"the network has {inside} input and {out} output channels; a preconditioned one has as many")
    card = {
        "name": "edm",
        "family": f"EDM (NVlabs/edm), {architecture['name']}",
        "architecture": architecture,
        "shape": [sizes[0], sizes[0], inside],
        **PRECONDITIONINGS[fields["class"]](fields),
    }
    return Imported(params, card)


def _weights(state: State) -> State:
    """Without what only training uses, and without the filters."""
    unused = lambda name: name.endswith(".resample_filter") or name.startswith("map_augment.")
    return {name: value for name, value in state.items() if not unused(name)}


def _song(state: State, fields: dict[str, Any]) -> tuple[Any, dict[str, Any], int]:
    found = detect(state)
    inside = state[f"enc.{found['resolution']}x{found['resolution']}_conv.weight"].shape[1]
    fields = {"name": "song", **found}
    net = cards.build_network(fields, "the checkpoint's network")
    return placing.fill(net, _heads(_weights(state), None), song_name, inside), fields, inside


def _adm(state: State, fields: dict[str, Any]) -> tuple[Any, dict[str, Any], int]:
    width = int(fields.get("channels_per_head", 64))
    state = to_adm(_heads(_weights(state), width))
    found = adm.detect(state)
    inside = found.pop("in_channels")
    found |= {"name": "unet", "head_channels": width}
    net = cards.build_network(found, "the checkpoint's network")
    return placing.fill(net, state, adm.torch_name, inside), found, inside

"""One door for public checkpoints: what family a file is of, and the card's account of where it came from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from diffinv.weights.convert import adm, autoencoder, diffusers, dit, edm, edm2, onnx, placing, score_sde, terrain
from diffinv.weights.convert.placing import Imported, State

AVERAGED = re.compile(r"(?<![a-z])ema(?![a-z])", re.IGNORECASE)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def family(state: State) -> str:
    """ "adm", "edm", "edm2", "score_sde", "dit" or "diffusers", by the names. Raises ValueError where it is none."""
    marks = {"adm": "input_blocks.0.0.weight", "edm": "map_layer0.weight", "dit": "x_embedder.proj.weight"}
    marks |= {"diffusers": "conv_in.weight", "edm2": edm2.MARK}
    if any(score_sde.MARK.match(name) for name in state):
        return "score_sde"
    for name, mark in marks.items():
        if {mark, f"model.{mark}", f"unet.{mark}"} & state.keys():
            return name
    raise ValueError(
        f"no known family of networks has the tensor {next(iter(state), None)!r}; known are ADM (input_blocks...), EDM "
        "(map_layer0...), EDM2 (emb_noise...), score_sde (all_modules...), DiT (x_embedder...) and diffusers' "
        "UNet2DModel (conv_in...)"
    )


def _refuse(options: dict[str, Any], kind: str, allowed: tuple[str, ...] = ()) -> None:
    if unused := [name for name, value in options.items() if value is not None and name not in allowed]:
        raise ValueError(f"{', '.join(unused)} given for {kind}, whose files say it themselves; leave it out")


def load_public(
    source: str | Path, chosen: str | None = None, ema: str | None = None, limit: int | None = None, **options: Any
) -> Imported:
    """A public checkpoint as parameters and card, whose `source` says file, sha256 and family.

    Args:
      source: a file (see `placing.read_state`), an ONNX file or the folder of a diffusers model.
      chosen: the name of the state dict in the file, where it holds several.
      ema: what is known of the weights' moving average, for the card.
      limit: bytes that the arrays may take, see `limits.allowance`.
      **options: what the file hides; `preset`, `size`, `head_channels`, `heads`, `new_attention_order`, `schedule`.

    Raises FileNotFoundError, and ValueError in one line for a foreign, damaged, unknown or unfitting checkpoint.
    """
    source = Path(source)
    if source.is_dir():
        _refuse(options, "a diffusers folder", ("schedule",))
        found, which, file = _folder(source, options.get("schedule"), limit), "", source
    elif source.suffix == ".onnx":
        _refuse(options, "an ONNX file")
        found, which, file = terrain.imported(onnx.read_graph(source, limit)), "", source
    else:
        state, which = placing.read_state(source, chosen, limit)
        found, file = _file(state, source, options), source
    average = ema or ("ema" if AVERAGED.search(f"{which} {source.name}") else "not said by the file")
    digest = {} if file.is_dir() else {"sha256": _digest(file)}
    origin = {"source": {"file": file.name, "weights": which or "all", "family": found.card.pop("family"), **digest}}
    layout = {1: "HWC, grey", 3: "HWC, RGB"}.get(found.card["shape"][2], "HWC")
    told = {"layout": layout} | ({} if layout == "HWC" else {"range": [-1, 1]})  # codes have no range
    return Imported(found.params, {**found.card, **told, "ema": average, **origin})


def _folder(source: Path, schedule: str | None, limit: int | None) -> Imported:
    """A diffusers folder, by what its config.json says that it is."""
    state, config = diffusers.read_model(source, limit)
    kind = config.get("_class_name", "UNet2DModel")
    if kind == "AutoencoderKL":
        _refuse({"schedule": schedule}, "an autoencoder")
        return autoencoder.imported(state, config)
    reader = dit.imported if kind == "DiTTransformer2DModel" else diffusers.imported
    return reader(state, config, diffusers.read_scheduler(source, schedule))


def _file(state: State, source: Path, options: dict[str, Any]) -> Imported:
    kind = family(state)
    if kind == "diffusers":
        raise ValueError(f"{source} is of diffusers; give its folder, which holds config.json too")
    if kind == "dit":
        _refuse(options, "a DiT file", ("heads",))
        return dit.official(placing.without(state, "model."), options.get("heads"))
    if kind == "adm":
        return adm.imported(placing.without(state, "model."), **options)
    if kind == "score_sde":
        _refuse(options, "a score_sde network", ("size",))
        return score_sde.imported(state, options.get("size"))
    _refuse(options, "an EDM network")
    reader = edm2.imported if kind == "edm2" else edm.imported
    return reader(state, placing.read_json(source.with_suffix(".json")))

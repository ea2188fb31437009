r"""DDPM++ and NCSN++ as yang-song/score_sde_pytorch saves them: modules by number, renamed to EDM's names.

    VE   D = x + sigma F(x, log(sigma / 2)),      sigma here on [-1, 1], where theirs is on [0, 1], half as large
    VP   F(x, 999 t) is the noise

which are EDM's `VEPrecond` and `VPPrecond` of the same networks, so that `edm.imported` reads what this renames.
Fourier features mean VE; the positional embedding VP, of betas 0.1 and 20: a sub-VP model looks the same and is none.
The moving average is a list without names, `placing.averaged`.

Source: Song et al. 2021, arXiv:2011.13456, and `models/ncsnpp.py`, `models/layerspp.py`, `models/ema.py` of that
repository; the conversion is original. Not read: networks of its `ddpm` blocks, and those whose output is a pyramid
(`progressive`), which have other modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffinv.weights.convert import edm, placing
from diffinv.weights.convert.placing import Imported, State

MARK = re.compile(r"(module\.)?all_modules\.\d+\.")
BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}
Modules = list[State]


def _modules(state: State) -> Modules:
    """The tensors of each module, in order."""
    found: dict[int, State] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"all_modules\.(\d+)\.(.+)", name):
            found.setdefault(int(match[1]), {})[match[2]] = value
        elif name != "sigmas":
            raise ValueError(f"{name} is no tensor of score_sde's NCSN++; save the model's state dict alone")
    return [found[i] for i in sorted(found)]


def _resamples(module: State) -> bool:
    """Whether a residual block changes the resolution: it projects its skip, and to as many channels."""
    kernel = module.get("Conv_2.weight")
    return kernel is not None and kernel.ndim == 4 and kernel.shape[0] == kernel.shape[1]


def _attention(module: State) -> State:
    """Three products in the order of EDM's one, (d, 3), and the projection; all as 1x1 convolutions."""
    need = lambda part, axes: placing.need(module, part, axes)
    weights = np.stack([need(f"NIN_{i}.W", 2).T for i in range(3)], 1)
    biases = np.stack([need(f"NIN_{i}.b", 1) for i in range(3)], 1)
    return {
        "norm2.weight": need("GroupNorm_0.weight", 1),
        "norm2.bias": need("GroupNorm_0.bias", 1),
        "qkv.weight": weights.reshape(-1, weights.shape[-1])[..., None, None],
        "qkv.bias": biases.reshape(-1),
        "proj.weight": need("NIN_3.W", 2).T[..., None, None],
        "proj.bias": need("NIN_3.b", 1),
    }


def _block(module: State) -> State:
    """A residual block's tensors under EDM's names."""
    for name in module:
        if name.partition(".")[0] not in BLOCK:
            raise ValueError(f"{name} stands where a residual block is expected: a network of another `progressive`?")
    return {
        BLOCK[stem] + dot + leaf: module[stem + dot + leaf] for stem, dot, leaf in (n.partition(".") for n in module)
    }


def to_edm(state: State, size: int) -> State:
    """Under the names of EDM's `SongUNet` of native `size`.

    Raises ValueError where the modules are not those of an NCSN++ or DDPM++ network.
    """
    modules = iter(_modules(state))
    found: State = {}

    def take(kind: str) -> State:
        if (module := next(modules, None)) is None:
            raise ValueError(f"the network ends where {kind} is expected; it is no NCSN++ or DDPM++ of score_sde")
        return module

    def put(name: str, module: State) -> None:
        found.update({f"{name}.{leaf}": value for leaf, value in module.items()})

    module = take("an embedding")
    fourier = "W" in module
    if fourier:
        found["map_noise.freqs"] = module["W"]
        module = take("an embedding")
    put("map_layer0", module)
    put("map_layer1", take("an embedding"))
    rest = [take("the first convolution"), *modules]
    put(f"enc.{size}x{size}_conv", rest.pop(0))
    for name, part in _walked(rest, size):
        put(name, part)
    return found


def _walked(rest: Modules, size: int) -> Iterator[tuple[str, State]]:
    """(EDM's name, its tensors) of every module after the first convolution."""
    moves = [i for i, module in enumerate(rest) if _resamples(module)]
    levels = 1 + len(moves) // 2
    attends = lambda: bool(rest) and "NIN_0.W" in rest[0]
    name = lambda side, level: f"{side}.{size >> level}x{size >> level}"
    blocks = sum("Conv_0.weight" in module for module in rest[: moves[0]]) if moves else 0
    if not blocks:
        raise ValueError("no residual block of these halves the resolution; the network is no NCSN++ of score_sde")

    def block(stem: str) -> Iterator[tuple[str, State]]:
        if not rest:
            raise ValueError(f"the network ends before {stem}; it is no NCSN++ or DDPM++ of score_sde")
        yield stem, _block(rest.pop(0))

    for level in range(levels):
        for i in range(blocks):
            yield from block(f"{name('enc', level)}_block{i}")
            if attends():
                yield f"{name('enc', level)}_block{i}", _attention(rest.pop(0))
        if level < levels - 1:
            yield from block(f"{name('enc', level + 1)}_down")
            if rest and "Conv2d_0.weight" in rest[0]:
                residual = rest.pop(0)
                tensors = {leaf.removeprefix("Conv2d_0."): value for leaf, value in residual.items()}
                yield f"{name('enc', level + 1)}_aux_residual", tensors
    last = levels - 1
    yield from block(f"{name('dec', last)}_in0")
    if attends():
        yield f"{name('dec', last)}_in0", _attention(rest.pop(0))
    yield from block(f"{name('dec', last)}_in1")
    for level in reversed(range(levels)):
        for i in range(blocks + 1):
            yield from block(f"{name('dec', level)}_block{i}")
        if attends():
            yield f"{name('dec', level)}_block{blocks}", _attention(rest.pop(0))
        if level:
            yield from block(f"{name('dec', level - 1)}_up")
    for end in ("aux_norm", "aux_conv"):
        if not rest:
            raise ValueError(f"the network ends before its {end}; it is no NCSN++ or DDPM++ of score_sde")
        yield f"{name('dec', 0)}_{end}", rest.pop(0)
    if rest:
        raise ValueError(f"{len(rest)} modules are left over; networks whose output is a pyramid are not read")


def _twice(sigma: Any) -> float:
    """On [-1, 1], to six digits of the file's float32."""
    return float(f"{2 * float(sigma):.6g}")


def imported(state: State, size: int | None) -> Imported:
    """A score_sde state dict as parameters of `nn.song.SongUNet`, and a card.

    Args:
      state: of the model, or of its average.
      size: side of its pictures, which the file does not show.

    Raises ValueError for another architecture, or without a size.
    """
    if size is None:
        raise ValueError("size is None; give --size, the side of the pictures, which score_sde's files do not show")
    state = placing.without(state, "module.")
    sigmas = np.asarray(state.get("sigmas", [0.01, 50.0]), np.float64)
    told: dict[str, Any] = {"class": "VPPrecond", "img_resolution": size}
    renamed = to_edm(state, size)
    if "map_noise.freqs" in renamed:
        told |= {"class": "VEPrecond", "sigma_min": _twice(sigmas.min()), "sigma_max": _twice(sigmas.max())}
    found = edm.imported(renamed, told)
    kind = "NCSN++" if "map_noise.freqs" in renamed else "DDPM++"
    return Imported(found.params, {**found.card, "name": "score_sde", "family": f"score_sde (yang-song), {kind}"})

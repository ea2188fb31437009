"""What an imported ONNX network costs beside the same network in Flax: ratios of one process, by turns.

    python -m benchmarks.networks                       a U-Net of `nn.unet`, by way of PyTorch's exporter (extra torch)
    python -m benchmarks.networks --file=TERRAIN.onnx   the terrain model of docs/terrain.md, without PyTorch
    python -m benchmarks.networks --autoencoder         both ways of a small AutoencoderKL, with diffusers

Each is timed alone, as the pullback to its input, and eight times inside one `lax.scan`, as solvers run it; an
autoencoder's halves, whose input and output differ, not inside a scan.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import adapters, weights
from diffinv.nn import unet
from diffinv.weights.convert import onnx, public

Programs = dict[str, tuple[Callable[..., Any], Any]]
SIDE, STEPS = 64, 8


def exported(folder: str) -> tuple[Programs, tuple[int, ...]]:
    """A U-Net with drawn weights: ours, and the file that PyTorch writes of its twin."""
    import torch

    from benchmarks import torch_unet

    net = unet.UNet(channels=64, multipliers=(1, 2, 2), blocks=2, attention=(4,), groups=8)
    x = jnp.zeros((SIDE, SIDE, 3), jnp.float32)
    drawn = jax.tree.map(lambda leaf: leaf + 0.02 * jax.random.normal(jax.random.key(1), leaf.shape),
                         net.init(jax.random.key(0), x, jnp.float32(0)))  # fmt: skip
    path = str(Path(folder) / "net.onnx")
    example = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1)
    named = {"input_names": ["x", "t"], "dynamo": True, "external_data": False, "verbose": False}
    torch.onnx.export(torch_unet.load(drawn, net).to(memory_format=torch.contiguous_format), example, path, **named)
    apply, params = onnx.network(path)
    return {"flax": (net.apply, drawn), "onnx": (adapters.channels_first(apply), params)}, x.shape


def published(path: str) -> tuple[Programs, tuple[int, ...]]:
    """The terrain model: as imported into our U-Net, and as its graph; both give x0."""
    prior = weights.build(*public.load_public(path))
    apply, params = onnx.network(path)
    graph = adapters.channels_first(lambda params, x, sigma: apply(params, x, sigma, jnp.full(1, 0.5, jnp.float32)))
    ours = lambda params, x, sigma: prior.denoise.replace(params=params)(x, sigma / 80)  # EDM's time, with sigma at 80
    return {"flax": (ours, prior.denoise.params), "onnx": (graph, params)}, prior.shape


def halves(folder: str) -> dict[str, tuple[Programs, tuple[int, ...]]]:
    """Encoder and decoder of diffusers' autoencoder with drawn weights: as imported, and as PyTorch writes them."""
    import torch
    from diffusers import AutoencoderKL

    from diffinv.weights import cards

    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    net = AutoencoderKL(block_out_channels=(32, 64), latent_channels=4, norm_num_groups=8, sample_size=SIDE, **kinds)
    net.eval().save_pretrained(folder)
    imported = public.load_public(folder)
    ours, half = cards.build_autoencoder(imported.card["autoencoder"]), SIDE // 2
    encoder = torch.nn.Sequential(net.encoder, net.quant_conv)
    decoder = torch.nn.Sequential(net.post_quant_conv, net.decoder)
    found = {}
    for name, part, shape in (("encode", encoder, (SIDE, SIDE, 3)), ("decode", decoder, (half, half, 4))):
        path = str(Path(folder) / f"{name}.onnx")
        example = torch.zeros(1, shape[2], *shape[:2])
        torch.onnx.export(part, (example,), path, dynamo=True, external_data=False, verbose=False)
        apply, params = onnx.network(path)
        graph = lambda params, x, t, apply=apply: apply(params, x.transpose(2, 0, 1)[None])[0, :4].transpose(1, 2, 0)
        flax = lambda params, x, t, name=name: _first(ours.apply(params, x, method=name))
        found[name] = {"flax": (flax, imported.params), "onnx": (graph, params)}, shape
    return found


def _first(output: Any) -> jax.Array:
    """The codes' mean, or the picture."""
    return jax.tree.leaves(output)[0][..., :4]


def programs(apply: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The three ways in which a network is called, jitted."""

    def scanned(params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        step = lambda x, _: (x + 0.1 * apply(params, x, t).astype(x.dtype), None)
        return jax.lax.scan(step, x, None, STEPS)[0]

    pulled = lambda params, x, t: jax.grad(lambda x: jnp.sum(apply(params, x, t) ** 2))(x)
    return {name: jax.jit(each) for name, each in (("forward", apply), ("pullback", pulled), ("scan", scanned))}


def seconds(call: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Of one call: by the clock, and of the CPUs, which other processes do not lengthen."""
    start, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(call(*arguments))
    return time.perf_counter() - start, time.process_time() - used


WAYS = ("forward", "pullback", "scan")


def compared(
    made: Programs, shape: tuple[int, ...], rounds: int, scale: float, asked: tuple[str, ...] = WAYS, label: str = ""
) -> None:
    """Prints the largest difference of the two, and the median ratio of each way."""
    x, t = scale * jax.random.normal(jax.random.key(2), shape, jnp.float32), jnp.float32(80.0)
    ways = {name: programs(apply) for name, (apply, _) in made.items()}
    for way in asked:
        run = {name: (ways[name][way], made[name][1], x, t) for name in made}
        results = [np.asarray(call(*rest)) for call, *rest in run.values()]
        gap = np.max(np.abs(results[0] - results[1])) / np.max(np.abs(results[0]))
        assert gap < 1e-3, f"{way}: the two differ by {gap:.1e} of the largest value"
        taken = []
        for turn in range(rounds):
            order = list(run)[:: -1 if turn % 2 else 1]
            taken.append({name: seconds(*run[name]) for name in order})
        clock, used = (np.median([each["onnx"][i] / each["flax"][i] for each in taken]) for i in (0, 1))
        least = min(each["flax"][0] for each in taken)
        print(f"{label}{way}: onnx / flax {clock:.2f} by the clock, {used:.2f} of CPU time, "
              f"flax {1e3 * least:.0f} ms, relative difference {gap:.0e}", flush=True)  # fmt: skip


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="", help="the terrain model's .onnx")
    parser.add_argument("--autoencoder", action="store_true", help="a small AutoencoderKL of diffusers")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.autoencoder:
            for name, (made, shape) in halves(folder).items():
                compared(made, shape, given.rounds, 1.0, WAYS[:2], f"{name}, ")
            return
        made = published(given.file) if given.file else exported(folder)
        compared(*made, given.rounds, 80.0 if given.file else 1.0)


if __name__ == "__main__":
    main()

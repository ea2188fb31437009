"""What an autoencoder's codes cost over its networks alone, and what is lost between picture and code.

    python -m benchmarks.latent [--autoencoder NAME] [--pictures 8] [--rounds 200]

`di.Codec`, which brings codes to unit variance and back, against the Flax module's `encode` and `decode`, both jitted,
on a batch of pictures: the ratio of the medians of rounds in which they take turns; goal at most 1.1. Then the PSNR of
decoded codes of the held-out satellite pictures that ship, beside that of as many principal components of squares.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import Codec, data, weights
from diffinv.metrics import image
from experiments.common import priors


def seconds(programs: dict, rounds: int) -> dict[str, float]:
    """Medians by name, each program once a round."""
    found = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in found.items()}


def timed(codec: Codec, x: jax.Array, rounds: int) -> dict[str, float]:
    """Of encoding and decoding, by the codec and by the module alone."""
    network = {"params": codec.params["params"]}
    coded = jax.jit(jax.vmap(Codec.encode, (None, 0)))
    decoded = jax.jit(jax.vmap(Codec.decode, (None, 0)))
    bare = {
        method: jax.jit(jax.vmap(lambda p, v, method=method: codec.net.apply(p, v, method=method), (None, 0)))
        for method in ("encode", "decode")
    }
    z = coded(codec, x)
    return seconds(
        {
            "encode": lambda: coded(codec, x),
            "bare encode": lambda: bare["encode"](network, x),
            "decode": lambda: decoded(codec, z),
            "bare decode": lambda: bare["decode"](network, z),
        },
        rounds,
    )


def principal(x: np.ndarray, factor: int, count: int) -> np.ndarray:
    """Pictures (N, H, W, C) by the first `count` principal components of their own squares of side `factor`."""
    n, height, width, channels = x.shape
    cut = x.reshape(n, height // factor, factor, width // factor, factor, channels).swapaxes(2, 3)
    rows = cut.reshape(-1, factor**2 * channels)
    mean = rows.mean(0)
    basis = np.linalg.svd(rows - mean, full_matrices=False)[2][:count]
    kept = mean + (rows - mean) @ basis.T @ basis
    return kept.reshape(cut.shape).swapaxes(2, 3).reshape(x.shape)


def psnr(truth: np.ndarray, found: np.ndarray) -> str:
    """Mean over the pictures, which are in [-1, 1]."""
    values = [float(image.psnr(jnp.asarray(a), jnp.clip(jnp.asarray(b), -1, 1), (-1, 1))) for a, b in zip(truth, found)]
    return f"{np.mean(values):.2f} dB, {min(values):.2f} to {max(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--autoencoder", default="eurosat_codes")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    codec = weights.load_autoencoder(priors.place(options.autoencoder))
    pixels = np.asarray(data.read("satellite", codec.picture[0]).pixels)
    x = np.asarray(data.to_unit(jnp.asarray(pixels)), np.float32)
    found = timed(codec, jnp.asarray(x[: options.pictures]), options.rounds)
    for name in ("encode", "decode"):
        each = 1000 * found[name] / options.pictures
        print(f"{name}: {found[name] / found[f'bare {name}']:.3f} x the module alone, {each:.2f} ms a picture")
    both = jax.jit(jax.vmap(lambda codec, x: codec.decode(codec.encode(x)), (None, 0)))
    net = codec.net
    print(f"{len(x)} held-out pictures, decoded codes: {psnr(x, np.asarray(both(codec, x)))}")
    by = principal(x, net.factor, net.code_channels)
    print(f"as many principal components of squares of {net.factor} x {net.factor}, of these pictures: {psnr(x, by)}")


if __name__ == "__main__":
    main()

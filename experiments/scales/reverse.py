"""The reverse side on the page of `experiments.scalespace`: exact denoisers of the digits, and a trained prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import data, denoisers, prior, process, sample, samplers, seed_key, times, weights
from diffinv.loop import record
from diffinv.scalespace import reverse
from diffinv.typing import Array
from experiments.common import pictures, runtime
from experiments.scales import fields

EMBEDDED = 80.0  # sigma_max of the embedded prior's process


class Finding(NamedTuple):
    """One line of the table: what was measured, its value, what it is held against, and what follows."""

    name: str
    value: str
    against: str
    verdict: str


def _close(name: str, value: float, exact: float, share: float, unit: str = "nats") -> Finding:
    away = abs(value / exact - 1)
    verdict = f"{'holds' if away <= share else 'fails'}: {100 * away:.1f} % off, {100 * share:g} % allowed"
    return Finding(name, f"{value:.4f} {unit}", f"{exact:.4f} {unit}", verdict)


def matched(key, time: str, forward: Array, back: Array) -> list[Finding]:
    """MMD and sliced W2 of forward against reverse samples, with the level that equal laws reach in 1 of 20."""
    bands = reverse.matching(key, forward, back)
    title = {"mmd2": "MMD²", "sliced_w2": "sliced W2"}
    return [
        Finding(f"marginal matching at {time}, {title[n]}", f"{b.value:.3g}", f"level {b.level:.3g}", b.verdict)
        for n, b in bands.items()
    ]


def remembered(name: str, rows: list[reverse.Memory], at: list[str]) -> list[Finding]:
    """Errors on what a denoiser was made from against errors on what it was not."""
    return [
        Finding(
            f"memorisation, {name}, {t}",
            f"train {r.train:.4g}",
            f"held out {r.held_out:.4g} ± {r.error:.2g}",
            r.verdict,
        )
        for t, r in zip(at, rows, strict=True)
    ]


def semigroup(
    the_prior: prior.Prior, x: Array, moments: tuple[float, float, float], counts: list[int]
) -> list[Finding]:
    """Heun's flow in one go and in two, by more and more steps; order by a line through the logarithms."""
    t, s, end = (jnp.asarray(m, x.dtype) for m in moments)

    def error(steps: int) -> float:
        flow = reverse.ode_flow(the_prior, samplers.heun, steps)
        run = jax.jit(lambda d, x: jax.vmap(lambda one: reverse.semigroup_error(flow, one, t, s, end))(x))
        return float(jnp.mean(run((), x)))

    errors = [error(steps) for steps in counts]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    value = ", ".join(f"{e:.2g}" for e in errors)
    name = f"semigroup of the ODE, {', '.join(map(str, counts))} steps"
    return [Finding(name, value, "0, at Heun's order 2", f"{'holds' if order > 1.5 else 'fails'}: order {order:.1f}")]


def digits(config) -> list[Finding]:
    """Finite-data denoisers, known exactly: each identity to its tolerance."""
    from sklearn.datasets import load_digits

    loaded, key = load_digits(), seed_key(config.seed)
    images, labels = jnp.asarray(loaded.images[..., None] / 16.0), jnp.asarray(loaded.target)
    levels = jnp.asarray(np.geomspace(1e-3, 1e3, config.levels))
    mmse = jax.jit(lambda labels: reverse.finite_mmse(key, images, levels, labels))
    errors = mmse(None)
    share = np.bincount(labels) / len(labels)
    told = float(reverse.label_information(levels, errors, mmse(labels)))
    found = [
        _close(
            "½ ∫ mmse d snr against ln N",
            float(reverse.immse(levels, errors, len(images)).integral),
            math.log(1797),
            0.01,
        ),
        _close(
            "MMSE gap to class-conditional denoising against H(C)", told, float(-np.sum(share * np.log(share))), 0.03
        ),
    ]
    exact = denoisers.finite(process.VP(), images)
    start, draw, noise, band = jax.random.split(key, 4)
    x = jax.vmap(lambda k: exact.start(k))(jax.random.split(start, 8))
    found += semigroup(exact, x, (1.0, 0.5, 0.2), [8, 16, 32])
    grid = times.grid(40)
    back = jax.jit(jax.vmap(lambda k: sample(k, record(samplers.heun(exact)), grid).info.state))
    states = back(jax.random.split(jax.random.fold_in(start, 1), config.matched))
    chosen = images[jax.random.choice(draw, len(images), (config.matched,), replace=False)]
    for i in (20, 30, 36):  # grid[i] is reached by step i - 1
        t = grid[i]
        forward = jax.vmap(lambda x, k, t=t: exact.process.perturb(x, t).sample(k))(
            chosen, jax.random.split(noise, len(chosen))
        )
        found += matched(band, f"t = {float(t):g}", forward, states[:, i - 1])
    edm, at = process.EDM(1.0), [0.2, 0.5]
    halves = [images[::2][:400], images[1::2][:400]]
    memory = denoisers.finite(edm, halves[0])
    score = jax.jit(lambda d, x: reverse.denoiser_mse(key, edm, d, x, jnp.asarray(at)))
    rows = reverse.memorisation(*(score(memory.denoise, half) for half in halves))
    return found + remembered("finite-data denoiser of 400 digits", rows, [f"sigma {s:g}" for s in at])


def photographs(config) -> Array:
    """Random crops of the photographs that install with scikit-image, (N, 32, 32, 3) in [-1, 1]."""
    shots = pictures.photographs(128, 8).pixels
    rng = np.random.default_rng(config.seed)
    places = zip(rng.integers(0, len(shots), config.network_images), *rng.integers(0, 96, (2, config.network_images)))
    return jnp.asarray(np.stack([shots[i, y : y + 32, x : x + 32] for i, y, x in places]), jnp.float32)


def known(config, split: str) -> Array:
    """Pictures of the prior's own data."""
    source = data.source(config.pictures, 32, split, str(runtime.cache_folder().parent / "data"), 3, False)
    rows = np.linspace(0, len(source) - 1, config.network_images).astype(int)
    return jnp.asarray(data.to_unit(source.take(rows.tolist())["image"]), jnp.float32)


ELEMENTS = {"mirror": lambda x: x[:, ::-1], "transpose": lambda x: x.swapaxes(0, 1), "quarter turn": jnp.rot90,
            "shift by a pixel": lambda x: jnp.roll(x, 1, 0)}  # fmt: skip


def network(config) -> list[Finding]:
    """The embedded prior on pictures that it has not seen and, where `config.pictures` says, on those it has."""
    edm, key = process.EDM(EMBEDDED), seed_key(config.seed)
    trained = weights.load_prior(weights.embedded(), edm)
    held_out = known(config, "validation") if config.pictures else photographs(config)
    what = "held-out pictures of its data" if config.pictures else "photographs, not of its data"
    sigmas = np.geomspace(80.0, 0.002, config.network_levels)
    at = jnp.asarray(sigmas / EMBEDDED, jnp.float32)
    score = jax.jit(lambda d, x: reverse.denoiser_mse(key, edm, d, x, at))
    errors, levels, size = score(trained.denoise, held_out), jnp.asarray(1 / sigmas**2), held_out[0].size
    mean = jnp.mean(errors.astype(float), 1)
    excess = reverse.immse(levels, mean, len(held_out))
    bits = (float(reverse.differential_entropy(levels, mean, size)) / size + math.log(127.5)) / math.log(2)
    found = [
        Finding(f"½ ∫ mse d snr, snr to 1/0.002², {what}", f"{float(excess.integral):.0f} nats",
                f"ln {len(held_out)} = {excess.entropy:.2f}, of a denoiser that knows them",
                f"excess {float(excess.excess):.0f} nats"),
        Finding("code length by I-MMSE", f"{bits:.2f} bits a channel", "8, uncompressed", "a bound from above"),
    ]  # fmt: skip
    if config.pictures:
        rows = reverse.memorisation(score(trained.denoise, known(config, "train")), errors)
        kept = range(4, len(sigmas) - 4, 4)
        found += remembered("embedded prior", [rows[i] for i in kept], [f"sigma {sigmas[i]:.2g}" for i in kept])
    noisy = held_out[:8] + 0.3 * jax.random.normal(key, (8, 32, 32, 3), jnp.float32)
    t = jnp.float32(0.3 / EMBEDDED)
    for name, element in ELEMENTS.items():
        run = jax.jit(jax.vmap(lambda x, g=element: reverse.equivariance_error(trained.denoise, x, t, g)))
        found.append(Finding(f"equivariance error, {name}, sigma 0.3", f"{float(jnp.mean(run(noisy))):.3f}", "0", ""))
    moments = tuple(s / EMBEDDED for s in (1.0, 0.3, 0.1))
    found += semigroup(trained, held_out[:2] + jax.random.normal(key, (2, 32, 32, 3), jnp.float32), moments, [2, 4, 8])
    grid = times.karras(18).astype(jnp.float32)
    back = jax.jit(jax.vmap(lambda k: sample(k, record(samplers.heun(trained)), grid).info.state))
    states = back(jax.random.split(key, len(held_out)))
    for i in (9, 12):
        forward = held_out + EMBEDDED * grid[i] * jax.random.normal(key, held_out.shape, jnp.float32)
        found += matched(key, f"sigma = {EMBEDDED * float(grid[i]):.2g}", forward, states[:, i - 1])
    return found


TITLES = {
    "digits": ("The reverse side: exact denoisers of the digits", digits),
    "network": ("The reverse side: the embedded prior", network),
}
SIDES = {name: TITLES[name] for name in fields.SIDES}

"""Terrains in one step, a void filled and a height map enlarged, by the terrain consistency model.

python -m experiments.import_checkpoint terrain_consistency_unet_difficulty100.onnx --out=priors
python examples/terrain.py priors/terrain docs
python examples/terrain.py priors/terrain OUT baseline daps

The names at the end choose from METHODS; docs/terrain.md shows what they make.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import charts, operators, posterior, samplers, times
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.metrics import image
from diffinv.posterior.core.adam import adam

CIVIDIS = np.array([[0, 32, 77], [60, 77, 110], [124, 123, 120], [187, 174, 113], [255, 234, 70]])
LIGHT = np.array([-1.0, -1.0, 1.5]) / np.sqrt(4.25)


def shaded(x, low, high):
    """(H, W, 1) to (H, W, 3) bytes: cividis from `low` to `high`, under a light from the upper left."""
    x = np.asarray(x, np.float64)[..., 0]
    place, normal = (x - low) / max(high - low, 1e-9) * 4, np.ones((*x.shape, 3))
    colour = np.stack([np.interp(place, np.arange(5), CIVIDIS[:, i]) for i in range(3)], -1)
    normal[..., 1], normal[..., 0] = (-8 * slope for slope in np.gradient(x))
    light = np.clip(normal @ LIGHT / np.linalg.norm(normal, axis=-1), 0, 1) / LIGHT[2]
    return np.clip(colour * (0.4 + 0.6 * light[..., None]), 0, 255).astype(np.uint8)


def write(path, pictures, like=None):
    """A row of pictures in one PNG of 64 colours; heights are coloured as those of `like`, or each by its own."""
    from PIL import Image

    scale = lambda x: (float(x.min()), float(x.max()))
    pictures = [shaded(x, *scale(x if like is None else like)) for x in pictures]
    framed = [np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=255) for x in pictures]
    row = Image.fromarray(np.concatenate(framed, 1))
    row.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def code_prior(shape):
    """N(0, I), whose denoiser is known: the law of the generator's codes."""
    process = di.process.VP()
    return di.Prior(process, GaussianDenoiser(process, jnp.zeros(shape), jnp.ones(shape)), shape)


def stepped(method, more=1):
    """`(prior, steps) -> Solver` of a sampler `(prior, measurement)`, which takes `more` times the steps."""
    return lambda prior, steps: di.as_solver(lambda m: method(prior, m), times.grid(steps * more))


def most_likely(prior, measurement, lr=None):
    """The code that maximises the posterior, `|y - A G(z)|^2 / (2 sigma^2) + |z|^2 / 2`, by a step of Adam a time.

    Adam moves all coordinates alike, so it moves their mean, whose deviation is 1 / sqrt(n), by `lr`: with 0.1 on
    128 x 128 it leaves the codes that make terrains. Hence `lr` is 1 / sqrt(n) where none is given.
    """
    optimizer = adam(1 / np.sqrt(np.prod(prior.shape)) if lr is None else lr)
    loss = lambda z: jnp.sum(z**2) / 2 - measurement.noise.log_likelihood(measurement.y, measurement.operator(z))

    def init(key, t, x):
        z = jax.random.normal(key, prior.shape) if x is None else x
        return z, optimizer.init(z)

    def step(key, state, t, s):
        updates, moments = optimizer.update(jax.grad(loss)(state[0]), state[1])
        return (state[0] + updates, moments), None

    return di.typing.Sampler(init, step, lambda key, state: state[0])


def refined(proposal, rho=1.0):
    """ReGuidance of what `proposal` makes; guidance climbs `-|y - A x|`, whose gradient grows with no residual."""

    def solver(prior, steps):
        grid, reward = times.grid(steps), posterior.rewards.norm
        refine = di.as_solver(lambda m: samplers.heun(posterior.dps_score(prior, m, rho, reward)), grid)
        return posterior.reguidance(proposal(prior, steps), refine, prior, grid)

    return solver


def in_codes(solver):
    """`solver` over the codes of the one-step generator."""
    return lambda prior, steps: charts.through(charts.generated(prior), solver(code_prior(prior.shape), steps))


DAPS, DPS, MAP = stepped(posterior.daps), stepped(posterior.dps), stepped(most_likely, 3)
METHODS = {
    "daps": DAPS,
    "dps": DPS,
    "mmps": stepped(lambda prior, m: samplers.ddim(posterior.mmps(prior, m))),
    "reguidance": refined(DAPS),
    "dps_in_codes": in_codes(DPS),
    "map_in_codes": in_codes(MAP),
    "reguidance_in_codes": in_codes(refined(MAP)),
}
CHOSEN = ("baseline", "daps", "dps_in_codes", "map_in_codes")


def biharmonic(y, top, left, size):
    """The void filled by the surface that bends least, from the pixels around it."""
    rows, columns = (slice(max(at - 3, 0), at + size + 3) for at in (top, left))
    window = np.array(y, np.float64)[rows, columns, 0]
    inside = np.zeros(window.shape, bool)
    inside[top - rows.start :, left - columns.start :][:size, :size] = True
    place = np.arange(window.size).reshape(window.shape)
    bend = np.zeros((window.size, window.size))
    for centre in place[1:-1, 1:-1].ravel():
        bend[centre, [centre - 1, centre + 1, centre - window.shape[1], centre + window.shape[1]]] = -1
        bend[centre, centre] = 4
    hole = inside.ravel()
    known = np.where(inside, 0, window).ravel()
    filled, surface = np.array(y), np.linalg.lstsq(bend[:, hole], -bend @ known, rcond=None)[0]
    filled[top : top + size, left : left + size, 0] = surface.reshape(size, size)
    return filled


def problems(key, truth):
    """By name: the measurement, and the baseline's answer to it."""
    side = truth.shape[0]
    top = size = side * 3 // 8
    void = di.measure(key, operators.box_inpainting(truth.shape, top - 1, top - 1, size), truth, sigma=0.01)
    coarse = di.measure(key, operators.average_pool(truth.shape, 4), truth, sigma=0.01)
    return {
        "void": (void, biharmonic(void.y, top - 1, top - 1, size)),
        "x4": (coarse, jax.image.resize(coarse.y, truth.shape, "cubic")),
    }


def solved(prior, key, measurement, name, steps):
    """One reconstruction."""
    run = lambda key, prior, m: METHODS[name](prior, steps)(key, m).x
    return jax.jit(run)(key, prior, measurement)


def main(path="priors/terrain", out="docs", *names, steps=25):
    """Writes terrain_samples.png, terrain_void.png and terrain_x4.png; prints and returns PSNR in decibels."""
    prior, key = di.weights.load_prior(path), jax.random.key(3)
    drawn, noise, start = jax.random.split(key, 3)  # of their own, or methods would start at the truth's code
    Path(out).mkdir(exist_ok=True)
    draw = lambda prior, key, grid: di.sample(key, samplers.renoise(prior), grid).x
    draw, once = jax.jit(draw), jnp.asarray([1.0, 0.0])
    labelled = [prior.given(label=jnp.float32(label)) for label in (0, 0.5, 1)]
    rough = [draw(each, jax.random.key(i), once) for i, each in enumerate(labelled)]
    write(Path(out) / "terrain_samples.png", [*rough, draw(prior, key, times.karras(4))])
    truth, found = draw(prior, drawn, once), {}
    for task, (measurement, baseline) in problems(noise, truth).items():
        factor = len(truth) // len(measurement.y)
        pictures = [truth, np.kron(measurement.y, np.ones((factor, factor, 1)))]
        for name in names or CHOSEN:
            began = time.monotonic()
            x = baseline if name == "baseline" else solved(prior, start, measurement, name, steps)
            found[task, name] = float(image.psnr(truth, jnp.clip(x, -1, 1), (-1, 1)))
            print(f"{task}: {name} {found[task, name]:.1f} dB, {time.monotonic() - began:.0f} s", flush=True)
            pictures.append(x)
        write(Path(out) / f"terrain_{task}.png", pictures, truth)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])

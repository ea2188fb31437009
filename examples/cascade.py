"""A photograph of which little is left, restored from coarse to fine: every stage sees the measurement in its pixels.

python examples/cascade.py [OUT]
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from PIL import Image
from skimage import data as photographs

import diffinv as di
from diffinv import operators, posterior, times, weights
from diffinv.cascade import CascadeStage, cascade, restoring
from diffinv.metrics import image

SIDES, MISSING, SIGMA = (64, 128, 256), 0.95, 0.05


def given(key, measurement, x=None):
    """The solver that proposes what it is started from: the coarser stage's picture."""
    return di.Solution(x, ())


def stage(side, first, steps, t, zeta):
    """DPS from noise at the coarsest size; then from the coarser picture, noised to time t."""
    prior = weights.load_prior(weights.embedded("photo"), di.process.VP(), shape=(side, side, 3))
    grid = times.grid(steps) if first else t * times.grid(steps)
    dps = di.as_solver(lambda m: posterior.dps(prior, m, zeta), grid)
    solver = dps if first else posterior.warm_start(given, dps, prior, t)
    return CascadeStage(restoring(solver, prior.shape), prior.shape)


def main(out="", sides=SIDES, steps=30, t=0.35, zeta=18.0):
    """Prints PSNR of the cascade and of DPS at the full size alone, in as many steps there; returns both."""
    side = sides[-1]
    photo = Image.fromarray(photographs.astronaut()).resize((side, side), Image.Resampling.BOX)
    truth, key = di.data.to_unit(jnp.asarray(photo)), jax.random.key(0)
    mask = operators.random_inpainting(key, truth.shape, MISSING)
    measurement = di.measure(key, mask, truth, sigma=SIGMA)
    stages = [stage(each, i == 0, steps, t, zeta) for i, each in enumerate(sides)]
    whole = [stage(side, True, steps, t, zeta)]
    run = lambda stages: jax.jit(cascade(stages))(key, measurement)
    found = {"cascade": run(stages), "dps": run(whole)}
    scores = {name: float(image.psnr(truth, jnp.clip(each.x, -1, 1), (-1, 1))) for name, each in found.items()}
    print(", ".join(f"{name} {value:.2f} dB" for name, value in scores.items()))
    if out:
        row = [truth, measurement.y, *found["cascade"].info.pictures, found["dps"].x]
        row = [jnp.kron(x, jnp.ones((side // len(x), side // len(x), 1))) for x in row]
        Path(out).mkdir(exist_ok=True)
        Image.fromarray(di.data.to_pixels(jnp.concatenate(row, 1))).save(Path(out) / "cascade.png")
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A picture out of the magnitudes of its Fourier transform, their phases lost: the best of several runs of DAPS.

python examples/phase_retrieval.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.metrics import image

SHAPE = (64, 64, 3)


def turned(truth, x):
    """The picture or its half turn, whichever is nearer to the truth: both have the same magnitudes."""
    return min(x, x[::-1, ::-1], key=lambda x: float(jnp.sum((x - truth) ** 2)))


def main(folder="", steps=50, draws=4, chosen=(3, 6)):
    """Prints PSNR in decibels and the residual over the noise for each picture, and returns the PSNRs."""
    prior = di.weights.load_prior(di.weights.embedded("satellite64"), di.process.VP())
    A = operators.phase_retrieval(SHAPE, oversample=2.0, unit_range=True)  # padded by a quarter on each side
    chain = posterior.chains.langevin(100, 0.5)
    daps = di.as_solver(lambda m: posterior.daps(prior, m, chain=chain, tau=0.01), times.karras(steps))
    solve, key = jax.jit(posterior.best_of(daps, draws)), jax.random.key(0)
    truths = di.data.to_unit(jnp.asarray(di.data.read("satellite").pixels))[jnp.asarray(chosen)]
    rows, scores = [], []
    for i, truth in enumerate(truths):
        measurement = di.measure(jax.random.fold_in(key, i), A, truth, sigma=0.01)
        x = turned(truth, jnp.clip(solve(jax.random.fold_in(key, i), measurement).x, -1, 1))
        scores.append(float(image.psnr(truth, x, (-1, 1))))
        misfit = float(jnp.sqrt(jnp.mean(measurement.residual(x) ** 2))) / 0.01
        print(f"{scores[-1]:.1f} dB, residual {misfit:.2f} of the noise")
        seen = jnp.log1p(measurement.y)
        row = [("truth", "", truth), ("magnitudes", "log", 2 * seen / seen.max() - 1)]
        rows.append([*row, ("DAPS", f"{scores[-1]:.1f} dB", x)])
    if folder:
        di.display.contact_sheet(rows).save(f"{folder}/phase_retrieval.png")
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A table: solvers beside each other on the same pictures, with paired differences and their intervals.

python examples/table.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.metrics import image

SHAPE = (64, 64, 3)


def half_width(values):
    """Half of Student's 95 % interval of a mean."""
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


def main(folder="", pictures=8, steps=20):
    """Prints a row a solver: PSNR, and what it is above the first; returns the PSNRs, (solvers, pictures)."""
    prior = di.weights.load_prior(di.weights.embedded("satellite64"), di.process.VP())
    truths = di.data.to_unit(jnp.asarray(di.data.read("satellite", limit=pictures).pixels))
    keys, A = jax.random.split(jax.random.key(0), pictures), operators.average_pool(SHAPE, 4)
    measurements = jax.vmap(lambda k, x: di.measure(k, A, x, sigma=0.05))(keys, truths)
    methods = {
        "DDRM": lambda prior, m: posterior.ddrm(prior, m),
        "PiGDM": lambda prior, m: samplers.ddim(posterior.pigdm(prior, m), 0.85),
        "MMPS": lambda prior, m: samplers.heun(posterior.mmps(prior, m, 2)),
    }
    rows, found, grid = [], [], times.grid(steps, power=2.0)
    for method in methods.values():
        run = lambda key, prior, m, method=method: di.as_solver(lambda m: method(prior, m), grid)(key, m).x
        x = jnp.clip(jax.jit(jax.vmap(run, (0, None, 0)))(keys, prior, measurements), -1, 1)
        rows.append(np.asarray(jax.vmap(lambda truth, x: image.psnr(truth, x, (-1, 1)))(truths, x)))
        found.append(x)
    print(f"| solver | PSNR / dB | above {next(iter(methods))} |\n|---|--:|--:|")
    for name, row in zip(methods, rows):
        above = row - rows[0]
        print(f"| {name} | {row.mean():.2f} ± {half_width(row):.2f} | {above.mean():+.2f} ± {half_width(above):.2f} |")
    if folder:
        first = [("truth", "", truths[0]), ("measured", "", measurements.y[0])]
        named = [(name, f"{row[0]:.1f} dB", x[0]) for name, row, x in zip(methods, rows, found)]
        di.display.contact_sheet([[*first, *named]]).save(f"{folder}/table.png")
    return np.stack(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A prior over an autoencoder's codes, and solvers that see the measurement through its decoder.

python examples/latent.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import charts, operators, posterior, times
from diffinv.metrics import image


def main(folder="", steps=200):
    """Prints PSNR of the decoded code, and of a hidden box filled by two solvers in codes; returns them."""
    key, latent = jax.random.key(0), di.weights.load_latent(di.weights.embedded("eurosat_latent"), di.process.VP())
    truth = di.data.to_unit(jnp.asarray(di.data.read("satellite").pixels[3]))
    A = operators.box_inpainting(truth.shape, top=24, left=24, size=16)
    measurement = di.measure(key, A, truth, sigma=0.05)

    def restored(key, latent, measurement):
        chart, prior = latent.codec.chart(), latent.prior
        methods = {
            "latent DPS": charts.within(chart, lambda m: posterior.dps(prior, m)),
            "PSLD": lambda m: posterior.psld(prior, m, chart, omega=1.0),
        }
        return {name: di.as_solver(method, times.grid(steps))(key, measurement).x for name, method in methods.items()}

    decoded = jax.jit(lambda codec, x: codec.decode(codec.encode(x)))(latent.codec, truth)
    found = {"decoded": decoded, **jax.jit(restored)(key, latent, measurement)}
    found = {name: jnp.clip(found[name], -1, 1) for name in ("decoded", "latent DPS", "PSLD")}
    scores = {name: float(image.psnr(truth, x, (-1, 1))) for name, x in found.items()}
    print(", ".join(f"{name} {value:.1f} dB" for name, value in scores.items()))
    if folder:
        row = [("truth", "", truth), ("measured", "", measurement.y)]
        row += [(name, f"{scores[name]:.1f} dB", x) for name, x in found.items()]
        di.display.contact_sheet([row]).save(f"{folder}/latent.png")
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])

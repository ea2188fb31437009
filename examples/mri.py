"""A slice out of a quarter of k-space's lines, as the scanner shows it and as a prior of brain slices completes it.

python examples/mri.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.metrics import image

SIDE = 128


def main(folder="", steps=20):
    """Prints PSNR, in decibels, of the zero-filled slice, total variation and DDNM+, and returns them."""
    shape, key = (SIDE, SIDE, 1), jax.random.key(0)
    prior = di.weights.load_prior(di.weights.embedded("brain128"), di.process.VP(), shape=shape)
    phantom = resize(shepp_logan_phantom(), (SIDE, SIDE), anti_aliasing=True)[..., None]
    slice_ = jnp.asarray(2 * phantom - 1, jnp.float32)
    mask = operators.cartesian_mask(key, (SIDE, SIDE), acceleration=4, acs=10)
    measurement = di.measure(key, operators.real_mri(mask), slice_ + 1, sigma=0.02)  # of x + 1: dark is no signal
    dark = measurement.operator(jnp.ones(shape))
    measurement = measurement.replace(y=measurement.y - dark)  # so that it measures x
    methods = {
        "zero-filled": (posterior.zero_filled, times.grid(1)),
        "total variation": (posterior.total_variation, times.grid(200)),
        "DDNM+": (posterior.ddnm_plus, times.grid(steps)),
    }
    run = lambda key, prior, m, method, grid: di.as_solver(lambda m: method(prior, m), grid)(key, m).x
    found = {name: jax.jit(run, static_argnums=3)(key, prior, measurement, *each) for name, each in methods.items()}
    scores = {name: float(image.psnr(slice_, jnp.clip(x, -1, 1), (-1, 1))) for name, x in found.items()}
    print(", ".join(f"{name} {value:.1f} dB" for name, value in scores.items()))
    if folder:
        row = [("truth", "", slice_), ("mask", "lines that are kept", jnp.broadcast_to(2.0 * mask - 1, (SIDE, SIDE)))]
        row += [(name, f"{scores[name]:.1f} dB", jnp.clip(x, -1, 1)) for name, x in found.items()]
        di.display.contact_sheet([row]).save(f"{folder}/mri.png")
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])

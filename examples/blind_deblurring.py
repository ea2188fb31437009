"""A picture and the camera's shake, both unknown: a family of shakes in one program, and the one that explains it best.

python examples/blind_deblurring.py [FOLDER]

Operators are pytrees, so that `vmap` and `lax.map` run over them as over anything else. A picture that is rich in
detail tells its shake; a smooth one is explained by all. `posterior.blind_dps` diffuses kernel and picture together.
"""

import sys

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.metrics import image

SHAPE, SIZE, RIGHT = (64, 64, 3), 9, 3


def main(folder="", steps=20, shakes=32):
    """Prints which shake is found, and PSNR of the blurred and of the restored picture; returns them."""
    key, prior = jax.random.key(0), di.weights.load_prior(di.weights.embedded("satellite64"), di.process.VP())
    kernels = jax.vmap(lambda k: operators.motion_kernel(k, SIZE))(jax.random.split(jax.random.key(1), shakes))
    blur = lambda kernel: operators.blur(SHAPE, kernel, "circular", threshold=0.03)
    truth = di.data.to_unit(jnp.asarray(di.data.read("satellite").pixels[1]))
    measurement = di.measure(key, blur(kernels[RIGHT]), truth, sigma=0.02)

    def tried(prior, measurement, kernel):
        m = measurement.replace(operator=blur(kernel))
        x = di.as_solver(lambda m: posterior.ddrm(prior, m), times.grid(steps))(key, m).x
        return jnp.clip(x, -1, 1), jnp.linalg.norm(m.residual(x).ravel())

    every = jax.jit(lambda prior, m, kernels: jax.lax.map(lambda kernel: tried(prior, m, kernel), kernels))
    pictures, misfits = every(prior, measurement, kernels)
    found = int(jnp.argmin(misfits))
    shown = {"blurred": measurement.y, "restored": pictures[found], "by another shake": pictures[found - 1]}
    scores = {name: float(image.psnr(truth, x, (-1, 1))) for name, x in shown.items()}
    print(f"shake {found}, {RIGHT} is right;", ", ".join(f"{name} {value:.1f} dB" for name, value in scores.items()))
    if folder:
        row = [("truth", "", truth), *((name, f"{scores[name]:.1f} dB", x) for name, x in shown.items())]
        di.display.contact_sheet([[*row, ("shake", "", 2 * kernels[found] / kernels[found].max() - 1)]]).save(
            f"{folder}/blind_deblurring.png"
        )
    return found, scores


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A law of noise of your own: draw it and give its likelihood; guidance by that likelihood takes it as it is.

python examples/own_noise.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp
from flax import struct

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior import rewards

SHAPE = (24, 24, 1)


@struct.dataclass
class Student(di.Noise):
    """`y = A x + scale t`, where `t` has Student's law with `freedom` degrees: mostly small, and now and then wild."""

    scale: jax.Array
    freedom: jax.Array

    def sample(self, key, clean):
        return clean + self.scale * jax.random.t(key, self.freedom, clean.shape)

    def log_likelihood(self, y, clean):
        square = ((y - clean) / self.scale) ** 2
        return -(self.freedom + 1) / 2 * jnp.sum(jnp.log1p(square / self.freedom))


def main(folder=""):
    """Prints the error under the right law and under the Gaussian of the same middle, and returns both."""
    key, k = jax.random.key(0), jnp.arange(24.0)
    spectrum = 1 / (1 + (k[:, None] ** 2 + k[None, :] ** 2) / 9)
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(SHAPE), spectrum[:, :, None])
    truth, noise = prior.denoise.sample(key), Student(jnp.asarray(0.1), jnp.asarray(1.2))
    wild = di.measure(key, operators.identity(SHAPE), truth, noise=noise)
    laws = {"Student": wild, "Gaussian": wild.replace(noise=di.GaussianNoise(0.1))}
    method = lambda m: posterior.dps(prior, m, 0.003, reward=rewards.likelihood)
    solve = jax.jit(di.as_solver(method, times.grid(300)))
    found = {name: solve(key, m).x for name, m in laws.items()}
    errors = {name: float(jnp.sqrt(jnp.mean((x - truth) ** 2))) for name, x in found.items()}
    print(", ".join(f"{name}: error {value:.3f}" for name, value in errors.items()))
    if folder:
        shown = {"truth": truth, "measured": jnp.clip(wild.y, -1.4, 1.4), **found}
        di.display.contact_sheet([[(name, "", x) for name, x in shown.items()]]).save(f"{folder}/own_noise.png")
    return errors


if __name__ == "__main__":
    main(*sys.argv[1:])

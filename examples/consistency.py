"""A prior that jumps from noise to data in one step: easy consistency tuning of a small network on digits.

python examples/consistency.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp
import optax

import diffinv as di
from diffinv import consistency, samplers
from diffinv.metrics.posterior import sliced_wasserstein
from diffinv.nn.perceptron import Perceptron

SHAPE, BATCH = (8, 8, 1), 256


def main(folder="", steps=3000):
    """Prints how far noise, one step and two are from held-out digits (sliced Wasserstein); returns the distances."""
    pictures = di.data.to_unit(jnp.asarray(di.data.read("digits", 8, split=0, channels=1).pixels))
    held_out = di.data.to_unit(jnp.asarray(di.data.read("digits", 8, split=1, channels=1).pixels))
    process, net, key = di.process.EDM(), Perceptron(), jax.random.key(0)
    model = lambda params: di.NetworkDenoiser(params, process, net.apply, parametrisation="edm", sigma_data=0.7)
    loss = consistency.ect(model, process, every=steps // 8)
    train = di.trainer(loss, optax.radam(1e-3), ema=0.995, contextual=True)
    state, step = train.init(net.init(key, jnp.zeros(SHAPE), 0.0)), jax.jit(train.step, donate_argnums=1)
    for i in range(steps):
        step_key = jax.random.fold_in(key, i)
        rows = jax.random.randint(step_key, (BATCH,), 0, len(pictures))
        state, _ = step(step_key, state, pictures[rows])
    prior = di.Prior(process, model(state.ema[0]), SHAPE)
    draw = lambda grid: jax.jit(jax.vmap(lambda k: di.sample(k, samplers.renoise(prior), jnp.asarray(grid)).x))
    keys = jax.random.split(key, 256)
    found = {"noise": jax.random.normal(key, (256, *SHAPE)), "one step": draw([1.0, 0.0])(keys)}
    found["two steps"] = draw([1.0, 0.5, 0.0])(keys)
    distance = lambda x: sliced_wasserstein(x.reshape(len(x), -1), held_out.reshape(len(held_out), -1))
    distances = {name: distance(x) for name, x in found.items()}
    print(", ".join(f"{name}: {value:.3f}" for name, value in distances.items()))
    if folder:
        rows = [[(name, "", x[j]) for j in range(8)] for name, x in found.items()]
        di.display.contact_sheet(rows).save(f"{folder}/consistency.png")
    return distances


if __name__ == "__main__":
    main(*sys.argv[1:])

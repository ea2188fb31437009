"""Everything public prints in a few lines, with shapes in place of values, also as tracers."""

import importlib
import inspect
import pkgutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import diffinv as di
from diffinv import charts, describe, posterior, samplers
from diffinv.operators import scale, stack
from diffinv.operators.functions import LinearFunction
from tests import nets
from tests.operators import test_battery, test_nonlinear_battery
from tests.posterior import methods
from tests.registries import PROCESSES, SAMPLERS

OWN = ("report", "convert", "schema", "data", "snapshots", "cards")  # rooms of files and fields
IMAGE = jnp.zeros((4, 4, 1), jnp.float32)


def short(thing):
    """What it prints, after a look at its length."""
    text = repr(thing)
    assert text.count("\n") < 10 and len(text) <= 800, text
    assert "Array(" not in text and "[[" not in text and "Traced<" not in text, text
    return text


def network():
    net = nets.Mini()
    variables = jax.eval_shape(net.init, jax.random.key(0), IMAGE, jnp.float32(0.0))
    return di.Prior(di.process.VP(), di.NetworkDenoiser(variables, di.process.VP(), net.apply), IMAGE.shape)


def everything():
    for module in pkgutil.walk_packages(di.__path__, "diffinv."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__.startswith("diffinv.") and kind.__module__.split(".")[1] not in OWN:
                yield kind


def test_every_struct_and_named_tuple_is_described():
    named = lambda kind: issubclass(kind, tuple) and hasattr(kind, "_fields")
    kinds = {kind for kind in everything() if named(kind) or hasattr(kind, "_flax_dataclass")}
    kinds = {kind for kind in kinds if not kind.__name__.startswith("_")}
    assert len(kinds) > 80
    plain = [kind for kind in kinds if "describe" not in kind.__repr__.__module__]
    assert not plain, f"{plain} print their arrays: let them inherit from Described, or decorate them by described"


def test_a_prior_and_a_measurement():
    prior = network()
    count = sum(leaf.size for leaf in jax.tree.leaves(prior.denoise.params))
    assert f"{count:,} numbers" in short(prior) and "shape=(4, 4, 1)" in short(prior)
    assert "apply=Mini.apply" in short(prior.denoise)
    measurement = di.Measurement(di.operators.average_pool(IMAGE.shape, 2), IMAGE[:2, :2], di.GaussianNoise(0.05))
    assert "y=float32[2,2,1]" in short(measurement) and "sigma=0.05" in short(measurement)
    guided = posterior.dps_score(prior, measurement, 0.3)
    assert f"{count + IMAGE[:2, :2].size:,} numbers" in short(guided) and "'rho': 0.3" in short(guided.denoise)
    many = jax.eval_shape(jax.vmap(lambda _: measurement), jnp.zeros(5))
    assert "y=float32[5,2,2,1]" in short(many)
    short(posterior.cfg(prior.given(label=jnp.int32(3)), prior, 2.0).denoise)
    short(di.Solution(IMAGE, di.StepInfo(di.Cost(jnp.zeros(9), jnp.zeros(9), 0), jnp.zeros(9))))


def test_tracers_print_as_their_shapes():
    seen = []

    def look(measurement, key):
        seen.extend([short(measurement), short(di.Gaussian(measurement.y, key))])
        return measurement.y

    measurement = di.Measurement(di.operators.identity(IMAGE.shape), IMAGE, di.GaussianNoise(0.05))
    jax.eval_shape(jax.vmap(look, (None, 0)), measurement, jax.random.split(jax.random.key(0), 3))
    assert "y=float32[4,4,1]" in seen[0] and "sigma=float64[]" in seen[0] and "std=key<fry>[]" in seen[1]
    assert "y=None" in short(jax.tree.map(lambda leaf: None, measurement))
    short(jax.tree_util.tree_structure(measurement).unflatten([object()] * len(jax.tree.leaves(measurement))))


def test_registered_processes_and_operators():
    """Operators are built as shapes alone; one looks at numbers, so it is put together here."""
    for process in PROCESSES.values():
        short(process)
    for name, make in (test_battery.REGISTRY | test_nonlinear_battery.REGISTRY).items():
        if name != "scaled_stack":
            short(jax.eval_shape(lambda make=make: make(0)))
    mine = LinearFunction(test_battery._gained, (IMAGE,), IMAGE.shape)
    assert "call=_gained" in short(mine) and "LinearFunction(16 numbers" in short(scale(mine, 2.0))
    assert "32 numbers" in short(scale(stack(mine, mine), 2.0))


def test_registered_samplers_and_methods():
    prior = di.gaussian(di.process.VP(), jnp.zeros(4), jnp.eye(4))
    measurement = di.Measurement(di.operators.dense(jnp.eye(4)[:2]), jnp.zeros(2), di.GaussianNoise(0.1))
    for sampler in SAMPLERS.values():
        short(sampler(prior))
    for name, method in methods.METHODS.items():
        assert short(method(prior, measurement)).startswith("Sampler("), name
    short(samplers.MultistepState(*[IMAGE] * len(samplers.MultistepState._fields)))
    short(charts.upsample((8, 8, 3), 2))


@struct.dataclass
class Own(di.operators.LinearOperator):
    """What a user writes."""

    weights: Any
    parts: Any = ()

    @property
    def shape(self):
        return self.weights.shape

    def __call__(self, x):
        return self.weights * x


@struct.dataclass
class Named(Own):
    def __repr__(self):
        return "mine"


@struct.dataclass
class Renamed(Named):
    more: int = 0


def test_structs_of_ones_own():
    assert short(Own(np.zeros((100, 100)))) == "Own(weights=float64[100,100])"
    assert repr(Named(IMAGE)) == repr(Renamed(IMAGE, more=3)) == "mine"
    nested = IMAGE
    for _ in range(30):
        nested = Own(nested, [IMAGE] * 30)
    short(nested)
    short(Own(IMAGE, {f"a name of some length {i}": "text " * 100 for i in range(50)}))
    short(Own(IMAGE, ["x" * 1000, object(), {1, 2}, lambda x: x, float, b"0" * 5000, 10**500]))


def test_at_most_ten_lines_of_88_characters():
    names = [f"a_field_with_a_long_name_{i}" for i in range(40)]
    wide = struct.dataclass(type("Wide", (describe.Described,), {"__annotations__": dict.fromkeys(names, Any)}))
    text = short(wide(*[IMAGE] * 40))
    assert "and 33 more" in text and max(map(len, text.splitlines())) <= describe.WIDTH

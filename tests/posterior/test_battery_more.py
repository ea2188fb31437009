"""The battery of the methods in `methods.MORE`, in two programs each: one sample under Flow, sixteen under VP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior, times
from posterior.counting import counted, paid, told
from posterior.methods import GRIDS, METHODS, MORE
from posterior.test_battery import (
    BLIND,
    SIZE,
    STEPS,
    Cubic,
    assert_same,
    assert_sound,
    batch,
    batched,
    cast,
    pick,
    problem,
    sharded,
    slow_unless,
)

pytestmark = pytest.mark.long

ALONE, TOGETHER = ("reddiff mean", "mcgdiff"), ("ddrm", "tds")
"""One of each structure; the others are left to the continuous check."""

VARIANTS = ("scalar", "code", "sum", "gradient", "langevin", "metropolis", "entries")
"""They differ from another entry by a formula: their independence of the batch is not compiled again."""

BATCHED = [name for name in MORE if name == "lgd code" or name.split()[-1] not in (*VARIANTS, "deep_image_prior")]
"""An image prior's own networks, one a sample, take as long to compile as a third of the others."""


@pytest.mark.parametrize(
    ("name", "process"),
    [slow_unless(name in ALONE, name, "Flow") for name in MORE] + [slow_unless(False, name, "EDM") for name in ALONE],
)
def test_is_finite_fits_better_than_the_prior_and_costs_what_it_tells(name, process, key):
    """At Flow's start alpha is exactly 0. Evaluations, pullbacks and calls of the operator are counted as they run."""
    make, grid = GRIDS[process]
    prior, measurement = problem(make())
    solution, tally = counted(METHODS[name], prior, measurement, grid(STEPS), key)
    assert_sound(solution, prior, measurement)
    assert paid(tally) == told(solution)


def rolled(tree, by):
    return jax.tree.map(lambda a: jnp.roll(a, by, 0), tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", [slow_unless(name in TOGETHER, name) for name in BATCHED])
def test_knows_no_neighbour_and_no_device(name):
    """Sixteen samples on eight devices are, five places on, the same beside other neighbours on another device.

    The same program again is the same bit by bit; strengths are swept by it, and matter.
    """
    keys, prior, measurements, strengths = batch()
    together = batched(name)(*sharded(*batch()))
    assert_same(together, batched(name)(*sharded(*batch())), 0)
    moved = batched(name)(*sharded(rolled(keys, 5), prior, rolled(measurements, 5), rolled(strengths, 5)))
    assert_same(together, rolled(moved, -5), 1e-9)
    assert len(together.x.sharding.device_set) == 8 and len({float(x[0]) for x in together.x}) == SIZE
    keys, measurements = jax.tree.map(lambda a: jnp.stack([a[0]] * SIZE), (keys, measurements))
    sweep = batched(name)(*sharded(keys, prior, measurements, strengths))
    assert_same(pick(sweep, 0), pick(together, 0), 1e-9)
    assert np.abs(sweep.x[0] - sweep.x[-1]).max() > 1e-5


@pytest.mark.parametrize("name", MORE)
def test_float32_stays_float32_under_strict_promotion(name):
    prior, measurement = cast(problem(di.process.EDM()), jnp.float32)
    solver = di.as_solver(lambda m: METHODS[name](prior, m), times.karras(STEPS).astype(jnp.float32))
    shape = jax.eval_shape(solver, jax.random.key(0), measurement)
    assert {leaf.dtype for leaf in jax.tree.leaves(shape)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert shape.info.cost.nfe.shape == (STEPS,)
    assert shape.info.residual is None if name == "tmpd entries" else shape.info.residual.shape == (STEPS,)


SPECTRAL = ("ddrm", "ddnm_plus", "mcgdiff", "fps", "ddsmc")
LINEAR = ("repaint", "mcg", "pgdm", "diffpir", "pnpdm", "dpnp")
COUNTS = {
    "particles": ("mcgdiff", "fps", "tds", "ddsmc"), "draws": ("lgd",),
    "iterations": ("sitcom", "dcdp", "mgps", "mgdm", "dapspp", "flair"),
    "repeats": ("mgdm",), "denoise_steps": ("mgdm",),
    "ode_steps": ("ddsmc",), "purify_steps": ("dcdp",), "reverse_steps": ("pnpdm", "dpnp"),
}  # fmt: skip
NAMED = [  # a name that another library has, and what is given here
    ("ddrm", "strict", "code", "give True or False"), ("ddnm_plus", "spectral", "svd", "give True or False"),
    ("pgdm", "awd", "code", "give True or False"), ("pigdm", "adaptive", "likelihood", "give True or False"),
    ("reddiff", "sums", "sum", "give True or False"), ("dpnp", "stochastic", "ddpm", "give True or False"),
    ("lgd", "reward", "norm", "give a value, not a name: posterior.rewards.cloud_norm, "),
    ("diffpir", "prox", "closed", "give a value, not a name: posterior.proximal.closed$"),
    ("tmpd", "moment", "diagonal", "give a value, not a name: posterior.moments.diagonal$"),
    ("mcgdiff", "scheme", "multinomial", "give a value, not a name: posterior.resampling.multinomial$"),
]  # fmt: skip


def assert_refused(kind, words, name, measurement, **options):
    prior, _ = problem(di.process.VP())
    with pytest.raises(kind, match=words):
        getattr(posterior, name)(prior, measurement, **options)


def test_an_operator_without_what_a_method_needs_is_refused_with_what_would_do():
    _, measurement = problem(di.process.VP())
    plain = measurement.replace(operator=operators.Composed(operators.identity((3,)), measurement.operator))
    for name in SPECTRAL:
        words = rf"Composed has no spectrum\(\), which {name}.* needs: use ddnm, pigdm, diffpir or mmps"
        assert_refused(TypeError, words, name, plain)
    for name in LINEAR + SPECTRAL:
        assert_refused(TypeError, f"Cubic is not linear; {name}.* needs", name, measurement.replace(operator=Cubic()))


def test_counts_options_and_noise_are_checked():
    _, measurement = problem(di.process.VP())
    for argument, names in COUNTS.items():
        for name in names:
            assert_refused(
                ValueError, f"{argument} is 0; it must be a whole number", name, measurement, **{argument: 0}
            )
    for name, argument, value, instead in NAMED:
        assert_refused(TypeError, f"{argument} is '{value}'; {instead}", name, measurement, **{argument: value})
    assert_refused(ValueError, "power is 'const'; it must be a number", "reddiff", measurement, power="const")
    quiet = measurement.replace(noise=di.GaussianNoise(0.0))
    for name in ("tds", "ddsmc", "mgps", "mgdm", "dapspp"):
        assert_refused(
            ValueError, f"{name}: sigma_y is 0.0, and it divides by it; .* use (mcgdiff|ddnm|daps)", name, quiet
        )
    assert_refused(ValueError, "sigma_y is 0.0", "lgd", quiet, reward=posterior.rewards.cloud_likelihood)
    assert_refused(ValueError, "sigma_y is 0.0", "pnpdm", quiet, chain=posterior.chains.langevin())


CHECKED = sorted({name.split()[0] for name in METHODS} - set(BLIND))


@pytest.mark.parametrize("name", CHECKED)
def test_a_measurement_that_does_not_fit_is_refused(name):
    """By its shape, by its operator's shape, and where a number known beforehand is not finite."""
    _, measurement = problem(di.process.VP())
    assert_refused(
        ValueError, rf"{name}: y has shape \(4,\); Dense gives \(3,\)", name, measurement.replace(y=jnp.ones(4))
    )
    broken = measurement.replace(y=measurement.y.at[1].set(jnp.nan))
    assert_refused(ValueError, f"{name}: y has 1 values that are not finite", name, broken)
    other = measurement.replace(operator=operators.identity((3,)))
    assert_refused(ValueError, rf"{name}: operator Identity takes \(3,\), the prior has \(6,\)", name, other)

"""The reverse side: information identities, matching tests with their level, semigroup, equivariance, memorisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST, OPTIMISED
from numpy.testing import assert_allclose

from diffinv import denoisers, prior, process, samplers, weights
from diffinv.scalespace import reverse

pytestmark = pytest.mark.long


def digits():
    """(1797, 64) in [0, 1], and labels."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    loaded = datasets.load_digits()
    return jnp.asarray(loaded.data / 16.0), jnp.asarray(loaded.target)


@pytest.mark.slow
def test_information_identities_on_the_digits():
    """`1/2 int mmse = ln 1797` to 1 %, and the gap to class-conditional denoising is H(C) to 3 %."""
    data, labels = digits()
    levels = jnp.asarray(np.geomspace(1e-3, 1e3, 61))
    run = jax.jit(lambda key, labels: reverse.finite_mmse(key, data, levels, labels), compiler_options=OPTIMISED)
    errors = run(jax.random.key(0), None)
    identity = reverse.immse(levels, errors, len(data))
    assert abs(identity.integral / np.log(1797) - 1) < 0.01 and identity.excess == identity.integral - np.log(1797)
    share = np.bincount(labels) / len(labels)
    entropy = -np.sum(share * np.log(share))
    assert_allclose(entropy, 2.3025, atol=2e-4)
    gap = reverse.label_information(levels, errors, run(jax.random.key(0), labels))
    assert abs(gap / entropy - 1) < 0.03


def test_information_identities_on_a_few_points():
    rng = np.random.default_rng(0)
    data, labels = jnp.asarray(rng.standard_normal((12, 6)) * 2), jnp.asarray([0, 1, 2] * 4)
    levels = jnp.asarray(np.geomspace(1e-4, 1e3, 61))
    run = jax.jit(lambda key, labels: reverse.finite_mmse(key, data, levels, labels, 1000), compiler_options=OPTIMISED)
    errors, conditional = run(jax.random.key(0), None), run(jax.random.key(0), labels)
    assert abs(reverse.immse(levels, errors, 12).excess) < 0.02 * np.log(12)
    assert abs(reverse.label_information(levels, errors, conditional) / np.log(3) - 1) < 0.03
    worse = reverse.immse(levels, errors + 0.05 * errors[0] / (1 + levels), 12)
    assert worse.excess > 0.1


def test_the_mmse_gives_the_differential_entropy_of_a_gaussian():
    variance = jnp.array([0.1, 1.0, 4.0])
    levels = jnp.geomspace(1e-6, 1e6, 600)
    errors = jnp.sum(variance[None] / (1 + variance[None] * levels[:, None]), 1)
    found = reverse.differential_entropy(levels, errors, 3)
    assert_allclose(found, 0.5 * jnp.sum(jnp.log(2 * np.pi * np.e * variance)), atol=2e-4)
    assert reverse.differential_entropy(levels, 1.1 * errors, 3) > found


@pytest.mark.slow
def test_any_denoiser_is_measured_as_the_finite_one():
    data = jnp.asarray(np.random.default_rng(0).standard_normal((40, 3)))
    edm = process.EDM(sigma_max=1.0)
    exact, times = denoisers.finite(edm, data), jnp.asarray([0.3, 1.0])
    errors = reverse.denoiser_mse(jax.random.key(0), edm, exact.denoise, jnp.tile(data, (40, 1)), times)
    means = jnp.mean(errors, 1)
    reference = reverse.finite_mmse(jax.random.key(1), data, 1 / times**2, passes=40)
    assert_allclose(means, reference, atol=4.5 * float(jnp.std(errors[1])) / 40)
    lazy = reverse.denoiser_mse(jax.random.key(0), edm, lambda x, t: x, jnp.tile(data, (40, 1)), times)
    assert jnp.all(jnp.mean(lazy, 1) > means)


def test_matching_holds_at_its_level_and_finds_a_shift():
    rng = np.random.default_rng(3)
    draw = lambda shift, count=60: rng.standard_normal((count, 5)) + shift
    verdicts = [reverse.matching(jax.random.key(i), draw(0), draw(0), 60) for i in range(30)]
    for name in ("mmd2", "sliced_w2"):
        rejected = sum(found[name].verdict == "fails" for found in verdicts)
        assert rejected <= 5  # 0.05 of 30 is 1.5; more than 5 has probability 0.3 %
    apart = reverse.matching(jax.random.key(0), draw(0), draw(0.8))
    assert all(found.verdict == "fails" and found.value > found.level for found in apart.values())
    few = reverse.matching(jax.random.key(0), draw(0, 8), draw(0.8, 8))
    assert all(found.verdict == "undecided" and found.level > 0 for found in few.values())
    with pytest.raises(ValueError, match="give equally many samples"):
        reverse.matching(jax.random.key(0), draw(0), draw(0, 10))


@pytest.mark.slow
def test_ancestral_trajectories_of_the_exact_denoiser_match_the_forward_ones():
    """Composed with time: exact samples pass, samples of a half-strength score fail."""
    means = jnp.array([[-1.0, 0.5], [1.0, 0.0]])
    exact = denoisers.mixture(process.VP(), means, jnp.ones(2), jnp.full(2, 0.05))
    from diffinv.loop import sample

    times = jnp.concatenate([jnp.linspace(1.0, 0.2, 60), jnp.array([0.2])])[:60]

    @jax.jit
    def run(keys, shrink):
        changed = prior.Prior(
            exact.process, jax.tree_util.Partial(lambda d, x, t: shrink * d(x, t), exact.denoise), (2,)
        )
        return jax.vmap(lambda k: sample(k, samplers.ancestral(changed), times).x)(keys)

    keys = jax.random.split(jax.random.key(0), 300)
    clean = jax.vmap(exact.denoise.sample)(jax.random.split(jax.random.key(1), 300))
    forward = jax.vmap(lambda k, x: exact.process.perturb(x, 0.2).sample(k))(
        jax.random.split(jax.random.key(2), 300), clean
    )
    good, bad = (reverse.matching(jax.random.key(3), forward, run(keys, shrink), 100) for shrink in (1.0, 0.5))
    assert good["mmd2"].verdict == good["sliced_w2"].verdict == "holds"
    assert bad["mmd2"].verdict == bad["sliced_w2"].verdict == "fails"


@pytest.mark.slow
def test_the_flow_is_a_semigroup_to_its_solver_s_order():
    law = denoisers.gaussian(process.Flow(), jnp.ones(3), jnp.diag(jnp.array([0.2, 1.0, 2.0])))
    x = jnp.array([0.3, -1.0, 2.0])
    errors = [
        float(reverse.semigroup_error(reverse.ode_flow(law, samplers.heun, steps), x, 0.9, 0.4, 0.1))
        for steps in (8, 16, 32)
    ]
    order = -np.polyfit(np.log([8, 16, 32]), np.log(errors), 1)[0]
    assert errors[0] < 0.01 and abs(order - 2) < 0.4
    exact = lambda x, t, s: (s + 1) / (t + 1) * x
    assert reverse.semigroup_error(exact, x, 0.9, 0.4) < 1e-15


def test_equivariance_of_laws_and_of_the_embedded_network():
    rng = np.random.default_rng(0)
    blurry = jnp.asarray(rng.uniform(0.1, 1, (6, 6, 1)))
    field = denoisers.gaussian_field(process.VP(), jnp.zeros((6, 6, 1)), blurry + blurry.swapaxes(0, 1))
    x = jnp.asarray(rng.standard_normal((6, 6, 1)))
    assert reverse.equivariance_error(field.denoise, x, 0.3, lambda x: x[:, ::-1]) < 1e-13
    assert reverse.equivariance_error(field.denoise, x, 0.3, lambda x: x.swapaxes(0, 1)) < 1e-13
    assert reverse.equivariance_error(field.denoise, x, 0.3, lambda x: jnp.roll(x, 1, 0)) > 1e-2


@pytest.mark.slow
def test_the_embedded_network_is_nearly_equivariant_to_a_mirror_and_less_to_a_turn():
    from experiments.common import pictures

    network = weights.load_prior(weights.embedded(), process.EDM())
    clean = jnp.asarray(pictures.photographs(32, 8).pixels)
    noisy = clean + 0.3 * jax.random.normal(jax.random.key(0), clean.shape, clean.dtype)
    denoise = jax.jit(lambda x, t: network.denoise(x, t), compiler_options=FAST)
    error = lambda x, g: reverse.equivariance_error(denoise, x, jnp.float32(0.3 / 80), g)
    mirror, turn = (jnp.stack([error(x, g) for x in noisy]) for g in (lambda x: x[:, ::-1], jnp.rot90))
    assert jnp.all(mirror > 1e-4) and jnp.mean(mirror) < 0.15 and jnp.mean(mirror) < jnp.mean(turn)


def test_the_finite_denoiser_memorises_and_the_gaussian_does_not():
    rng = np.random.default_rng(5)
    train, held_out = (jnp.asarray(rng.standard_normal((60, 8))) for _ in range(2))
    edm, times = process.EDM(sigma_max=1.0), jnp.asarray([0.2, 0.6])
    score = lambda denoise, data: reverse.denoiser_mse(jax.random.key(0), edm, denoise, data, times)
    memory = denoisers.finite(edm, train).denoise
    law = denoisers.gaussian(edm, jnp.zeros(8), jnp.eye(8)).denoise
    assert {row.verdict for row in reverse.memorisation(score(memory, train), score(memory, held_out))} == {"memorises"}
    assert "memorises" not in {row.verdict for row in reverse.memorisation(score(law, train), score(law, held_out))}
    assert reverse.memorisation(score(memory, train[:5]), score(memory, held_out[:5]))[0].verdict == "undecided"


def test_conditional_entropy_of_a_reverse_step():
    vp = process.VP()
    value = reverse.reverse_conditional_entropy(vp, 0.5, 0.3, (4,))
    c = vp.sigma(0.3) * vp.kernel_std(0.5, 0.3) / vp.sigma(0.5)
    assert_allclose(value, 4 * (jnp.log(c) + 0.5 * np.log(2 * np.pi * np.e)), rtol=1e-12)

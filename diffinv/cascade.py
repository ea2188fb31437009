r"""Staged generation: each stage makes a finer picture of the coarser one, and the whole is itself a solver.

    x_0 = generate_0(nothing),    x_i = generate_i(corrupt_i(x_{i-1}, level_i)),    i = 1, 2, ...

A stage is what turns a coarse picture into a fine one; a diffusion sampler, a consistency model, a generator, a solver
with the block average as its operator, a relay. With a measurement every stage sees it in its own pixels: of the
picture that would follow if its pixels were repeated, `charts.upsample`.

Source: Ho et al. 2021, arXiv:2106.15282 (cascades, conditioning augmentation); Zhang et al. 2018, arXiv:1710.10916
(StackGAN, whose conditioning augmentation is the same idea on a text's embedding). The one form for all is original.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv import charts, linalg, operators
from diffinv.describe import described
from diffinv.loop import sample, tallied
from diffinv.measurement import GaussianNoise, Measurement
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.typing import Array, Cost, Info, Key, Sampler, Scalar, Solution, Solver

Generate = Callable[[Key, Measurement | None, Array | None, Scalar], Solution]
"""`(key, measurement, coarse, level) -> Solution`, of this stage's size; each of the two in the middle may be None."""
Corrupt = Callable[[Key, Array, Scalar], Array]
"""`(key, coarse, level) -> coarse`, in the coarse picture's own pixels."""


def as_it_is(key: Key, coarse: Array, level: Scalar) -> Array:
    """No corruption: StackGAN's stages, and a base that was stopped early, which is noisy already."""
    return coarse


def with_noise(key: Key, coarse: Array, level: Scalar) -> Array:
    """`coarse + level eps`. Source: Ho et al. 2021, section 4.2, in the variance-exploding clock."""
    return coarse + jnp.asarray(level, coarse.dtype) * jax.random.normal(key, coarse.shape, coarse.dtype)


def noised_by(process: Process) -> Corrupt:
    """A draw of `p(z_s | z_0)` of the process at the time s = level: conditioning augmentation that is not truncated.

    Source: Ho et al. 2021, section 4.2: the base is sampled to its end, and noised again.
    """
    return lambda key, coarse, level: process.perturb(coarse, level).sample(key)


def with_blur(key: Key, coarse: Array, level: Scalar) -> Array:
    """Gaussian blur of deviation `level` in coarse pixels, (H, W, C), mirrored at the border.

    Source: Ho et al. 2021, section 4.2, which blurs half of the training pictures, and none when it samples. Differs:
    exact, in the DCT, in place of a window of finite width.
    """
    height, width = coarse.shape[:2]
    rows, columns = (jnp.pi * jnp.arange(n, dtype=coarse.dtype) / n for n in (height, width))
    square = rows[:, None, None] ** 2 + columns[None, :, None] ** 2
    return linalg.idct_hw(linalg.dct_hw(coarse) * jnp.exp(-square * jnp.asarray(level, coarse.dtype) ** 2 / 2))


@described
class CascadeStage(NamedTuple):
    """From a coarser picture to this one.

    Attributes:
      generate: what makes the picture: see `sampling`, `jumping`, `generating`, `enlarging`, `restoring`, `relaying`.
      shape: of the picture, (H, W, C); static. Its sides are whole multiples of those of the stage before.
      corrupt: what the coarse picture goes through first, `as_it_is` by default.
      level: of the corruption; the stage is told it.
      project: the result is moved so that its block averages are the coarse picture; static.
    """

    generate: Generate
    shape: tuple[int, ...]
    corrupt: Corrupt = as_it_is
    level: Scalar = 0.0
    project: bool = False


@described
class CascadeInfo(NamedTuple):
    """What a cascade tells.

    Attributes:
      pictures: of every stage, from coarse to fine.
      stages: each stage's own info.
    """

    pictures: tuple[Array, ...]
    stages: tuple[Info, ...]


def _factor(coarse: tuple[int, ...], fine: tuple[int, ...], what: str) -> int:
    """By how much `fine` is larger. ValueError where it is no whole multiple."""
    factor = fine[0] // coarse[0]
    if factor < 1 or tuple(factor * side for side in coarse[:2]) != tuple(fine[:2]) or coarse[2:] != fine[2:]:
        raise ValueError(f"{what} is {tuple(fine)} after {tuple(coarse)}; give sides that are one whole multiple of it")
    return factor


def enlarge(coarse: Array, shape: tuple[int, ...]) -> Array:
    """The picture at `shape` (static), its pixels repeated."""
    return charts.upsample(shape, _factor(coarse.shape, shape, "shape")).decode(coarse)


def condition(coarse: Array, shape: tuple[int, ...], level: Scalar) -> dict[str, Array]:
    """What a stage of `shape` (static) tells its network: `low`, the coarse picture at that size, and its `level`."""
    return {"low": enlarge(coarse, shape), "level": jnp.asarray(level, coarse.dtype)}


def augmented_condition(key: Key, x0: Array, shape: tuple[int, ...], greatest: Scalar) -> dict[str, Array]:
    """`condition` for training, of x0's block averages of `shape` (static): `D x0 + level eps`, level ~ U(0, greatest).

    A network that was trained with it stands in `sampling` and `jumping` after `with_noise` at any of these levels.

    Source: Ho et al. 2021, section 4.2, in the variance-exploding clock: one network for all levels, of which one is
    chosen afterwards.
    """
    level_key, noise_key = jax.random.split(key)
    level = jnp.asarray(greatest, x0.dtype) * jax.random.uniform(level_key, (), x0.dtype)
    average = operators.average_pool(x0.shape, _factor(shape, x0.shape, "x0"))
    return condition(with_noise(noise_key, average(x0), level), x0.shape, level)


def projected(x: Array, coarse: Array) -> Array:
    """The nearest picture to x whose block averages are `coarse`: `x + D^T (D D^T)^{-1} (coarse - D x)`."""
    chart = charts.upsample(x.shape, _factor(coarse.shape, x.shape, "x"))
    return x + chart.decode(coarse - chart.encode(x))


def seen_by(stage: CascadeStage, measurement: Measurement, full: tuple[int, ...]) -> Measurement:
    """A measurement of pictures of the shape `full` in a stage's pixels: of its picture with every pixel repeated."""
    factor = _factor(stage.shape, full, "the last stage's shape")
    return measurement if factor == 1 else charts.pull_back(charts.upsample(full, factor), measurement)


def cascade(stages: Sequence[CascadeStage]) -> Solver:
    r"""The stages one after the other, as a solver: `(key, measurement, x=None) -> Solution`.

    With the measurement None it samples. Given x, a coarse picture, the first stage starts from it, as all others do
    from the stage before. CascadeStage i's keys are of `split(key, stages)[i]`.

    With a measurement it is no posterior sampler, even of exact stages: a coarse stage takes the measurement for one of
    its picture with repeated pixels, and a fine stage sees the same y again.

    Raises ValueError for no stage, and for a shape that is no whole multiple of the one before.
    """
    stages = tuple(stages)
    if not stages:
        raise ValueError("stages is empty; give at least one")
    for before, after in zip(stages, stages[1:]):
        _factor(before.shape, after.shape, "a stage's shape")

    def solver(key: Key, measurement: Measurement | None, x: Array | None = None) -> Solution:
        picture, pictures, told = x, [], []
        for stage, stage_key in zip(stages, jax.random.split(key, len(stages))):
            corrupt_key, generate_key = jax.random.split(stage_key)
            coarse = None if picture is None else stage.corrupt(corrupt_key, picture, stage.level)
            seen = None if measurement is None else seen_by(stage, measurement, stages[-1].shape)
            solution = stage.generate(generate_key, seen, coarse, stage.level)
            picture = projected(solution.x, picture) if stage.project and picture is not None else solution.x
            pictures.append(picture)
            told.append(solution.info)
        return Solution(pictures[-1], tallied(CascadeInfo(tuple(pictures), tuple(told))))

    return solver


def _unseen(measurement: Measurement | None, kind: str) -> None:
    if measurement is not None:
        raise ValueError(f"measurement is given, and `{kind}` cannot see it; give `restoring` or `enlarging` instead")


def sampling(prior: Prior, method: Callable[..., Sampler], times: Array, conditional: bool = True) -> Generate:
    """A sampler over `times` under a network that takes the coarse picture.

    Where there is one, and the prior is `conditional` (static), its network gets `low`, the coarse picture at its own
    size, and `level`. `method(prior)` makes the sampler, `samplers.renoise` of a consistency model in one step as well
    as `samplers.heun`; with a measurement, `method(prior, measurement)`: `posterior.dps`, say. A grid that ends above 0
    leaves noise in the picture: truncated conditioning augmentation (Ho et al. 2021, section 4.2).
    """

    def generate(key: Key, measurement: Measurement | None, coarse: Array | None, level: Scalar) -> Solution:
        told = _told(prior, coarse, level, conditional)
        return sample(key, method(told) if measurement is None else method(told, measurement), times)

    return generate


def jumping(prior: Prior, conditional: bool = True) -> Generate:
    """One evaluation of a consistency model, from noise alone to the picture: `f(x_1, 1)`.

    It is `sampling` by `samplers.renoise` over the times 1, 0, but draws no noise that is then multiplied by 0;
    the network is told of a coarse picture as there. It sees no measurement. Raises ValueError where there is one.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 1 with one step.
    """

    def generate(key: Key, measurement: Measurement | None, coarse: Array | None, level: Scalar) -> Solution:
        _unseen(measurement, "jumping")
        told, t = _told(prior, coarse, level, conditional), jnp.ones(())
        return Solution(told.denoise(told.start(jax.random.fold_in(key, 0), t), t), told.cost)

    return generate


def _told(prior: Prior, coarse: Array | None, level: Scalar, conditional: bool) -> Prior:
    if not conditional or coarse is None:
        return prior
    return prior.given(**condition(coarse, prior.shape, level))


def generating(make: Callable[..., Array], noise: tuple[int, ...]) -> Generate:
    """One call of a generator: `make(z)`, or `make(z, coarse)` after another stage; z ~ N(0, I) of the shape `noise`.

    It sees no measurement. Raises ValueError where there is one.
    """

    def generate(key: Key, measurement: Measurement | None, coarse: Array | None, level: Scalar) -> Solution:
        _unseen(measurement, "generating")
        dtype = jnp.float32 if coarse is None else coarse.dtype
        z = jax.random.normal(key, noise, dtype)
        return Solution(make(z) if coarse is None else make(z, coarse), Cost())

    return generate


def enlarging(solver: Solver, shape: tuple[int, ...]) -> Generate:
    """Super-resolution without training: the coarse picture is the measurement, `D x + level eps`, of any solver.

    D is the block average, the prior is unconditional and of `shape` (static). Where there is a measurement as well,
    `restoring` is meant. Raises ValueError for one, and where there is no coarse picture.
    """

    def generate(key: Key, measurement: Measurement | None, coarse: Array | None, level: Scalar) -> Solution:
        _unseen(measurement, "enlarging")
        if coarse is None:
            raise ValueError("coarse is None; `enlarging` stands after another stage, or give x")
        average = operators.average_pool(shape, _factor(coarse.shape, shape, "shape"))
        return solver(key, Measurement(average, coarse, GaussianNoise(jnp.asarray(level, coarse.dtype))))

    return generate


def restoring(solver: Solver, shape: tuple[int, ...]) -> Generate:
    """A solver for the measurement in this stage's pixels, `shape` (static), started at the enlarged coarse picture.

    So `posterior.reguidance(given, refine, ...)` inverts it and refines, `posterior.warm_start` noises it. Raises
    ValueError where there is no measurement.
    """

    def generate(key: Key, measurement: Measurement | None, coarse: Array | None, level: Scalar) -> Solution:
        if measurement is None:
            raise ValueError("measurement is None; `restoring` needs one, and `enlarging` does without")
        return solver(key, measurement, None if coarse is None else enlarge(coarse, shape))

    return generate


def relaying(prior: Prior, method: Callable[..., Sampler], times: Array, chart: charts.Chart | None = None) -> Generate:
    """A sampler that starts from the enlarged coarse picture, noised to the first of `times`; no network is told of it.

    Under a process that blurs within blocks as it noises, `times[0]` being where nothing but the blocks' means is left,
    it is relay diffusion. A `chart` holds the pictures' codes where the prior is over codes, as a spectral one is
    (`scalespace.spectral_codes`). Raises ValueError where there is no coarse picture.

    Source: Teng et al. 2023, arXiv:2309.03350, section 3.2; the process is `process.Blurring` there, on blocks.
    """

    def generate(key: Key, measurement: Measurement | None, coarse: Array | None, level: Scalar) -> Solution:
        if coarse is None:
            raise ValueError("coarse is None; `relaying` stands after another stage, or give x")
        start_key, sample_key = jax.random.split(key)
        seen = measurement if measurement is None or chart is None else charts.pull_back(chart, measurement)
        clean = enlarge(coarse, prior.shape) if chart is None else chart.encode(enlarge(coarse, prior.shape))
        start = prior.process.perturb(clean, times[0]).sample(start_key)
        solution = sample(sample_key, method(prior) if seen is None else method(prior, seen), times, start)
        return solution if chart is None else solution._replace(x=chart.decode(solution.x))

    return generate

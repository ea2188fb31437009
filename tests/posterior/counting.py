"""Denoisers and operators that count, as a program runs, how often they are used: what `info.cost` must tell."""

import collections

import jax
from compiling import FAST
from flax import struct

import diffinv as di
from diffinv.operators.base import ClosedForm
from diffinv.operators.spectra import Spectrum


def watched(tally, x, use, pullback):
    """`x`; while the program runs, its use and the pullback through that are counted under these names."""

    def count(what, value):
        jax.debug.callback(lambda _: tally.update([what]), value.ravel()[0])

    @jax.custom_vjp
    def watch(x):
        count(use, x)
        return x

    def forward(x):
        return watch(x), None

    def backward(_, g):
        count(pullback, g)
        return (g,)

    watch.defvjp(forward, backward)
    return watch(x)


@struct.dataclass
class Counting:
    """A denoiser that counts how often it is evaluated and pulled back."""

    denoise: object
    tally: collections.Counter = struct.field(pytree_node=False)

    def __call__(self, x, t):
        return self.denoise(watched(self.tally, x, "nfe", "vjps"), t)


@struct.dataclass
class CountingOperator(ClosedForm):
    """An operator that counts each use of it, and each pullback of one, where it is traced inside of a step."""

    operator: ClosedForm
    tally: collections.Counter = struct.field(pytree_node=False)

    @property
    def shape(self):
        return self.operator.shape

    def _watched(self, x):
        return watched(self.tally, x, "calls", "calls") if self.tally["inside"] else x

    def __call__(self, x):
        return self.operator(self._watched(x))

    def adjoint(self, y):
        return self.operator.adjoint(self._watched(y))

    def solve(self, v, damping):
        return self.operator.solve(self._watched(v), damping)

    def pinv(self, y):
        return self.operator.pinv(self._watched(y))

    def project(self, y):
        return self.operator.project(self._watched(y))

    def spectrum(self):
        s, *maps = self.operator.spectrum()
        return Spectrum(s, *(lambda v, each=each: each(self._watched(v)) for each in maps))


def counting(prior, tally):
    return prior.replace(denoise=Counting(prior.denoise, tally))


def counted(method, prior, measurement, grid, key, tally=None):
    """(solution, tally of what the steps of `method(prior, measurement)` did to the denoiser and to the operator).

    A given `tally` is one that also counts what the method brings itself.
    """
    tally = collections.Counter() if tally is None else tally
    prior = counting(prior, tally)
    measurement = measurement.replace(operator=CountingOperator(measurement.operator, tally))

    def watched_method(measurement):
        sampler = method(prior, measurement)

        def step(*state):
            tally["inside"] = 1
            found = sampler.step(*state)
            tally["inside"] = 0
            return found

        return sampler._replace(step=step)

    run = jax.jit(di.as_solver(watched_method, grid), compiler_options=FAST)
    solution = jax.block_until_ready(run(key, measurement))
    jax.effects_barrier()
    return solution, tally


def paid(tally):
    """(nfe, vjps, calls) as they were counted."""
    return tuple(tally[what] for what in ("nfe", "vjps", "calls"))


def told(solution):
    """(nfe, vjps, calls) as the info tells them, over all steps."""
    return tuple(int(count.sum()) for count in solution.info.cost)

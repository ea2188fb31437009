"""Linear osmosis on the pixel grid: the drift-diffusion `du/dt = div(grad u - d u)` with no flow through the border.

Between neighbours i and j the discrete generator moves mass at the rate `1 - d/2` one way and `1 + d/2` the other, for
the drift d half-way between them. Every column of the generator sums to 0, so that the average grey value stays, for
any drift. For `|d| < 2` the chain is irreducible: a positive image stays positive and tends to the one positive steady
state. For the drift of a guide, `d = grad ln v`, the rates are `2 v_i / (v_i + v_j)` and the steady state is the guide,
rescaled.

The equation is the Fokker-Planck equation of Langevin dynamics on pixel positions, with the guide as the density. A
diffusion process on images is the same on another space; `scalespace.phi_divergence` falls along both.

One image is (H, W, C) and positive; each channel evolves by itself. Time is in pixels squared.

Source: Weickert, Hagenburg, Breuss, Vogel 2013, EMMCVPR, LNCS 8081 (theory); Vogel, Hagenburg, Weickert, Setzer 2013,
SSVM, LNCS 7893 (schemes).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.sparse.linalg import bicgstab

from diffinv import linalg
from diffinv.describe import Described, described
from diffinv.typing import Array


@described
class Drift(NamedTuple):
    """The drift half-way between neighbours, per pixel.

    Attributes:
      rows: downwards, (H - 1, W, C).
      columns: to the right, (H, W - 1, C).
    """

    rows: Array
    columns: Array


def _known(x: Array | float) -> bool:
    """Whether the values are there to be looked at, which they are not under a trace."""
    return not isinstance(x, jax.core.Tracer)


def positive(image: Array, name: str = "image") -> Array:
    """`image` as it is, or ValueError with the offset that it needs; a traced one is not looked at."""
    if image.ndim != 3:
        raise ValueError(f"{name} has shape {tuple(image.shape)}; give one image, (H, W, C)")
    if _known(image) and not (low := float(jnp.min(image))) > 0:
        raise ValueError(
            f"{name} has the value {low:g}; osmosis needs positive images: add an offset above {abs(low):g}"
        )
    return image


def canonical(guide: Array) -> Drift:
    r"""The drift whose steady state is the guide: `d_{i+1/2} = 2 (v_{i+1} - v_i) / (v_{i+1} + v_i)`.

    Source: Vogel et al. 2013, section 2 (canonical drift vector field). Raises ValueError for a guide that is not
    positive.
    """
    v = positive(jnp.asarray(guide), "guide")
    between = lambda a, b: 2 * (b - a) / (b + a)
    return Drift(between(v[:-1], v[1:]), between(v[:, :-1], v[:, 1:]))


def _edges(mask: Array, both: bool) -> tuple[Array, Array]:
    """Where both (or either) ends of an edge lie in the mask (H, W, C or 1)."""
    join = jnp.logical_and if both else jnp.logical_or
    return join(mask[:-1], mask[1:]), join(mask[:, :-1], mask[:, 1:])


def barred(drift: Drift, mask: Array) -> Drift:
    """The drift without that of the edges that touch the mask (H, W, C or 1).

    On a mask over the border of a shadow, the steady state has no shadow. Source: Weickert et al. 2013, section 4.2
    (shadow removal).
    """
    return Drift(*(jnp.where(edge, 0.0, d) for edge, d in zip(_edges(mask, both=False), drift)))


def fused(mask: Array, inside: Drift, outside: Drift) -> Drift:
    """`inside` where both ends lie in the mask, `outside` where neither does, their mean across the seam: cloning.

    Source: Weickert et al. 2013, section 4.3 (seamless image cloning).
    """
    within, touched = _edges(mask, both=True), _edges(mask, both=False)
    parts = zip(within, touched, inside, outside)
    return Drift(*(jnp.where(w, a, jnp.where(t, 0.5 * (a + b), b)) for w, t, a, b in parts))


@struct.dataclass
class Rates(Described):
    """The generator A of a Markov chain on the grid, as a callable pytree: `A u` is mass per unit time.

    Attributes:
      down: rates from row i to i + 1, (H - 1, W, C).
      up: rates from row i + 1 to i, (H - 1, W, C).
      right: rates from column j to j + 1, (H, W - 1, C).
      left: rates from column j + 1 to j, (H, W - 1, C).
      weight: how mass lies inside a block of pixels, (H, W, C); only the multigrid solver uses it.
    """

    down: Array
    up: Array
    right: Array
    left: Array
    weight: Array

    def inflow(self, u: Array) -> Array:
        """What arrives from the neighbours."""
        rows = _after(self.down * u[:-1], 0) + _before(self.up * u[1:], 0)
        return rows + _after(self.right * u[:, :-1], 1) + _before(self.left * u[:, 1:], 1)

    def outflow(self) -> Array:
        """The rate at which a pixel's mass leaves it."""
        return _before(self.down, 0) + _after(self.up, 0) + _before(self.right, 1) + _after(self.left, 1)

    def __call__(self, u: Array) -> Array:
        return self.inflow(u) - self.outflow() * u


def _pad(x: Array, axis: int, ends: tuple[int, int]) -> Array:
    return jnp.pad(x, [ends if a == axis else (0, 0) for a in range(x.ndim)])


def _after(x: Array, axis: int) -> Array:
    """Values of edges, at the pixels that they lead to."""
    return _pad(x, axis, (1, 0))


def _before(x: Array, axis: int) -> Array:
    """Values of edges, at the pixels that they come from."""
    return _pad(x, axis, (0, 1))


def generator(drift: Drift, weight: Array | None = None) -> Rates:
    r"""The generator of a drift: `1 + d/2` with it, `1 - d/2` against it, per edge.

    Source: Vogel et al. 2013, eq. 12, in the form of rates. `weight` (H, W, C): the guide, where there is one; without
    it the solver takes mass as even, and needs more iterations.
    """
    height, width, channels = drift.columns.shape[0], drift.rows.shape[1], drift.rows.shape[2]
    if drift.columns.shape[1] != width - 1 or drift.rows.shape[0] != height - 1:
        shapes = f"{tuple(drift.rows.shape)} and {tuple(drift.columns.shape)}"
        raise ValueError(f"drift has shapes {shapes}; give (H - 1, W, C) and (H, W - 1, C)")
    weight = jnp.ones((height, width, channels), drift.rows.dtype) if weight is None else weight
    if weight.shape != (height, width, channels):
        raise ValueError(f"weight is {tuple(weight.shape)} and the drift is of {(height, width, channels)}; resize one")
    rows, columns = 0.5 * drift.rows, 0.5 * drift.columns
    return Rates(1 + rows, 1 - rows, 1 + columns, 1 - columns, weight)


def osmosis(guide: Array) -> Rates:
    r"""The generator of a guide v: `A_ij = 2 v_i / (v_i + v_j)` from pixel j to its neighbour i, and `A v = 0`.

    It obeys detailed balance `A_ij v_j = A_ji v_i`, and is the same for `c v`; a constant guide gives homogeneous
    diffusion. Source: as the module. Raises ValueError for a guide that is not positive.
    """
    return generator(canonical(guide), guide)


def _fitting(rates: Rates, u: Array) -> Array:
    """A positive image of the generator's size."""
    if u.shape != rates.weight.shape:
        raise ValueError(f"image is {tuple(u.shape)} and the guide is {tuple(rates.weight.shape)}; resize one of them")
    return positive(u)


def explicit(rates: Rates, u: Array, tau: Array | float) -> Array:
    """One explicit step `(I + tau A) u`; stochastic, hence stable and positive, for `tau < 1/8` and any guide.

    Source: Vogel et al. 2013, section 3.1. Raises ValueError where `tau` is known and not below 1/8.
    """
    if _known(tau) and not 0 < float(tau) < 0.125:
        raise ValueError(f"tau is {tau}; the explicit scheme is stable for 0 < tau < 1/8: take more steps, or implicit")
    return u + tau * rates(u)


def implicit(rates: Rates, u: Array, tau: Array | float, tolerance: float = 1e-8, iterations: int = 100) -> Array:
    """One implicit step: solves `(I - tau A) u_next = u` by BiCGStab, preconditioned by one multigrid cycle.

    The step is stable and positive for any `tau`, in pixels squared. The scheme keeps the average grey value; an
    unfinished solve would not, so it is restored in each channel. In float32 rounding leaves an error near `1e-7 tau`:
    use float64 from tau = 1e3 on.

    Source: Vogel et al. 2013, section 3.2 (BiCGStab). Differs: the preconditioner is `cycle`.

    Args:
      rates: the generator A.
      u: the image before the step, positive.
      tau: the step's length.
      tolerance: of the residual, relative to `|u|`.
      iterations: at most; static.
    """
    u = _fitting(rates, u)
    levels = hierarchy(rates, tau)
    matrix, precondition = lambda x: x - tau * rates(x), lambda b: cycle(levels, b)
    solved, _ = bicgstab(matrix, u, x0=u, tol=tolerance, maxiter=iterations, M=precondition)
    return solved * (jnp.mean(u, (0, 1), keepdims=True) / jnp.mean(solved, (0, 1), keepdims=True))


def residual(rates: Rates, u_next: Array, u: Array, tau: Array | float) -> Array:
    """`|u - (I - tau A) u_next| / |u|`: how well an implicit step was solved, dimensionless."""
    return linalg.norm(u - u_next + tau * rates(u_next)) / linalg.norm(u)


def trajectory(rates: Rates, u: Array, taus: Array, **options: Any) -> Array:
    """The images (n, H, W, C) after implicit steps of `taus` (n,); `options` as of `implicit`."""
    u = _fitting(rates, u)

    def step(u: Array, tau: Array) -> tuple[Array, Array]:
        u = implicit(rates, u, tau, **options)
        return u, u

    return jax.lax.scan(step, u, taus)[1]


def steady(rates: Rates, u: Array, steps: int = 2, **options: Any) -> Array:
    r"""The steady state from `u`, by `steps` (static) implicit steps of `tau = 100 (H^2 + W^2)`.

    Each divides what is left of a mode of rate `lambda` by `1 + tau lambda`, 1000 for the slowest of homogeneous
    diffusion; a guide with dark lines has slower ones. For a guide alone the closed form is `rescaled`. Original.
    """
    height, width, _ = u.shape
    taus = jnp.full(steps, 100.0 * (height**2 + width**2), u.dtype)
    return trajectory(rates, u, taus, **options)[-1]


def rescaled(guide: Array, u: Array) -> Array:
    """The closed form `(mean u / mean v) v` of the steady state, per channel. Source: Weickert et al. 2013, prop. 1."""
    return guide * (jnp.mean(u, (0, 1), keepdims=True) / jnp.mean(guide, (0, 1), keepdims=True))


def _halved(x: Array, axis: int) -> Array:
    """Sums of neighbours along an axis, an odd last one alone."""
    x = _pad(x, axis, (0, x.shape[axis] % 2))
    return x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :]).sum(axis + 1)


def _blocks(x: Array) -> Array:
    """Sums over blocks of 2 x 2 pixels, those at an odd end smaller."""
    return _halved(_halved(x, 0), 1)


def _spread(x: Array, shape: tuple[int, ...]) -> Array:
    """Each block's value at its pixels, cropped to `shape`."""
    height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, None, :, None], (height, 2, width, 2, channels))
    return wide.reshape(2 * height, 2 * width, channels)[: shape[0], : shape[1]]


def coarser(rates: Rates) -> Rates:
    r"""The chain that blocks of 2 x 2 pixels see, mass inside a block as `weight`; rates are halved.

    The Galerkin product of block sums and weights is again a chain of such rates, but twice too fast, because a block's
    neighbours are two pixels away. Source: Braess 1995, Computing 55 (overcorrection), here for non-symmetric rates.
    """
    weight = _blocks(rates.weight)
    share = rates.weight / _spread(weight, rates.weight.shape)
    return Rates(
        0.5 * _halved((rates.down * share[:-1])[1::2], 1),
        0.5 * _halved((rates.up * share[1:])[1::2], 1),
        0.5 * _halved((rates.right * share[:, :-1])[:, 1::2], 0),
        0.5 * _halved((rates.left * share[:, 1:])[:, 1::2], 0),
        weight,
    )


@described
class Level(NamedTuple):
    """One grid of the solver for `(I - tau A) u = b`.

    Attributes:
      rates: the chain of `tau A` on this grid.
      inverse: `1 / (1 + tau outflow)`, (H, W, C).
      share: of the mass of its block that each pixel has, (H, W, C).
    """

    rates: Rates
    inverse: Array
    share: Array


def hierarchy(rates: Rates, tau: Array | float) -> list[Level]:
    """The solver's grids, from the pixels down to one block; their number is static."""
    scaled = replace(jax.tree.map(lambda rate: tau * rate, rates), weight=rates.weight)
    levels = []
    while max(scaled.weight.shape[:2]) > 1:
        coarse = coarser(scaled)
        share = scaled.weight / _spread(coarse.weight, scaled.weight.shape)
        levels.append(Level(scaled, 1 / (1 + scaled.outflow()), share))
        scaled = coarse
    return levels


def cycle(levels: list[Level], b: Array) -> Array:
    r"""One multigrid V-cycle for `(I - tau A) u = b` from 0: red-black Gauss-Seidel, block sums down, weights up.

    One sweep before and one after the coarse grid. Linear in `b`. Source: Braess 1995, as `coarser`.
    """
    if not levels:
        return b
    (rates, inverse, share), *rest = levels
    i, j = jnp.ogrid[: b.shape[0], : b.shape[1]]
    red = ((i + j) % 2 == 0)[..., None]

    def relax(u: Array, colour: Array) -> tuple[Array, None]:
        return jnp.where(colour, (b + rates.inflow(u)) * inverse, u), None

    # as scans, because XLA fuses written-out sweeps and computes each anew for every neighbour that reads it
    u, _ = jax.lax.scan(relax, jnp.zeros_like(b), jnp.stack([red, ~red]))
    coarse = cycle(rest, _blocks(b - u + rates(u)))
    return jax.lax.scan(relax, u + share * _spread(coarse, b.shape), jnp.stack([~red, red]))[0]

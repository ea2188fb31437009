"""The properties of osmosis, measured on images, as `axioms` measures those of a process on laws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.scalespace import osmosis
from diffinv.scalespace.axioms import PropertyReport, _exact, _sequence, elements
from diffinv.scalespace.divergences import PHI, phi_divergence
from diffinv.typing import Array, Key


def _share(u: Array) -> Array:
    return u / jnp.sum(u, (0, 1), keepdims=True)


def grey_properties(
    guide: Array, images: Array, key: Key, taus: Sequence[float] = (1, 4, 16, 64, 256, 1e4)
) -> PropertyReport:
    """Every property of osmosis towards a guide, measured.

    The properties are: initial state, semigroup, falling phi-divergences, invariances, average grey value, positivity
    and steady state. An invariance is a joint one: the guide is moved with the image. The function looks at values, so
    it cannot be compiled; the tolerances have a meaning in float64 only.

    Source: Weickert et al. 2013, proposition 1; the divergences and their tests are original.

    Args:
      guide: (H, W, C), positive.
      images: (N, H, W, C), positive.
      key: of the random permutation.
      taus: the successive implicit steps, in pixels squared.
    """
    rates, taus = osmosis.osmosis(guide), np.asarray(taus, np.float64)
    evolve = lambda rates, u: osmosis.trajectory(rates, u, jnp.asarray(taus, u.dtype), tolerance=1e-13)
    paths = jnp.concatenate([images[:, None], jax.vmap(evolve, (None, 0))(rates, images)], 1)
    times, goal = np.concatenate([[0.0], np.cumsum(taus)]), jax.vmap(lambda u: osmosis.rescaled(guide, u))(images)
    scale = float(jnp.max(jnp.abs(images)))
    far = lambda a, b: float(jnp.max(jnp.abs(a - b))) / scale
    each = range(len(times))
    rows = [
        _exact("initial", "u(0) = f", [0.0], [far(paths[:, 0], images)], 0.0),
        _exact(
            "semigroup", "P^(j + k) = P^j P^k, explicit, tau = 0.12", [0.12 * 7], [_powers(rates, images[0])], 1e-12
        ),
    ]
    for name in ("kl", "chi2", "tv"):
        apart = lambda u, phi=PHI[name]: phi_divergence(_share(u), _share(guide), phi) / guide.shape[2]
        values = np.asarray(jax.vmap(jax.vmap(apart))(paths)).T
        worst = values[:, np.argmax(np.diff(values, axis=0).max(0))][:, None]
        rows.append(_sequence(f"{name}_to_guide", f"{name}(u | v) never rises, of any image", times, worst, False))
    groups = elements(key, *guide.shape[:2])
    moved = _moved(guide, images[0], np.array([order for orders in groups.values() for order in orders]), evolve)
    for name, orders in groups.items():
        worst, moved = np.max(moved[: len(orders)], 0) / scale, moved[len(orders) :]
        rows.append(_exact(name, "osmosis of (g u, g v) = g osmosis of (u, v)", times, [0.0, *worst.tolist()], 1e-9))
    grey = jnp.mean(paths, (2, 3))
    kept = [far(grey[:, i], grey[:, 0]) for i in each]
    rows.append(_exact("average_grey", "mean u(t) = mean f, of every image", times, kept, 1e-12))
    below = [max(0.0, -float(jnp.min(paths[:, i]))) for i in each]
    rows.append(_exact("positivity", "u(t) > 0", times, below, 0.0, f"least value {float(jnp.min(paths)):.3g}"))
    away = [far(paths[:, i], goal) for i in each]
    last = _exact("steady", "u -> (mean f / mean v) v", times[-1:], away[-1:], 1e-3)
    rows.append(last._replace(times=list(map(float, times)), values=away, errors=[0.0] * len(away)))
    truth = {"permutations": "fails", "shifts": "fails"}
    rows = [row._replace(expected=truth.get(row.name, "holds")) for row in rows]
    return PropertyReport("osmosis", rows)


def _powers(rates: osmosis.Rates, u: Array) -> float:
    """Three and four explicit steps against seven."""
    run = lambda u, steps: jax.lax.fori_loop(0, steps, lambda _, x: osmosis.explicit(rates, x, 0.12), u)
    whole = run(u, 7)
    return float(jnp.max(jnp.abs(run(run(u, 3), 4) - whole)) / jnp.max(whole))


def _moved(guide: Array, u: Array, orders: np.ndarray, evolve: Callable[[osmosis.Rates, Array], Array]) -> np.ndarray:
    """(orders, times): how far osmosis of the moved pair is from the moved osmosis."""
    move = lambda x, order: x.reshape(-1, x.shape[-1])[order].reshape(x.shape)
    still = evolve(osmosis.osmosis(guide), u)

    def apart(order: Array) -> Array:
        moved = evolve(osmosis.osmosis(move(guide, order)), move(u, order))
        return jnp.max(jnp.abs(moved - jax.vmap(move, (0, None))(still, order)), (1, 2, 3))

    return np.asarray(jax.vmap(apart)(jnp.asarray(orders)))

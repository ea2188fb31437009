"""A card's certificate: what its network makes of a fixed picture, by which another machine's can be compared."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffinv import prior, times
from diffinv.typing import Array
from diffinv.weights import cards
from diffinv.weights.cards import LEVELS
from diffinv.weights.loading import architecture

TOLERANCE = 1e-4  # of the reference outputs, relative to their root mean square; ours, and no file's


def probe(shape: tuple[int, ...]) -> Array:
    """A fixed picture of unit variance, `sqrt(2) sin(0.9 n + 1e-3 n^2)` at the flat index n; float32."""
    n = np.arange(np.prod(shape), dtype=np.float64)
    return jnp.asarray(np.sqrt(2) * np.sin(0.9 * n + 1e-3 * n**2), jnp.float32).reshape(shape)


def probe_shape(card: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a probe for the card's network, of a prior or of an upscaler's result; (H, W, C).

    Its sides leave two pixels at the network's coarsest level, or are the native ones where these are smaller.
    Raises ValueError for an architecture that is not in the table of `cards`.
    """
    net = architecture(card)
    side = 2 * cards.side_multiple(net)
    height, width, channels = card.get("shape", (side, side, net.out_channels))
    return (min(side, height), min(side, width), channels)


def references(prior: prior.Prior, shape: tuple[int, ...]) -> Array:
    """What a prior makes of `probe(shape)` at the ratios `LEVELS`: mean, root mean square and eight values of x0 (and
    of the learned variance's share), shape (levels, 10). The static `shape` must suit the network.
    """

    def at(ratio: Array) -> Array:
        t = times.from_sigma(prior.process, ratio).astype(jnp.float32)
        scale = jnp.sqrt(prior.process.alpha(t) ** 2 + prior.process.sigma(t) ** 2).astype(jnp.float32)
        x0, v = prior.predict(scale * probe(shape), t)
        out = (x0 if v is None else jnp.concatenate([x0, v], -1)).ravel()
        few = out[np.linspace(0, out.size - 1, 8).astype(int)]
        return jnp.concatenate([jnp.stack([jnp.mean(out), jnp.sqrt(jnp.mean(out**2))]), few])

    return jax.lax.map(at, jnp.asarray(LEVELS, jnp.float32))


def certified(values: ArrayLike, shape: tuple[int, ...]) -> dict[str, Any]:
    """The card's `certificate`: `references` as they are today.

    Raises ValueError where a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the network's reference outputs are not finite; its weights or its schedule are wrong")
    columns = "mean, root mean square and eight values of the denoised probe; rows: noise-to-signal ratios"
    fields = {"shape": list(shape), "levels": list(LEVELS), "columns": columns}
    return {**fields, "values": [[float(f"{v:.8g}") for v in row] for row in values]}


def verify(card: dict[str, Any], values: Array) -> float:
    """The largest relative deviation of `values` from the card's certificate.

    Raises ValueError where there is no certificate, or where the deviation exceeds `TOLERANCE`, whatever the
    file says of it.
    """
    if "certificate" not in card:
        raise ValueError("the card has no certificate; import the checkpoint again to give it one")
    kept, found = np.asarray(card["certificate"]["values"], np.float64), np.asarray(values, np.float64)
    if kept.shape != found.shape or not (kept[:, 1] > 0).all():
        raise ValueError("card.certificate has other values than the network gives; import the checkpoint again")
    deviation = float(np.max(np.abs(found - kept) / kept[:, 1:2]))
    if not deviation <= TOLERANCE:
        raise ValueError(
            f"the network's reference outputs deviate by {deviation:.2g} of their root mean square, {TOLERANCE:g} is "
            "allowed; this code or machine computes another network"
        )
    return deviation

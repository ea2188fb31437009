"""Magnetic resonance imaging in `experiments.reconstruct`: k-space that is simulated, and what is left of real scans.

Pictures are magnitudes on the [-1, 1] scale, -1 where there is no signal: what is measured is `x + 1`, and its k-space
less that of 1 is a linear measurement of x with the same noise.

A scan's phase goes into its coils, which are estimated from the fully sampled centre (`operators.estimated_coils`); the
picture is real, and what the centre does not see of the phase is misfit, as the coils' own errors are. The prior knows
magnitudes alone: of a picture of two parts it would leave the imaginary one without a prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffinv import GaussianNoise, linalg, operators
from diffinv.measurement import Measurement
from diffinv.operators.base import Composed, Operator
from diffinv.schema import Schema, number, whole
from diffinv.typing import Array, Key
from experiments.restore.scans import FEWEST, Scan

FASTMRI = {"mri_4": (4, 0.08), "mri_8": (8, 0.04)}
"""Acceleration and share of lines in the centre, as fastMRI has them (arXiv:1811.08839, section 5.1)."""

FIELDS: Schema = {
    "acceleration": whole("of task mri: a line of so many is sampled", 1, 64),
    "centre": number("share of the lines that are in the fully sampled centre, of task mri", 0, 1),
    "coils": whole("that are simulated; 1: none, of --kspace: its own", 1, 64),
}


def lines(config: ConfigDict, task: str, count: int) -> tuple[int, int]:
    """The acceleration, and how many of `count` lines lie in the centre."""
    acceleration, share = FASTMRI.get(task, (config.mri.acceleration, config.mri.centre))
    return acceleration, round(share * count)


def mask(config: ConfigDict, task: str, key: Key, size: tuple[int, int]) -> Array:
    """The columns of k-space (H, W) that are sampled."""
    acceleration, centre = lines(config, task, size[1])
    return operators.cartesian_mask(key, size, acceleration, centre)


def simulated(config: ConfigDict, task: str, key: Key, shape: tuple[int, ...]) -> Operator:
    """The operator of a simulated measurement of pictures of this shape, (H, W, 1)."""
    size = shape[:2]
    coils = operators.simulated_coils(size, config.mri.coils) if config.mri.coils > 1 else None
    return operators.real_mri(mask(config, task, key, size), coils)


def measurement(config: ConfigDict, task: str, key: Key, scan: Scan, degraded: bool) -> Measurement:
    """What a mask leaves of a scan, of which the coils are estimated; as it is where it is `degraded` already.

    The part that a real picture explains is kept, as of a simulated measurement; the rest tells the deviation.
    """
    size = scan.sampled.shape
    sampled = jnp.asarray(scan.sampled)
    kept = sampled if degraded else sampled & (mask(config, task, key, size) > 0)
    side = scan.centre if degraded else min(lines(config, task, size[1])[1], scan.centre)
    kspace = jnp.where(kept, jnp.asarray(scan.kspace), 0)
    operator = operators.real_mri(kept, operators.estimated_coils(kspace, side))
    y = kspace + operator(jnp.full((*size, 1), -1.0, jnp.float32))
    explained = operator.project(y)
    sigma = jnp.maximum(jnp.float32(scan.sigma), unexplained(operator, linalg.norm(y - explained)))
    return Measurement(operator, explained, GaussianNoise(sigma))


def unexplained(operator: Composed, rest: Array) -> Array:
    """The deviation of what no real picture explains, `|y - A A^+ y| / sqrt(dim y - dim x)`; 0 of fewer numbers in y.

    Several coils measure more than a picture has. Noise leaves its own deviation there, and errors of the coils and of
    the phase add to it: told of the noise alone, a method would fit them.
    """
    measured = 2 * len(operator.outer.sensitivities) * jnp.sum(operator.outer.mask != 0)
    spare = measured - math.prod(operator.shape)
    return jnp.where(spare > 0, rest / jnp.sqrt(jnp.maximum(spare, 1).astype(rest.dtype)), 0.0)


def require_tasks(config: ConfigDict, tasks: list[str], found: Sequence[Scan], degraded: bool) -> None:
    """Raises ValueError for tasks that a scan cannot be given to, or scans that lack what a task hides."""
    for task in tasks:
        known = ["mri"] if degraded else ["mri", *FASTMRI]
        if task not in known:
            given = "--kspace --degraded" if degraded else "--kspace"
            raise ValueError(f"config.task is {task}, and {given} is k-space; give {' or '.join(known)}")
        for each in found:
            if not degraded and lines(config, task, each.sampled.shape[1])[1] < FEWEST:
                raise ValueError(
                    f"config.task is {task}, whose centre has under {FEWEST} lines, and coils need them; give another"
                )
    for each in found:
        if not (each.whole or degraded):
            share = f"{each.sampled.mean():.1%}"
            raise ValueError(f"{each.name} is sampled at {share}; --degraded --config.task=mri restores it as it is")

r"""Computed tomography in the plane: integrals of a picture along rays, parallel or from a point.

    y[view, bin] = sum_i step x(p_i),    p_i equidistant on the ray

The picture is interpolated bilinearly between pixel centres and 0 outside. Lengths are in pixels; the origin is the
pixel (H//2, W//2), as in `skimage.transform.radon`. The adjoint is the exact transpose (back-projection).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.ndimage import map_coordinates

from diffinv.fft import at_least_single
from diffinv.operators.arguments import picture_shape, radians, require_one_of, static_number, whole_number
from diffinv.operators.base import LinearOperator, real_scalar
from diffinv.typing import Array, Measured, Sample


@struct.dataclass
class RayTransform(LinearOperator):
    """(H, W, C) -> (views, bins, C); build it with `parallel_beam` or `fan_beam`.

    One view at a time is held in memory. Places and sums are in single precision at least: half of it does not tell
    neighbouring pixels apart. `solve`, `pinv` and `project` run conjugate gradients: tomography is ill-posed, and
    stopping early regularises.

    Attributes:
      feet: the point of each ray nearest to the origin, as (row, column), (views, bins, 2).
      directions: unit vectors along the rays, as (row, column), (views, bins, 2).
      input_shape: (H, W, C); static.
      samples: points on each ray, about its foot; static.
      step: the distance between them, in pixels; static.
    """

    feet: Array
    directions: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    samples: int = struct.field(pytree_node=False)
    step: float = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        planes = jnp.moveaxis(at_least_single(x), -1, 0)

        @jax.checkpoint
        def view(rays: tuple[Array, Array]) -> Array:
            points = self._points(*(ray.astype(planes.dtype) for ray in rays))
            along = jax.vmap(lambda plane: map_coordinates(plane, points, 1))(planes)
            return real_scalar(self.step, planes) * jnp.sum(along, -1).T

        return jax.lax.map(view, (self.feet, self.directions)).astype(x.dtype)

    def _points(self, feet: Array, directions: Array) -> list[Array]:
        """Row and column, each (bins, samples), of the points on the rays of one view."""
        offset = self.step * (np.arange(self.samples) - (self.samples - 1) / 2)
        offset = jnp.asarray(offset, feet.dtype)[None, :]
        centre = [n // 2 for n in self.shape[:2]]
        return [centre[i] + feet[:, i : i + 1] + directions[:, i : i + 1] * offset for i in (0, 1)]


def parallel_beam(
    shape: tuple[int, ...], angles: Array, bins: int | None = None, spacing: float = 1.0, step: float = 0.5
) -> RayTransform:
    r"""Parallel rays: `y[view, bin]` is the integral over `s = column cos a - row sin a`, the bin's place.

    Source: Radon 1917; the angle's sense and the origin are those of `skimage.transform.radon`, which gives (bins,
    views) and turns the picture instead of the rays.

    Args:
      shape: of one picture, (H, W, C); static.
      angles: (views,) radians; dynamic.
      bins: of the detector, by default the larger side; bin `bins // 2` sees the origin. Static.
      spacing: of the bins, and step: of the points on a ray; pixels; static.

    Raises:
      ValueError: where the angles are not (views,) or more than a turn (degrees), or a number is not positive.
    """
    shape, angles, bins, spacing, step = _checked(shape, angles, bins, spacing=spacing, step=step)
    place = jnp.asarray(spacing * (np.arange(bins) - bins // 2), float)
    normal = jnp.stack((-jnp.sin(angles), jnp.cos(angles)), -1)[:, None, :]
    along = jnp.stack((jnp.cos(angles), jnp.sin(angles)), -1)[:, None, :]
    feet = place[None, :, None] * normal
    return _rays(feet, jnp.broadcast_to(along, feet.shape), shape, step)


def fan_beam(
    shape: tuple[int, ...],
    angles: Array,
    source: float,
    fan: float,
    bins: int | None = None,
    detector: str = "arc",
    step: float = 0.5,
) -> RayTransform:
    r"""Rays from a point on a circle of radius `source`; the ray at `g` from the central one passes the origin at
    `s = source sin g`, and is the parallel ray of the angle `a + g` there.

    The source of the view `a` lies at (row, column) = `-source (cos a, sin a)` from the origin: at 0 on the first
    row's side, at pi/2 on the first column's. Source: Kak and Slaney 1988, "Principles of computerized tomographic
    imaging", section 3.4, whose y axis points up. ASTRA's "fanflat" starts on the last row's side: add pi, and turn
    the bins round, for its angles.

    Args:
      shape: of one picture, (H, W, C); static.
      angles: (views,) of the source, radians; dynamic.
      source: distance from the origin, beyond the picture's corners, in pixels; static.
      fan: the full opening angle, in (0, pi) radians; static.
      bins: of the detector, by default the larger side. Static.
      detector: "arc" has equal angles between rays, "flat" equal distances on a line; static.
      step: of the points on a ray, pixels; static.

    Raises:
      ValueError: where an argument is out of range.
    """
    shape, angles, bins, source, step = _checked(shape, angles, bins, source=source, step=step)
    fan = static_number("fan", fan, 0, 3.14, instead="the full angle in radians, np.radians(degrees)", above=True)
    require_one_of("detector", detector, "arc", "flat")
    if source <= np.hypot(*shape[:2]) / 2 + 1:
        raise ValueError(f"source is {source}; it must lie outside the picture {shape[:2]}: move it away")
    place = (np.arange(bins) - (bins - 1) / 2) / bins
    spread = fan * place if detector == "arc" else np.arctan(2 * np.tan(fan / 2) * place)
    turned = angles[:, None] + jnp.asarray(spread, float)[None, :]
    normal = jnp.stack((-jnp.sin(turned), jnp.cos(turned)), -1)
    feet = jnp.asarray(source * np.sin(spread), float)[None, :, None] * normal
    return _rays(feet, jnp.stack((jnp.cos(turned), jnp.sin(turned)), -1), shape, step)


def _rays(feet: Array, directions: Array, shape: tuple[int, int, int], step: float) -> RayTransform:
    """Long enough to cross the picture wherever they meet it."""
    reach = np.hypot(shape[0] // 2 + 1, shape[1] // 2 + 1)
    return RayTransform(feet, directions, shape, 2 * int(np.ceil(reach / step)) + 1, step)


def _checked(shape: tuple[int, ...], angles: Array, bins: int | None, **positive: float) -> tuple:
    shape, angles = picture_shape(shape), radians("angles", angles)
    bins = max(shape[:2]) if bins is None else whole_number("bins", bins)
    lengths = [static_number(name, value, 1e-3, math.inf, instead="in pixels") for name, value in positive.items()]
    return shape, angles, bins, *lengths

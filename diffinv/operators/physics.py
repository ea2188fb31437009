"""Operators of waves and fluids: linear inverse scattering, and a Navier-Stokes flow seen later and coarsely."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.fft import at_least_single, irfft2, rfft2
from diffinv.operators.arguments import numbers, picture_shape, radians, require_number, static_number, whole_number
from diffinv.operators.base import LinearOperator, Operator, real_scalar
from diffinv.typing import Array, Measured, Sample


@struct.dataclass
class Scattering(LinearOperator):
    """`y[t, r] = sum_p g_r(p) u_t(p) x_p`, (H, W, 1) -> (transmitters, receivers) complex; see `inverse_scattering`.

    Attributes:
      incident: the fields u_t, (transmitters, H W).
      green: `k^2 dA` times Green's function g_r, (receivers, H W).
      input_shape: (H, W, 1); static.
    """

    incident: Array
    green: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        flat = at_least_single(x.ravel())
        flat = jax.lax.complex(flat, jnp.zeros_like(flat))
        incident, green = self.incident.astype(flat.dtype), self.green.astype(flat.dtype)
        return jnp.matmul(incident * flat[None, :], green.T, precision="highest")


def inverse_scattering(
    shape: tuple[int, ...],
    transmitters: Array | int = 20,
    receivers: Array | int = 360,
    side: float = 0.18,
    wavelength: float = 6.0,
    radius: float = 1.6,
) -> Scattering:
    r"""The field scattered by a weak contrast `x`, first Born approximation, line sources on a circle.

        y[t, r] = k^2 int g(r, p) g(p, t) x(p) dp,    g(a, b) = i/4 H_0^(1)(k |a - b|)

    Source: Zheng et al. 2025 (InverseBench), arXiv:2503.11043; noise 1e-4 there. Differs: their code conjugates the
    incident field, and its pictures are put on a scale of contrast first (`scale`, `intensity`).

    Args:
      shape: (H, W, 1), contrast of permittivity, dimensionless; the origin is the pixel (H//2, W//2). Static.
      transmitters, receivers: angles in radians, 0 on the side of the last column and pi/2 on that of the last row,
        or how many at equal distances (static). InverseBench takes `np.radians(np.linspace(0, 359, n))`: 20, and 360,
        180 or 60.
      side: of the picture's W pixels; radius: of the circle; in one unit of length (there metres).
      wavelength: in pixels. All static.

    Raises:
      ValueError: where the shape has not one channel, or the circle does not enclose the picture.
    """
    from scipy.special import hankel1

    shape = picture_shape(shape)
    lengths = {"side": side, "wavelength": wavelength, "radius": radius}
    side, wavelength, radius = (static_number(name, value, 0, 1e9, above=True) for name, value in lengths.items())
    if shape[2] != 1:
        raise ValueError(f"shape is {shape}; the contrast is real: give (H, W, 1)")
    pixel = side / shape[1]
    if radius <= pixel * math.hypot(*shape[:2]) / 2:
        raise ValueError(f"radius is {radius}; the circle must enclose the picture, of side {side}: widen it")
    k = 2 * np.pi / (wavelength * pixel)
    rows, columns = (pixel * (np.arange(n) - n // 2) for n in shape[:2])
    places = (columns[None, :] + 1j * rows[:, None]).reshape(1, -1)

    def green(name: str, angles: Array | int) -> np.ndarray:
        if np.ndim(angles):
            angles = np.asarray(radians(name, angles))
        else:
            count = whole_number(name, angles)
            angles = 2 * np.pi * np.arange(count) / count
        return 0.25j * hankel1(0, k * np.abs(radius * np.exp(1j * angles)[:, None] - places))

    incident, observed = green("transmitters", transmitters), (k * pixel) ** 2 * green("receivers", receivers)
    return Scattering(jnp.asarray(incident), jnp.asarray(observed), shape)


@struct.dataclass
class NavierStokes(Operator):
    """Vorticity (N, N, 1) at a later time, every `factor`-th pixel of it; build it with `navier_stokes`.

    Attributes:
      force: what drives the vorticity, (N, N).
      reynolds: Reynolds's number.
      gain: the vorticity that a picture's value 1 stands for.
      input_shape: (N, N, 1); static.
      duration: from the picture to the measurement; static.
      steps: of the integration in time; static.
      factor: of the subsampling; static.
    """

    force: Array
    reynolds: Array
    gain: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    duration: float = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)
    factor: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        gain = real_scalar(self.gain, x)
        later = self.evolve(gain * x[:, :, 0])[:: self.factor, :: self.factor, None]
        return later.astype(x.dtype) / gain

    def evolve(self, vorticity: Array) -> Array:
        """The vorticity (N, N) after `duration`."""
        vorticity = at_least_single(vorticity)
        rows, columns = _frequencies(self.shape[0], vorticity.dtype)
        square = rows**2 + columns**2
        force = rfft2(self.force.astype(vorticity.dtype))
        step = self.duration / self.steps
        half = (0.5 * step / real_scalar(self.reynolds, vorticity) * square).astype(force.dtype)

        def drift(w: Array) -> Array:
            return force - _advection(w, rows, columns)

        def heun(w: Array, _: None) -> tuple[Array, None]:
            first = drift(w)
            guess = ((1 - half) * w + step * first) / (1 + half)
            return ((1 - half) * w + 0.5 * step * (first + drift(guess))) / (1 + half), None

        w = jax.lax.scan(jax.checkpoint(heun), rfft2(vorticity), None, self.steps)[0]
        return irfft2(w, (vorticity.shape[0], vorticity.shape[1]))


def _frequencies(n: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Whole wave numbers of `rfft2` on a square of side 2 pi: (n, 1) and (1, n//2 + 1)."""
    return jnp.asarray(np.fft.fftfreq(n, 1 / n), dtype)[:, None], jnp.asarray(np.arange(n // 2 + 1), dtype)[None, :]


def _advection(w: Array, rows: Array, columns: Array) -> Array:
    """The transform of `div(velocity w)` for the velocity `(d psi / dy, -d psi / dx)`, `-laplace psi = w`."""
    n = rows.shape[0]
    kept = (jnp.abs(rows) < n / 3) & (columns < n / 3)
    square = rows**2 + columns**2
    w = jnp.where(kept, w, 0.0)
    stream = w / jnp.where(square > 0, square, 1.0).astype(w.dtype)
    dx, dy = (jax.lax.complex(jnp.zeros_like(k), k) for k in (rows, columns))

    def back(z: Array) -> Array:
        return irfft2(z, (n, n))

    flow = [back(dy * stream), back(-dx * stream)]
    values = back(w)
    products = [rfft2(u * values) for u in flow]
    return jnp.where(kept, dx * products[0] + dy * products[1], 0.0)


def navier_stokes(
    shape: tuple[int, ...],
    factor: int = 2,
    reynolds: Array | float = 200.0,
    duration: float = 1.0,
    steps: int = 200,
    gain: Array | float = 10.0,
    force: Array | None = None,
) -> NavierStokes:
    r"""Two-dimensional incompressible flow on the periodic square of side 2 pi, in vorticity.

        dw/dt + u . grad w = laplace w / Re + f,    y = w(duration) / gain,   w(0) = gain x

    Pseudo-spectral with the 2/3 rule, Heun for the advection and the force, Crank-Nicolson for the viscosity: of second
    order. Both sides are divided by `gain`, so that x and y are about [-1, 1].

    Source: Zheng et al. 2025 (InverseBench), arXiv:2503.11043: 128 x 128, Re 200, duration 1, force -4 cos(4 y).
    Differs: `steps` equal steps where they adapt them to the speed, a square dealiasing mask for their disk, and their
    measurement is not divided by the gain (10): their noise levels 0, 1, 2 are 0, 0.1, 0.2 here.

    Args:
      shape: (N, N, 1), N even; axis 0 is x and axis 1 is y. Static.
      factor: keeps every such pixel; steps: of time; duration, dimensionless; all static.
      reynolds, gain: dynamic.
      force: (N, N) or None for InverseBench's.

    Raises:
      ValueError: where the shape is not square and even, the factor does not divide it, or steps is not positive.
    """
    shape, factor, steps = (
        picture_shape(shape),
        whole_number("factor", factor),
        whole_number("steps", steps, most=10**6),
    )
    n = shape[0]
    if shape != (n, n, 1) or n % 2 or n % factor:
        raise ValueError(f"shape, factor are {shape}, {factor}; give (N, N, 1), N even, and a divisor of N")
    duration = static_number("duration", duration, 0, above=True)
    require_number("reynolds", reynolds, 0, above=True)
    require_number("gain", gain, 0, above=True)
    y = 2 * np.pi * np.arange(n) / n
    force = np.broadcast_to(-4 * np.cos(4 * y)[None, :], (n, n)) if force is None else force
    force = numbers("force", force)
    if force.shape != (n, n):
        raise ValueError(f"force has shape {force.shape}; it must be {(n, n)}")
    return NavierStokes(force, jnp.asarray(reynolds, float), jnp.asarray(gain, float), shape, duration, steps, factor)

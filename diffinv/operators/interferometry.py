r"""Radio interferometry of a black hole: visibilities on baselines, and the closures that no station's gain can spoil.

    V(u, v) = sum_rc I[r, c] exp(-2 pi i (u l_c + v m_r)),    l_c = (W//2 - c) pixel,   m_r = (H//2 - r) pixel

East (l) is left and north (m) is up, as the sky is drawn; `u, v` in wavelengths, `pixel` in radians, I in Jy a pixel.
"""

from __future__ import annotations

import gzip
import itertools
from os import PathLike
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.describe import described
from diffinv.fft import at_least_single
from diffinv.operators.arguments import numbers, picture_shape, static_number
from diffinv.operators.base import LinearOperator, Operator, divide
from diffinv.operators.nonuniform import summed, waves
from diffinv.typing import Array, Measured, Sample

MICROARCSECOND = np.pi / 180 / 3600 * 1e-6


@struct.dataclass
class Visibilities(LinearOperator):
    """(H, W, 1) in Jy to (K,) complex Jy; build it with `visibilities`.

    Attributes:
      rows: the waves of the sum along the vertical axis, (K, H).
      columns: the waves of the sum along the horizontal axis, (K, W).
      input_shape: (H, W, 1); static.
    """

    rows: Array
    columns: Array
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Sample) -> Measured:
        z = at_least_single(x[:, :, 0])
        z = jax.lax.complex(z, jnp.zeros_like(z))
        return summed(z, self.rows, self.columns)


def visibilities(shape: tuple[int, ...], uv: Array, pixel: float) -> Visibilities:
    """Visibilities of a picture of Jy (H, W, 1) on the baselines `uv`; noise of its own for each: `scale` or stack.

    Source: Thompson, Moran, Swenson 2017, "Interferometry and synthesis in radio astronomy", the van Cittert-Zernike
    sum. A picture in [-1, 1] goes through `intensity` first: `compose(visibilities(...), intensity(...))`.

    Args:
      shape: (H, W, 1); static.
      uv: (K, 2) baselines (u, v) in wavelengths; dynamic.
      pixel: the side of one, in radians: `MICROARCSECOND` times microarcseconds.

    Raises:
      ValueError: where the shape or uv do not fit, or the pixel is not positive.
    """
    shape, uv = picture_shape(shape), numbers("uv", uv, 2, "(K, 2) wavelengths")
    pixel = static_number("pixel", pixel, 0, instead="in radians", above=True)
    if shape[2] != 1 or uv.shape[1] != 2:
        raise ValueError(f"shape, uv are {shape}, {uv.shape}; give (H, W, 1) and (K, 2)")
    cycles = -pixel * jnp.stack((shape[0] * uv[:, 1], shape[1] * uv[:, 0]), -1)
    rows, columns = (n**0.5 * wave for n, wave in zip(shape, waves(shape[:2], cycles), strict=False))
    return Visibilities(rows, columns, shape)


@struct.dataclass
class Closure(Operator):
    """Products of visibilities around loops of stations; build it with `closure_phases` or `closure_amplitudes`.

    Attributes:
      visibility: the operator that gives all visibilities, (K,).
      index: the visibilities of each loop, (L, n).
      sign: 1 or -1, (L, n); for phases -1 conjugates a visibility, for amplitudes it divides by it.
      kind: "phase" or "amplitude"; static.
    """

    visibility: Operator
    index: Array
    sign: Array
    kind: str = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.visibility.shape

    def __call__(self, x: Sample) -> Measured:
        return self.of(self.visibility(x))

    def of(self, v: Array) -> Array:
        """The closures of measured or modelled visibilities (K,)."""
        loops = v[self.index.astype(int)]
        sign = self.sign.astype(v.real.dtype)
        if self.kind == "amplitude":
            return jnp.sum(sign * jnp.log(jnp.maximum(jnp.abs(loops), jnp.finfo(sign.dtype).tiny)), -1)
        around = jnp.prod(jax.lax.complex(loops.real, sign * loops.imag), -1)
        return divide(around, jnp.abs(around))


def closure_phases(visibility: Operator, time: np.ndarray, stations: np.ndarray) -> Closure:
    r"""`B / |B|` with the bispectrum `B = V_ab V_bc V_ca`, (L,) complex of modulus 1: station phases cancel.

    As a unit number instead of an angle: smooth across pi, and `|y - y'|^2 = 2 - 2 cos` of the angles' difference, the
    statistic of Chael et al. 2018. `jnp.angle` gives the phase.

    Source: Chael et al. 2018, arXiv:1803.07088, eq. 9 and 11. An independent set of triangles for each time.

    Args:
      visibility: to (K,) complex; `Visibilities`, or a `compose` that ends in it.
      time: (K,), equal where baselines belong together. stations: (K, 2), two names each, V being of first to second.

    Raises:
      ValueError: where no triangle closes.
    """
    return _closure(visibility, time, stations, 3, "phase")


def closure_amplitudes(visibility: Operator, time: np.ndarray, stations: np.ndarray) -> Closure:
    r"""`log(|V_ab| |V_cd| / (|V_ac| |V_bd|))`, (L,): station gains cancel.

    Source: Chael et al. 2018, arXiv:1803.07088, eq. 10. An independent set of quadrangles for each time. Arguments and
    errors as for `closure_phases`.
    """
    return _closure(visibility, time, stations, 4, "amplitude")


def _closure(visibility: Operator, time: np.ndarray, stations: np.ndarray, sides: int, kind: str) -> Closure:
    time, stations = np.asarray(time), np.asarray(stations)
    if stations.shape != (len(time), 2):
        raise ValueError(f"time, stations have {time.shape}, {stations.shape}; they must be (K,) and (K, 2)")
    loops = [loop for moment in np.unique(time) for loop in _loops(np.flatnonzero(time == moment), stations, sides)]
    if not loops:
        raise ValueError(f"stations close no loop of {sides} at any time: give all baselines of {sides} stations")
    index, sign = np.asarray(loops).swapaxes(0, 1)
    return Closure(visibility, jnp.asarray(index), jnp.asarray(sign, float), kind)


def _loops(rows: np.ndarray, stations: np.ndarray, sides: int) -> list[tuple[list[int], list[int]]]:
    """Independent triangles or quadrangles among the baselines `rows`: for each its indices and signs."""
    where = {tuple(stations[row]): (row, 1) for row in rows}
    where |= {(b, a): (row, -1) for (a, b), (row, _) in where.items()}
    names = sorted({name for pair in where for name in pair})
    kept = []
    reduced: list[dict[int, float]] = []
    for corners in itertools.combinations(names, sides):
        for loop in _orders(corners):
            if all(pair in where for pair in loop):
                index, turned = map(list, zip(*(where[pair] for pair in loop), strict=True))
                sign = turned if sides == 3 else [1, 1, -1, -1]
                if _independent(reduced, dict(zip(index, sign, strict=True))):
                    kept.append((index, sign))
    return kept


def _orders(corners: tuple[str, ...]) -> list[list[tuple[str, str]]]:
    """A triangle's sides in turn; of a quadrangle the two independent pairings, numerator first."""
    a, b, c, *d = corners
    if not d:
        return [[(a, b), (b, c), (c, a)]]
    d = d[0]
    return [[(a, b), (c, d), (a, c), (b, d)], [(a, c), (b, d), (a, d), (b, c)]]


def _independent(reduced: list[dict[int, float]], row: dict[int, float]) -> bool:
    """Whether the sparse `row` is no combination of the `reduced` ones, to which its remainder is added."""
    for other in reduced:
        lead = next(iter(other))
        share = row.get(lead, 0.0) / other[lead]
        if share:
            row = {i: row.get(i, 0.0) - share * other.get(i, 0.0) for i in {**row, **other}}
            row = {i: value for i, value in row.items() if abs(value) > 1e-9}
    if row:
        reduced.append(row)
    return bool(row)


@described
class Observation(NamedTuple):
    """A night of one source.

    Attributes:
      time: of each visibility, in hours, (K,).
      stations: its two stations, (K, 2).
      uv: its baseline, in wavelengths, (K, 2).
      visibility: complex, in Jy, (K,).
      sigma: its standard deviation, in Jy, (K,).
    """

    time: np.ndarray
    stations: np.ndarray
    uv: np.ndarray
    visibility: np.ndarray
    sigma: np.ndarray


def read_visibilities(path: str | PathLike) -> Observation:
    """Reads the Event Horizon Telescope's public table, `.csv` or `.csv.gz`.

    Columns: time (UTC hours), two stations, u and v (wavelengths), amplitude (Jy), phase (degrees), sigma (Jy). Source:
    EHT Collaboration 2019, first M87 data release (2019-D01-01). Raises ValueError where a row has not eight columns.
    """
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rt") as file:
        rows = [line.strip().split(",") for line in file if line.strip() and not line.startswith("#")]
    widths = {len(row) for row in rows}
    if widths != {8}:
        raise ValueError(f"{path} has {sorted(widths)} columns; it must have 8: time, T1, T2, U, V, amp, phase, sigma")
    rows = np.array(rows)
    time, u, v, amplitude, phase, sigma = rows[:, [0, 3, 4, 5, 6, 7]].astype(float).T
    value = amplitude * np.exp(1j * np.radians(phase))
    return Observation(time, rows[:, 1:3], np.stack((u, v), -1), value, sigma)

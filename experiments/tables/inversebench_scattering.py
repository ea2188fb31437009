"""InverseBench's linear inverse scattering with random fields: PSNR of samplers beside the exact posterior's.

    python -m experiments.tables.inversebench_scattering [--quick] [--side=32] [--receivers=360] [--seeds=16]

The operator of Zheng et al. 2025 (arXiv:2503.11043): first Born approximation, wavelength of 6 pixels, 20 transmitters
and 360, 180 or 60 receivers on a circle of 1.6 m around 0.18 m of 128 pixels, complex noise 1e-4, x in [-1, 1].
Differs: the pictures are our own, Gaussian random fields, and so the denoiser and the posterior are exact where theirs
are cells and a trained network; `side` pixels of their size, transmitters, receivers and noise in proportion, which
keeps data per unknown and their noise as they are; PSNR is not clipped; each method's one hyperparameter is
chosen by PSNR on other fields. Their numbers tell the order of methods on cells; the levels cannot agree.

chi2 / n is the squared distance to the posterior's mean in its own metric: 1 for exact samples, 0 for the mean itself.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from diffinv import linalg, operators, process, schema
from experiments.methods import lab
from experiments.tables import published, tuned
from experiments.tables.published import Option, Told, counted, named, numbers

REMEMBERED = {
    "FISTA-TV": 32.13, "DDRM": 32.60, "DDNM": 36.38, "PiGDM": 27.93, "DPS": 32.06, "LGD": 27.90, "DiffPIR": 34.24,
    "PnP-DM": 33.91, "DAPS": 34.64, "RED-diff": 36.56, "FPS": 33.24, "MCG-diff": 30.94,
}  # fmt: skip
"""PSNR at 360 receivers, from memory: nobody has compared them with the paper."""
ROWS = {
    "DDRM": "DDRM", "DDNM": "DDNM", "PiGDM": "PiGDM published", "DPS": "DPS", "LGD": "LGD", "DiffPIR": "DiffPIR",
    "PnP-DM": "PnP-DM", "DAPS": "DAPS", "RED-diff": "RED-diff", "FPS": "FPS 16", "MCG-diff": "MCGDiff 16",
    "DDNM+": "DDNM+", "MMPS": "MMPS",
}  # fmt: skip
OPTIONS = {
    "side": Option(32, 16, schema.whole("of the field: 128 there", 4, 64, "pixels")),
    "receivers": Option([360], None, numbers(counted("360, 180, 60, of a side of 128", 10_000, low=1))),
    "seeds": Option(16, 4, counted("fields that are reported", 10_000)),
    "held": Option(2, 1, counted("other fields, on which hyperparameters are chosen", 1000, low=1)),
    "methods": Option(list(ROWS), ["DDRM", "DDNM", "RED-diff"], named(ROWS)),
}
SIDE, TRANSMITTERS, NOISE, CUT, CONTRAST = 128, 20, 1e-4, 10, 0.5
"""Of theirs: pixels, complex noise, singular values that count over it, and contrast of a picture on [-1, 1]."""


class Posterior(NamedTuple):
    """Exact, in white coordinates: `x = white z` with z ~ N(0, I) and `y / sigma = forward z + noise`, in real numbers.

    white: (n, n); forward: (m, n) and its thin singular value decomposition.
    """

    white: np.ndarray
    forward: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray

    def mean(self, y: np.ndarray) -> np.ndarray:
        """Of z given `y / sigma` (m,)."""
        return self.vt.T @ (self.s / (1 + self.s**2) * (self.u.T @ y))

    def sample(self, rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
        """One draw of z."""
        xi = rng.standard_normal(self.vt.shape[1])
        return self.mean(y) + xi + self.vt.T @ ((1 / np.sqrt(1 + self.s**2) - 1) * (self.vt @ xi))

    def distance(self, z: np.ndarray, y: np.ndarray) -> float:
        """`(z - mean)^T C^{-1} (z - mean) / n`."""
        gap = z - self.mean(y)
        return float((np.sum(gap**2) + np.sum((self.forward @ gap) ** 2)) / len(gap))


def spectrum(side: int) -> np.ndarray:
    """Variances of the DCT coefficients (side, side, 1): deviation 0.5 of a pixel, scales above 10 pixels or so."""
    k = np.pi * np.arange(side) / side
    falling = (1 + (k[:, None] ** 2 + k[None] ** 2) / 0.4**2) ** -2.0
    return (0.25 * falling / falling.mean())[..., None]


def matrix(side: int, receivers: int) -> tuple[np.ndarray, float]:
    """Of the scattering in proportion to `side`, in its singular coordinates (k, n), norm 1; and the noise's deviation.

    `U^T y` is as good as y: its noise is as white. Singular values under 10 deviations of the complex noise are left
    out, as their code masks them.
    """
    share = side / SIDE
    counts = (max(3, round(count * share)) for count in (TRANSMITTERS, receivers))
    A = operators.inverse_scattering((side, side, 1), *counts, side=0.18 * share)
    rows = np.asarray(jax.vmap(A)(jnp.eye(side**2).reshape(-1, side, side, 1))).reshape(side**2, -1).T
    _, s, vt = np.linalg.svd(np.stack([rows.real, rows.imag], 1).reshape(-1, side**2), full_matrices=False)
    kept = s > CUT * NOISE * share
    return (s[kept, None] / s[0]) * vt[kept], NOISE * share / np.sqrt(2) / (CONTRAST * s[0])


def exact(A: np.ndarray, sigma: float, variances: np.ndarray) -> Posterior:
    """The posterior of a field with these DCT variances (H, W, 1) seen through A."""
    basis = np.asarray(jax.vmap(linalg.idct_hw)(jnp.eye(variances.size).reshape(-1, *variances.shape)), float)
    white = (basis.reshape(variances.size, -1) * np.sqrt(variances.ravel())[:, None]).T
    forward = A @ white / sigma
    return Posterior(white, forward, *np.linalg.svd(forward, full_matrices=False))


def psnr(x: np.ndarray, truth: np.ndarray) -> float:
    """In dB, for pictures on [-1, 1]."""
    return float(10 * np.log10(4 / np.mean((x.ravel() - truth.ravel()) ** 2)))


def table(options: SimpleNamespace, receivers: int, bar: tqdm) -> tuple[list[tuple[str, ...]], list[list[float]]]:
    """Lines of (method, value, PSNR, chi2 / n, published), and the PSNR of every method, field by field."""
    side, held, count = options.side, options.held, options.held + options.seeds
    A, sigma = matrix(side, receivers)
    law, rng = exact(A, sigma, spectrum(side)), np.random.default_rng(0)
    truth = rng.standard_normal((count, side**2)) @ law.white.T
    y = truth @ A.T + sigma * rng.standard_normal((count, len(A)))
    prior = di.gaussian_field(process.VP(), jnp.zeros((side, side, 1)), jnp.asarray(spectrum(side)))
    operator = operators.dense(jnp.asarray(A), (side, side, 1))
    inverse = np.linalg.inv(law.white)

    def line(name: str, value: str, z: list[np.ndarray]) -> tuple[str, ...]:
        found = [(psnr(law.white @ a, truth[held + i]), law.distance(a, y[held + i] / sigma)) for i, a in enumerate(z)]
        error, distance = zip(*found, strict=True)
        number = Told(f"{REMEMBERED[name]:.2f}", False) if name in REMEMBERED and receivers == 360 else None
        mark = published.told(number) if name in REMEMBERED else "none"
        return name, value, published.cell(error), published.cell(distance), mark

    lines = [
        line("exact mean (best PSNR)", "", [law.mean(each / sigma) for each in y[held:]]),
        line("exact sample (floor)", "", [law.sample(rng, each / sigma) for each in y[held:]]),
        line("prior sample", "", list(rng.standard_normal((options.seeds, side**2)))),
    ]
    results = []
    for name in options.methods:
        method = lab.ROWS[ROWS[name]]
        score = lambda x, i: -psnr(x, truth[i])
        value, samples = tuned.outcome(method, prior, operator, sigma, jnp.asarray(y), held, score, bar)
        results.append([psnr(x, truth[held + i]) for i, x in enumerate(samples)])
        z = [inverse @ x.ravel().astype(float) for x in samples]
        lines.append(line(name, f"{method.knob} {value:.3g}", z))
    return lines, results


def main(options: SimpleNamespace) -> published.Table:
    jax.config.update("jax_enable_x64", True)
    options.methods, count = published.rows("methods", options.methods, list(ROWS)), options.held + options.seeds
    blocks, results = [], []
    calls = [tuned.calls(lab.ROWS[ROWS[name]], count, options.held) for name in options.methods]
    with tqdm(total=len(options.receivers) * sum(calls), unit="batch") as bar:
        for receivers in options.receivers:
            lines, found = table(options, int(receivers), bar)
            results += found
            head = ("method", "chosen", "PSNR, ours", "chi2 / n", "PSNR, theirs (cells)")
            blocks.append(f"{receivers} receivers\n{published.columns([head, *lines])}")
    what = f"Gaussian random fields of {options.side} x {options.side}, mean ± 1.96 s / sqrt({options.seeds})"
    other = f"FISTA-TV, which is not here: {Told(str(REMEMBERED['FISTA-TV']), False)} at 360 receivers."
    text = "Unverified: remembered, and compared with the paper by nobody."
    return published.table("\n\n".join([what, *blocks, f"{other} {text}"]), results)


if __name__ == "__main__":
    published.run(main, OPTIONS)

"""Scale-spaces of data laws: the truth table measured, curves and strips of the trajectories, on one page.

    python -m experiments.scalespace --config=configs/scalespace.py

Writes runs/NAME/index.html and results.json. The digits come with scikit-learn (`pip install scikit-learn`), the
photographs with scikit-image.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import process, scalespace, schema, seed_key
from diffinv.metrics import distribution, features
from diffinv.process import Process
from diffinv.scalespace import grey, laws, osmosis, truth
from diffinv.typing import Array
from experiments.common import pictures
from experiments.common.commandline import listed
from experiments.report import ledger
from experiments.scales import fields, reverse
from experiments.scales import page as scalespace_page

CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "scalespace.py"),
    "a configuration; FILE:smoke for a quick run",
    fields.FIELDS,
    fields.check,
)
OUT = runtime.flag("out", "runs", schema.path("the folder of all runs"))
TITLE = "Probabilistic scale-spaces, measured"
NOTES = (
    "Each cell is a measured verdict; pointing at it shows formula, note, truth table. A star: that leaves it to "
    "the data. Which entropy does what differs from process to process; no verdict is about 'entropy' as such.",
    "Grey values are in [0, 1]. Curves: the entropy is that of the histogram of grey values over a picture's range, in "
    "64 bins, averaged over pictures (the one entropy that laws with and without a density share); the variance is a "
    "picture's own; I(U_0; U_t) is exact up to Monte Carlo; for the two deterministic trajectories it is what a "
    "reading with noise of the stated resolution still tells, given the guide. Time is normalised; clocks differ.",
)


class Data(NamedTuple):
    """Pictures (N, H, W, 1) in [0, 1], and what they are."""

    images: Array
    about: str


def digits(config) -> Data:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "the digits need scikit-learn; pip install scikit-learn, or --config.data=photographs"
        ) from None
    return Data(jnp.asarray(load_digits().images[..., None] / 16.0), "1797 scikit-learn digits, 8 x 8")


def photographs(config) -> Data:
    """Random crops of the photographs that install with scikit-image, in grey."""
    shots = pictures.photographs(128, 8).pixels.mean(-1, keepdims=True) / 2 + 0.5
    rng = np.random.default_rng(config.seed)
    places = zip(rng.integers(0, len(shots), config.crops), *rng.integers(0, 96, (2, config.crops)))
    crops = np.stack([shots[i, y : y + 32, x : x + 32] for i, y, x in places]).astype(np.float64)
    return Data(jnp.asarray(crops), f"{config.crops} crops of 32 x 32 pixels out of 8 photographs")


def patterns(config) -> Data:
    """Twelve pictures of noise and their mirror images, which share a mean grey value, for `:smoke`."""
    drawn = np.random.default_rng(config.seed).uniform(0, 1, (12, 4, 4, 1))
    return Data(jnp.asarray(np.concatenate([drawn, drawn[:, ::-1]])), "12 patterns and their mirror images, 4 x 4")


DATA: dict[str, Callable] = dict(zip(fields.DATA, (digits, photographs, patterns), strict=True))


def table_of(config, side: int) -> dict[str, Process]:
    """The columns of the truth table."""
    f = process.dct_frequencies(side, side)
    heat = lambda delta: process.HeatDissipation(f, blur_max=config.blur_max, delta=delta)
    blurs = {f"blurring, {b:g} px": process.Blurring(f, sigma_blur=b) for b in config.sigma_blur}
    named = {"VP": process.VP(), "VE": process.VE(), "heat dissipation": heat(config.delta), **blurs}
    return {**named, "relay": scalespace.relay(side, side, 4), "cold (noise 1e-4)": heat(1e-4)}


def curves_of(config, side: int) -> dict[str, Process]:
    """The four processes of the curves."""
    chosen = table_of(config, side)
    return {name: chosen[name] for name in ("VP", "VE", f"blurring, {config.sigma_blur[-1]:g} px", "heat dissipation")}


def samples(the_process: Process, images: Array, t: float, key) -> Array:
    """A draw of U_t for every picture; the noise of a picture is one at all times, so that trajectories are seen."""
    chart = scalespace.basis(the_process, images.shape[1:])
    noise = jax.random.normal(key, images.shape, images.dtype)
    return jax.vmap(lambda x, e: chart.decode(the_process.perturb(chart.encode(x), t).at(chart.encode(e))))(
        images, noise
    )


def clock(config, times: np.ndarray) -> np.ndarray:
    """Evolution times tau of homogeneous diffusion and osmosis at normalised times: heat dissipation's."""
    width = 0.5 * np.expm1(times * np.log(config.blur_max / 0.5))
    return 0.5 * width**2


def deterministic(config, images: Array, times: np.ndarray, key) -> dict[str, Array]:
    """(T, N, H, W, 1) of osmosis towards one noise guide a picture, and towards a constant guide."""
    steps = jnp.asarray(np.diff(clock(config, times)))
    raised = images + config.offset
    noise = jax.random.normal(key, images.shape, images.dtype) + config.offset
    guides = {"osmosis, noise guide": jnp.maximum(noise, 0.5), "homogeneous diffusion": jnp.ones_like(images)}

    @jax.jit
    @jax.vmap
    def run(guide: Array, u: Array) -> Array:
        """Two implicit steps to each time."""
        path = osmosis.trajectory(osmosis.osmosis(guide), u, jnp.repeat(steps / 2, 2), tolerance=1e-9)[1::2]
        return jnp.concatenate([u[None], path])

    return {name: jnp.swapaxes(run(guide, raised), 0, 1) - config.offset for name, guide in guides.items()}


def under_one_guide(config, images: Array, times: np.ndarray, key, name: str) -> Array:
    """(T, N, n): all pictures under one guide, for the information given it: osmosis is linear in the picture."""
    shape, size = images.shape[1:], images[0].size
    noise = jnp.maximum(jax.random.normal(key, shape, images.dtype) + config.offset, 0.5)
    rates = osmosis.osmosis(noise if name.startswith("osmosis") else jnp.ones(shape))
    matrix = np.asarray(jax.vmap(rates)(jnp.eye(size).reshape(-1, *shape)).reshape(size, -1)).T
    flat, paths = np.asarray(images + config.offset).reshape(len(images), -1), []
    for before, after in zip([0.0, *clock(config, times)[:-1]], clock(config, times)):
        half = np.eye(size) - 0.5 * (after - before) * matrix
        flat = np.linalg.solve(half, np.linalg.solve(half, flat.T)).T
        paths.append(flat)
    return jnp.asarray(np.stack(paths))


def information(config, codes: Array, a: Array, s: Array, key) -> float:
    """`I(U_0; U_t)` of a finite set of codes (N, n)."""
    law = laws.Mixture(codes, jnp.full(len(codes), -np.log(len(codes))))
    return float(jnp.mean(law.information(key, a, s, config.draws)))


def histogram_entropy(u: np.ndarray) -> float:
    """Mean over pictures of the entropy of the grey values' histogram, 64 bins of a picture's range, nats."""
    found = []
    for x in u.reshape(len(u), -1):
        counts = np.histogram(x, 64)[0] if np.ptp(x) > 1e-9 else np.array([x.size])
        p = counts[counts > 0] / x.size
        found.append(float(-np.sum(p * np.log(p))))
    return float(np.mean(found))


class Judge:
    """Feature-FID to the clean pictures: of EfficientNet features, or of pixels where the network is not asked for."""

    def __init__(self, config, images: Array) -> None:
        self.network = (
            features.efficientnet_features(config.features) if config.features and images.shape[1] > 8 else None
        )
        self.pooled = jax.jit(lambda net, u: jax.lax.map(net.pooled, u, batch_size=16))
        self.clean = self(images)

    def __call__(self, u: Array) -> np.ndarray:
        if self.network is None:
            return np.asarray(u).reshape(len(u), -1)
        rgb = jnp.repeat(jnp.clip(2 * u - 1, -1, 1), 3, -1).astype(jnp.float32)
        return np.asarray(self.pooled(self.network, rgb))

    def distance(self, u: Array) -> float:
        distance = distribution.feature_fid(self.clean, self(u))
        return distance if distance > 1e-6 else float("nan")  # the data's own, which is rounding

    def title(self, config) -> str:
        how = f"EffNetLite0, {config.features} px, clipped" if self.network else "of pixels"
        return f"feature-FID to the data ({how})"


def trajectories(config, images: Array, times: np.ndarray) -> tuple[dict[str, list[Array]], dict[str, list[float]]]:
    """(pictures per time, information per time) of all six."""
    key = seed_key(config.seed + 1)
    paths, told = {}, {}
    for name, the_process in curves_of(config, images.shape[1]).items():
        chart = scalespace.basis(the_process, images.shape[1:])
        codes = jax.vmap(chart.encode)(images).reshape(len(images), -1)
        wide = lambda x, chart=chart: jnp.broadcast_to(x, chart.shape).ravel()
        paths[name] = [samples(the_process, images, t, key) for t in times]
        scales = [(wide(the_process.alpha(t)), wide(the_process.sigma(t))) for t in np.maximum(times, 1e-3)]
        told[name] = [information(config, codes, a, s, key) for a, s in scales]
    one = jnp.ones(images[0].size)
    for name, path in deterministic(config, images, times, key).items():
        codes = under_one_guide(config, images, times, key, name)
        paths[name] = list(path)
        told[name] = [information(config, x, one, config.delta * one, key) for x in codes]
    return paths, told


def section(config, data: Data, reports: dict[str, scalespace.PropertyReport]) -> list[str]:
    """Table, curves and strips of one data set as HTML."""
    times = np.linspace(0, 1, config.curve)
    paths, told = trajectories(config, data.images, times)
    judge = Judge(config, data.images)
    lines = {
        "entropy of grey values, nats": {n: [histogram_entropy(np.asarray(u)) for u in p] for n, p in paths.items()},
        "variance (log axis)": {n: [float(jnp.mean(jnp.var(u, (1, 2, 3)))) for u in p] for n, p in paths.items()},
        f"I(U_0; U_t), nats; resolution {config.delta:g}": told,
        judge.title(config): {n: [judge.distance(u) for u in p] for n, p in paths.items()},
    }
    plots = [
        scalespace_page.curves(title, times, line, "log" in title or "FID" in title) for title, line in lines.items()
    ]
    chosen = np.linspace(0, config.curve - 1, config.strip).round().astype(int)
    shown = [0, len(data.images) // 2]
    strips = [
        scalespace_page.strip(
            name, np.stack([[np.asarray(p[t][i]) for t in chosen] for i in shown]), f"{name}, from data to noise"
        )
        for name, p in paths.items()
    ]
    tables = scalespace_page.verdicts({name: r for name, r in reports.items() if name != "osmosis"})
    grey_table = scalespace_page.verdicts({"osmosis, one noise guide": reports["osmosis"]})
    legend = scalespace_page.key(list(paths))
    return [tables, grey_table, legend, f'<div class="plots">{"".join(plots)}</div>', *strips]


def measured(config, data: Data) -> dict[str, scalespace.PropertyReport]:
    """The reports of all columns, osmosis among them."""
    key, times = seed_key(config.seed), np.linspace(0, 1, config.times)
    chosen = table_of(config, data.images.shape[1])
    found = {n: scalespace.properties(p, data.images, key, times, draws=config.draws) for n, p in chosen.items()}
    guide = jax.random.normal(key, data.images.shape[1:], data.images.dtype) + config.offset
    found["osmosis"] = grey.grey_properties(jnp.maximum(guide, 0.5), data.images[:16] + config.offset, key)
    return found


def main() -> None:
    config = CONFIG.value
    jax.config.update("jax_enable_x64", True)
    folder = runtime.writable(Path(OUT.value) / config.name)
    loaded = {name: DATA[name](config) for name in listed(config.data)}
    sections, results, wrong = [], {}, []
    for name, data in loaded.items():
        start = time.perf_counter()
        reports = measured(config, data)
        sections.append((data.about, section(config, data, reports)))
        results[name] = {column: [row._asdict() for row in report.rows] for column, report in reports.items()}
        off = [(name, column, row.name, row.verdict) for column, r in reports.items() for row in r.disagreements()]
        wrong += off
        print(
            f"{data.about}: {len(reports)} columns, {len(off)} verdicts off the truth table, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
    for side in listed(config.reverse):
        title, measure = reverse.SIDES[side]
        start, rows = time.perf_counter(), measure(config)
        sections.append((title, [scalespace_page.findings(rows)]))
        results[f"reverse, {side}"] = [row._asdict() for row in rows]
        print(f"{title}: {len(rows)} findings, {time.perf_counter() - start:.0f} s", flush=True)
    command = f"python -m experiments.scalespace {shlex.join(sys.argv[1:])}".strip()
    reasons = [f"{name.replace('_', ' ')}: {text}" for name, text in truth.REASONS.items()]
    off = [f"Off the truth table: {', '.join(map(str, case))}." for case in wrong] or [
        "Every verdict agrees with the truth table."
    ]
    sections.append(("Why the truth table is so", [f"<p>{reason}</p>" for reason in reasons]))
    page = scalespace_page.page(TITLE, command, [*NOTES, *off], sections, ledger.versions())
    ledger.put(folder / "results.json", (json.dumps(ledger.plain(results), indent=1) + "\n").encode())
    index = ledger.put(folder / "index.html", page.encode("utf-8", "replace"))
    print(f"page: {index}")


if __name__ == "__main__":
    runtime.run(main)

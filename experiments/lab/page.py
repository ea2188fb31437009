"""The exact lab's results as text and as one page: tables, error against cost, rank histograms."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

from diffinv.metrics import calibration
from experiments.lab.judge import CREDIBILITIES, FLOOR
from experiments.report.shell import paragraphs, shell

COLUMNS = {
    "w1": "sliced W1", "max_w2": "max-sliced W2", "mean": "mean error", "covariance": "covariance error",
    "cover50": "50 % covers", "cover90": "90 % covers", "residual": "residual / noise",
}  # fmt: skip
CLAIMS = {"floor": "#5b6770", "exact": "#2e933c", "asymptotic": "#1f6fb4", "biased": "#d1495b"}
NOTES = (
    "Means over the reported problems, with 95 % intervals. Sliced W1 (100 directions) and max-sliced W2 between the "
    "method's samples and as many exact ones; the row 'exact samples' is the floor of the same counts. Mean error in "
    "posterior deviations, covariance error in Frobenius norm. A calibrated method's 50 % intervals cover the truth in "
    "50 % of the coordinates. Residual / noise is 1 where a sample fits the measurement as well as the noise allows. "
    "Where samples diverged, the errors are those of the other problems. TARP (blue) and HPD (orange): the share of "
    "the problems whose truth lies in a region against the region's credibility; below the grey band the samples are "
    "too narrow, above it too wide or elsewhere. TARP's regions are balls about an exact sample, HPD's those of the "
    "Gaussian of the posterior's moments.",
    "The hyperparameter was chosen by sliced W1 on problems that are not reported. NFE, VJPs and calls are of one "
    "sample, all particles counted: evaluations of the denoiser, pullbacks through it, and uses of the operator in any "
    "form. Claims: exact for Gaussian posteriors; asymptotic in particles or steps; biased otherwise.",
)
MORE = """
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .4rem; }
svg { background: var(--panel); border-radius: 6px; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .t { fill: var(--ink); font-weight: 600; }
"""


def _ordered(lines: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """By sliced W1; what diverged at times after what never did, and what has no number last."""
    error = lambda row: row["w1"][0] if math.isfinite(row["w1"][0]) else math.inf
    return sorted(lines.values(), key=lambda row: (row["diverged"] > 0, error(row)))


def _value(pair: Any) -> str:
    mean, half = pair
    if mean is None or not math.isfinite(mean):
        return "not finite"
    return f"{mean:.3f} ± {half:.3f}" if mean < 1e4 else f"{mean:.1e}"


def _setting(row: Mapping[str, Any]) -> str:
    return f"{row['knob']} {row['value']:g}" if row["knob"] else ""


def text(lines: Mapping[str, Any]) -> str:
    """A table for the terminal."""
    head = ["method", "setting", *COLUMNS.values(), "NFE", "VJPs", "calls", "diverged"]
    rows = [
        [row["method"], _setting(row), *(_value(row[name]) for name in COLUMNS), str(row["nfe"]), str(row["vjps"]),
         str(row["calls"]), f"{100 * row['diverged']:.1f} %"]
        for row in _ordered(lines)
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in [head, *rows])


def diverged(found: Mapping[str, Mapping[str, Any]]) -> tuple[str, bool]:
    """(a line on the rows with samples that diverged, "" where there are none; whether no row has any other)."""
    rows = {f"{which}: {name}": line["diverged"] for which, lines in found.items() for name, line in lines.items()}
    rows = {name: share for name, share in rows.items() if not name.endswith(FLOOR)}
    bad = [name for name, share in rows.items() if share > 0]
    told = f"samples diverged in {len(bad)} of {len(rows)} rows: {', '.join(bad)}" if bad else ""
    return told, bool(rows) and min(rows.values()) == 1


def histogram(counts: list[int]) -> str:
    """Ranks as bars; the dashed line is uniform."""
    width, height, peak = 96, 30, max(*counts, 1)
    bar = width / len(counts)
    parts = [
        f'<rect x="{i * bar + 1:.1f}" y="{height * (1 - n / peak):.1f}" width="{bar - 2:.1f}" '
        f'height="{height * n / peak:.1f}" fill="#1f6fb4"/>'
        for i, n in enumerate(counts)
    ]
    level = height * (1 - sum(counts) / len(counts) / peak)
    parts.append(f'<path d="M0 {level:.1f}H{width}" stroke="#d1495b" stroke-dasharray="3 2"/>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'


CURVES = {"tarp": "#1f6fb4", "hpd": "#c77d0a"}


def coverage(covered: Mapping[str, Any], side: int = 64) -> str:
    """The share of problems whose truth a region holds against its credibility; grey: where 95 % of such shares lie."""
    if not covered["problems"]:
        return ""
    place = lambda level, share: f"{level * side:.1f} {(1 - share) * side:.1f}"
    low, high = calibration.coverage_band(covered["problems"], CREDIBILITIES)
    edge = [*zip(CREDIBILITIES, low, strict=True), *reversed([*zip(CREDIBILITIES, high, strict=True)])]
    parts = [f'<path d="M{"L".join(place(*point) for point in edge)}Z" fill="#8884"/>']
    for name, colour in CURVES.items():
        path = "L".join(place(*point) for point in zip(CREDIBILITIES, covered[name], strict=True))
        parts.append(f'<path d="M{path}" stroke="{colour}" fill="none"><title>{name.upper()}</title></path>')
    return f'<svg viewBox="0 0 {side} {side}" width="{side}" height="{side}">{"".join(parts)}</svg>'


def table(lines: Mapping[str, Any]) -> str:
    """The rows of one problem."""
    cost = ["NFE", "VJPs", "calls", "diverged", "compile / s", "run / s"]
    head = ["method", "chosen", *COLUMNS.values(), "ranks", "TARP, HPD", *cost]
    body = []
    for row in _ordered(lines):
        dot = f'<span class="dot" style="background:{CLAIMS[row["claim"]]}"></span>'
        tuning = row["tuning"].items() if row["tuning"] else ()
        tried = html.escape(", ".join(f"{v}: {'inf' if not math.isfinite(e) else f'{e:.3g}'}" for v, e in tuning))
        cells = [
            f"<th>{dot}{html.escape(row['method'])}</th>",
            f'<td title="sliced W1 when tuning: {tried}">{html.escape(_setting(row))}</td>',
            *(f'<td class="n">{_value(row[name])}</td>' for name in COLUMNS), f"<td>{histogram(row['ranks'])}</td>",
            f"<td>{coverage(row['covered'])}</td>",
            *(f'<td class="n">{row[what]}</td>' for what in ("nfe", "vjps", "calls")),
            f'<td class="n{" flagged" if row["diverged"] else ""}">{100 * row["diverged"]:.1f} %</td>',
            f'<td class="n">{row["compile_s"]:.1f}</td>', f'<td class="n">{row["run_s"]:.1f}</td>',
        ]  # fmt: skip
        body.append(f"<tr>{''.join(cells)}</tr>")
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    inside = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="wide"><table class="means">{inside}</table></div>'


def _decades(low: float, high: float) -> list[int]:
    return list(range(math.floor(low), math.ceil(high) + 1))


def pareto(lines: Mapping[str, Any]) -> str:
    """Sliced W1 against cost (evaluations and twice the VJPs), both logarithmic; the line joins the best so far."""
    rows = [row for row in lines.values() if row["nfe"] and row["w1"][0] < 1e4]
    if not rows:
        return ""
    cost = {row["method"]: math.log10(row["nfe"] + 2 * row["vjps"]) for row in rows}
    error = {row["method"]: math.log10(max(row["w1"][0], 1e-9)) for row in rows}
    width, height, left, right, top, bottom = 980, 560, 60, 130, 30, 40
    least = math.log10(lines[FLOOR]["w1"][0])
    x0, x1 = min(cost.values()) - 0.1, max(cost.values()) + 0.1
    y0, y1 = min(least, *error.values()) - 0.1, max(error.values()) + 0.1
    x = lambda v: left + (v - x0) / (x1 - x0) * (width - left - right)
    y = lambda v: height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom)
    parts = [f'<text class="t" x="{left}" y="18">sliced W1 against evaluations + 2 VJPs, per sample</text>']
    for tick in _decades(y0, y1):
        for factor in (1, 2, 5):
            v = tick + math.log10(factor)
            if y0 <= v <= y1:
                parts.append(f'<path d="M{left} {y(v):.1f}H{width - right}" stroke="#8884"/>')
                parts.append(f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{10**v:.3g}</text>')
    for tick in _decades(x0, x1):
        if x0 <= tick <= x1:
            parts.append(f'<text x="{x(tick):.1f}" y="{height - 14}" text-anchor="middle">{10**tick:g}</text>')
    parts.append(f'<path d="M{left} {y(least):.1f}H{width - right}" stroke="#5b6770" stroke-dasharray="5 3"/>')
    parts.append(f'<text x="{width - right + 4}" y="{y(least) + 4:.1f}">floor</text>')
    front, best = [], math.inf
    for name in sorted(cost, key=lambda n: (cost[n], error[n])):
        if error[name] < best:
            best, front = error[name], [*front, name]
    path = "L".join(f"{x(cost[n]):.1f} {y(error[n]):.1f}" for n in front)
    parts.append(f'<path d="M{path}" stroke="#c77d0a" fill="none"/>')
    taken: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row["method"] not in front):
        name = row["method"]
        at = x(cost[name]), y(error[name])
        title = f"<title>{html.escape(name)}: {_value(row['w1'])}</title>"
        parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4" fill="{CLAIMS[row["claim"]]}">{title}</circle>')
        if all(abs(at[0] - u) > 110 or abs(at[1] - v) > 11 for u, v in taken):
            taken.append(at)
            parts.append(f'<text x="{at[0] + 6:.1f}" y="{at[1] + 4:.1f}">{html.escape(name)}</text>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'


def page(results: Mapping[str, Any], about: Mapping[str, str], command: str) -> str:
    """The whole page; it asks for nothing from outside."""
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    blocks = paragraphs(NOTES)
    blocks.append("".join(f'<span class="dot" style="background:{c}"></span>{n} &nbsp; ' for n, c in CLAIMS.items()))
    for which, doc in about.items():
        lines = results["problems"][which]
        blocks += [f"<h2>{html.escape(which)} <small>{html.escape(doc)}</small></h2>", pareto(lines), table(lines)]
    return shell("The exact lab", command, blocks, settings, MORE)

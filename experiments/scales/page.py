"""The page of `experiments.scalespace`: tables of verdicts, curves as SVG, strips of pictures; in one file."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffinv.data import reader
from diffinv.scalespace import Property, PropertyReport
from experiments.common.pictures import rounded
from experiments.report import ledger
from experiments.report.shell import paragraphs, shell

COLOURS = ("#1f6fb4", "#d1495b", "#2e933c", "#8a5cc2", "#c77d0a", "#5b6770")
MORE = """
.verdicts td { font-size: .82rem; white-space: nowrap; } .verdicts small { color: var(--soft); }
.ok { color: var(--best-ink); } .bad { color: var(--flag-ink); font-weight: 700; }
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem; } svg { background: var(--panel); border-radius: 6px; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } svg .t { fill: var(--ink); font-weight: 600; }
.strip { margin: .25rem 0; } .strip img { height: 4.2rem; }
.key span { margin-right: 1.1rem; font-size: .85rem; } .key i { display: inline-block; width: 1.3rem; height: .25rem;
  margin-right: .35rem; vertical-align: middle; }
"""


def _cell(row: Property | None) -> str:
    """Verdict, deviation, and a mark where the truth table says otherwise."""
    if row is None:
        return "<td></td>"
    mark = {True: "ok", False: "bad"}[row.agrees]
    said = row.expected or "the data decide"
    title = html.escape(f"{row.formula}; {row.note}; truth table: {said}")
    by = f"<br><small>{'by' if row.verdict == 'fails' else 'within'} {max(row.deviation, 0):.2g}</small>"
    told = f"{row.verdict}{'' if row.expected else ' *'}{'' if row.agrees else f' ≠ {row.expected}'}"
    return f'<td class="{mark}" title="{title}">{told}{by}</td>'


def verdicts(reports: Mapping[str, PropertyReport]) -> str:
    """A row a property, a column a process; `*` where the truth table leaves it to the data."""
    names = list(dict.fromkeys(row.name for report in reports.values() for row in report.rows))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in reports)
    body = []
    for name in names:
        found = {title: next((r for r in report.rows if r.name == name), None) for title, report in reports.items()}
        formula = next(row.formula for row in found.values() if row)
        label = f"<th>{html.escape(name.replace('_', ' '))}<br><small>{html.escape(formula)}</small></th>"
        body.append(f"<tr>{label}{''.join(map(_cell, found.values()))}</tr>")
    table = (
        f'<table class="means verdicts"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )
    return f'<div class="wide">{table}</div>'


def findings(rows: Sequence[tuple[str, str, str, str]]) -> str:
    """The reverse side: what was measured, its value, what it is held against, the verdict."""
    head = "".join(f"<th>{name}</th>" for name in ("", "measured", "against", "verdict"))
    cells = lambda row: "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
    body = "".join(f"<tr><th>{html.escape(row[0])}</th>{cells(row)}</tr>" for row in rows)
    table = f'<table class="means verdicts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers between two."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def curves(title: str, times: Sequence[float], lines: Mapping[str, Sequence[float]], log: bool = False) -> str:
    """One plot against normalised time as SVG; values not finite (or, on a log axis, not positive) leave gaps."""
    width, height, left, right, top, bottom = 430, 280, 52, 12, 30, 30
    scale = (lambda v: math.log10(v) if v > 0 else math.nan) if log else (lambda v: v)
    values = {name: [scale(float(v)) for v in line] for name, line in lines.items()}
    finite = [v for line in values.values() for v in line if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    high = high if high > low else low + 1
    x = lambda t: left + t * (width - left - right)
    y = lambda v: height - bottom - (v - low) / (high - low) * (height - top - bottom)
    parts = [f'<text class="t" x="{left}" y="18">{html.escape(title)}</text>']
    for tick in _ticks(low, high):
        label = f"{10**tick:.2g}" if log else f"{tick:.4g}"
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{label}</text>')
        parts.append(f'<path d="M{left} {y(tick):.1f}H{width - right}" stroke="#8884" fill="none"/>')
    parts += [
        f'<text x="{x(t):.0f}" y="{height - 10}" text-anchor="middle">{t:g}</text>' for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    for index, line in enumerate(values.values()):
        pen, path = "M", ""
        for t, v in zip(times, line):
            path, pen = (path + f"{pen}{x(t):.1f} {y(v):.1f}", "L") if math.isfinite(v) else (path, "M")
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<path d="{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'


def key(names: Sequence[str]) -> str:
    """The legend of all plots."""
    spans = [
        f'<span><i style="background:{COLOURS[i % len(COLOURS)]}"></i>{html.escape(n)}</span>'
        for i, n in enumerate(names)
    ]
    return f'<p class="key">{"".join(spans)}</p>'


def strip(name: str, images: np.ndarray, about: str) -> str:
    """Trajectories side by side: (pictures, times, H, W, C), each stretched to its own range, as one PNG."""
    low, high = images.min((2, 3, 4), keepdims=True), images.max((2, 3, 4), keepdims=True)
    grey = (images - low) / np.maximum(high - low, 1e-9)
    framed = np.pad(grey, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1)
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in framed], 0)
    pixels = rounded(255 * sheet)[..., 0]
    image = reader.pillow().fromarray(pixels)
    times = max(2, round(112 / images.shape[2]))  # shown at half, for sharp screens
    image = image.resize((image.width * times, image.height * times), 0)
    data = base64.b64encode(ledger.png(image)).decode()
    size = f'width="{image.width // 2}" height="{image.height // 2}"'
    img = f'<img {size} alt="{html.escape(about)}" src="data:image/png;base64,{data}">'
    return f'<figure style="margin:.6rem 0"><figcaption>{html.escape(name)}</figcaption>{img}</figure>'


def page(
    title: str,
    command: str,
    notes: Sequence[str],
    sections: Sequence[tuple[str, Sequence[str]]],
    versions: Mapping[str, Any],
) -> str:
    """The whole page from its sections, each a heading and blocks of HTML."""
    about = " · ".join(f"{name} {version}" for name, version in versions.items())
    blocks = paragraphs(notes)
    for heading, inside in sections:
        blocks += [f"<h2>{html.escape(heading)}</h2>", *inside]
    return shell(title, command, blocks, about, MORE)

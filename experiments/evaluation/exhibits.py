"""What a table's page shows: quality against cost, and of each cell its best, middle and worst picture."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffinv.data import to_pixels
from diffinv.data.reader import pillow
from diffinv.display import contact_sheet, enlargement
from experiments.evaluation import shards
from experiments.evaluation.items import Set
from experiments.evaluation.shards import Result
from experiments.evaluation.summary import Found, failed, scored
from experiments.report import ledger, tables
from experiments.report.page import element, means_table
from experiments.report.shell import paragraphs, shell
from experiments.report.tables import Row

RANKS = ("best", "middle", "worst")
STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem; } svg { background: var(--panel); border-radius: 6px; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } svg .t { fill: var(--ink); font-weight: 600; }
.cells td, .cells th { padding: .4rem 1rem .4rem 0; vertical-align: top; text-align: left; font-size: .82rem; }
"""
Seen = Callable[[Any, list[str]], np.ndarray]
"""`seen(cell, pictures)` gives measurements as pictures, uint8 (n, H, W, C)."""


def ranked(results: Sequence[Result]) -> list[tuple[str, Result]]:
    """The best, the middle and the worst sound result, each once, by feature distance, or by PSNR without one.

    Where one failed it is the worst.
    """
    sound = [each for each in results if not failed(each)]
    by = "feature_distance" if all("feature_distance" in each.scores for each in sound) else "psnr"
    sign = 1 if by == "feature_distance" else -1
    ordered = sorted(sound, key=lambda each: (sign * each.scores[by], each.item))
    ordered += [each for each in results if failed(each)][:1]
    places = dict(zip(RANKS, (0, (len(ordered) - 1) // 2, len(ordered) - 1)))
    chosen = {place: name for name, place in reversed(places.items())} if ordered else {}
    return [(chosen[place], ordered[place]) for place in sorted(chosen)]


def strip(arrays: Sequence[np.ndarray]) -> str:
    """Pictures of one size, uint8 (H, W, C), side by side as an HTML image."""
    whole = np.concatenate(arrays, 1)
    image = pillow().fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    scale = enlargement(arrays[0].shape[:2], 96)
    source = "data:image/png;base64," + base64.b64encode(ledger.png(image)).decode()
    return f'<img src="{source}" width="{image.width * scale}" height="{image.height * scale}" alt="{{alt}}">'


def told(result: Result) -> str:
    """What stands under a picture."""
    if said := tables.complaint(result.scores):
        return said
    found = scored(result)
    units = {"psnr": "PSNR {} dB", "feature_distance": "feature distance {}", "ratio": "residual {} of the noise"}
    return ", ".join(form.format(tables.text(name, found[name])) for name, form in units.items() if name in found)


def exhibit(found: Found, truth: Mapping[str, np.ndarray], names: Mapping[str, str], seen: Seen) -> str:
    """A row: the cell's name, then truth, measurement and reconstruction of the best, the middle and the worst."""
    chosen = ranked(list(found.results.values()))
    pictures = [result.item.picture for _, result in chosen]
    measured = seen(found.cell, pictures) if pictures else []
    cells = [element("th", html.escape(found.cell.label), scope="row")]
    for (rank, result), y in zip(chosen, measured):
        name = f"{rank}: {names[result.item.picture]}"
        image = strip([to_pixels(truth[result.item.picture]), y, to_pixels(shards.unit(result.x))])
        alt = html.escape(f"{name}: truth, measurement, {found.cell.label}")
        lines = [element("figcaption", html.escape(name)), image.replace("{alt}", alt), html.escape(told(result))]
        cells.append(element("td", element("figure", "".join(lines))))
    if found.refused:
        cells.append(element("td", html.escape(f"not possible: {found.refused}")))
    return element("tr", "".join(cells))


def gallery(
    task: str, cells: Sequence[Found], truth: Mapping[str, np.ndarray], names: Mapping[str, str], seen: Seen
) -> str:
    """The section of a task."""
    head = f"{html.escape(task)} <small>truth, measurement, reconstruction</small>"
    rows = "\n".join(exhibit(each, truth, names, seen) for each in cells)
    return element("h2", head) + element("div", element("table", rows, class_="cells"), class_="wide")


def middle(found: Sequence[Found]) -> str | None:
    """The picture that is neither easy nor hard: the middle one by feature distance, or PSNR, over a task's cells."""
    each = [{item.picture: scored(result) for item, result in cell.results.items() if not item.draw} for cell in found]
    each = [scores for scores in each if scores]
    shared = [name for name in (each[0] if each else ()) if all(name in scores for scores in each)]
    by = "feature_distance" if all("feature_distance" in scores[name] for scores in each for name in shared) else "psnr"
    mean = lambda name: math.fsum(scores[name][by] for scores in each)
    ordered = sorted(shared, key=lambda name: (mean(name), name))
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def overview(found: Sequence[Found], truth: Mapping[str, np.ndarray], seen: Seen) -> Any:
    """A Pillow image with a row a task: the truth, the measurement and every reconstruction of its middle picture."""
    rows = []
    for task in dict.fromkeys(each.cell.task.title for each in found):
        cells = [each for each in found if each.cell.task.title == task and each.results]
        if (picture := middle(cells)) is None:
            continue
        y = seen(cells[0].cell, [picture])[0]
        row = [(task, "truth", truth[picture]), ("", "measurement", y / 127.5 - 1)]
        for each in cells:
            result = next(value for item, value in sorted(each.results.items()) if item.picture == picture)
            row.append((each.cell.stem, f"{result.scores['psnr']:.1f} dB", shards.unit(result.x)))
        rows.append(row)
    widest = max(map(len, rows), default=0)
    return contact_sheet([row for row in rows if len(row) == widest]) if rows else None


def _nice(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two."""
    raw = max(high - low, 1e-9) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def scatter(task: str, rows: Sequence[Row], name: str) -> str:
    """A task's means of one number, with intervals, against evaluations and twice the VJPs (logarithmic), as SVG."""
    points = [row for row in rows if row["task"] == task and name in row and row.get("nfe")]
    if not points:
        return ""
    cost = [math.log10(row["nfe"] + 2 * row.get("vjps", 0)) for row in points]
    ends = [row[name][0] + sign * _half(row[name]) for row in points for sign in (-1, 1)]
    width, height, left, right, top, bottom = 460, 320, 60, 110, 30, 36
    x0, x1, y0, y1 = min(cost) - 0.1, max(cost) + 0.1, min(ends), max(ends)
    y0, y1 = y0 - 0.05 * (y1 - y0) - 1e-9, y1 + 0.05 * (y1 - y0) + 1e-9
    x = lambda v: left + (v - x0) / (x1 - x0) * (width - left - right)
    y = lambda v: height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom)
    heading = f"{task}: {tables.column(name).heading} against evaluations + 2 VJPs"
    parts = [f'<text class="t" x="8" y="18">{html.escape(heading)}</text>']
    for tick in _nice(y0, y1):
        parts.append(f'<path d="M{left} {y(tick):.1f}H{width - right}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in sorted({min(cost), max(cost)}):
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 12}" text-anchor="middle">{10**tick:.0f}</text>')
    for row, at in zip(points, cost):
        mean, half = row[name][0], _half(row[name])
        parts.append(f'<path d="M{x(at):.1f} {y(mean - half):.1f}V{y(mean + half):.1f}" stroke="#1f6fb4"/>')
        label = html.escape(row["method"])
        dot = f'cx="{x(at):.1f}" cy="{y(mean):.1f}" r="4" fill="#1f6fb4"'
        parts.append(f"<circle {dot}><title>{label}</title></circle>")
        parts.append(f'<text x="{x(at) + 7:.1f}" y="{y(mean) + 4:.1f}">{label}</text>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'


def _half(pair: Sequence[float]) -> float:
    return pair[1] if math.isfinite(pair[1]) else 0.0


def page(
    pictures: Set,
    found: Sequence[Found],
    truth: Mapping[str, np.ndarray],
    sections: Mapping[str, Sequence[Row]],
    notes: Sequence[str],
    head: Mapping[str, Any],
    seen: Seen,
) -> str:
    """The page as HTML: each section a table, the first that of means, whose rows are plotted, too."""
    names = dict(zip(pictures.digests, pictures.names))
    tasks = list(dict.fromkeys(each.cell.task.title for each in found))
    rows = next(iter(sections.values()))
    plots = [scatter(task, rows, name) for task in tasks for name in ("feature_distance", "psnr")]
    blocks = [
        *paragraphs(notes),
        *(element("h2", title) + means_table(each) for title, each in sections.items() if each),
    ]
    blocks.append(element("h2", "Quality against cost") + element("div", "".join(plots), class_="plots"))
    for task in tasks:
        blocks.append(gallery(task, [each for each in found if each.cell.task.title == task], truth, names, seen))
    about = " · ".join(f"{name} {version}" for name, version in ledger.versions().items())
    return shell(head["title"], head["command"], blocks, about, STYLE)

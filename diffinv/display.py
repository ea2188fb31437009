"""A picture of what was measured and what came out, for a notebook or a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.data.reader import pillow
from diffinv.measurement import Measurement
from diffinv.typing import Array, Solution

SIDE, MARGIN, LINE = 160, 10, 16  # pixels: of a panel, about; around panels; of a line of text
INK, RED = (20, 20, 24), (220, 30, 30)


def enlargement(sides: Sequence[int], target: int) -> int:
    """The whole factor that brings the longest side nearest to `target` pixels, at least 1."""
    return max(1, round(target / max(sides)))


def pixels(a: Any) -> np.ndarray | None:
    """One array as uint8 (H, W, 3), or None where it is no picture.

    Grey (H, W) or (H, W, 1), colour (H, W, 3) and with an opacity that is left out (H, W, 4), in [-1, 1]; complex, also
    as two channels, by its magnitude over the largest; other reals from their least to their largest. What is not
    finite is red.
    """
    a = np.asarray(a)
    if a.ndim == 3 and a.shape[-1] == 2:
        a = np.hypot(a[..., 0], a[..., 1]) + 0j
    a = a[..., 0] if a.ndim == 3 and a.shape[-1] == 1 else a
    if a.ndim != 2 and not (a.ndim == 3 and a.shape[-1] in (3, 4)):
        return None
    grey = np.repeat(a[..., None], 3, -1) if a.ndim == 2 else a[..., :3]
    finite = np.isfinite(grey).all(-1)
    unit = _unit(np.where(finite[..., None], grey, 0))
    return np.where(finite[..., None], np.round(255 * unit), RED).astype(np.uint8)


def _unit(a: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(a):
        return np.abs(a) / max(np.abs(a).max(), 1e-30)
    a = a.astype(float)
    if np.abs(a).max(initial=0) <= 1.5:
        return (np.clip(a, -1, 1) + 1) / 2
    return (a - a.min()) / max(np.ptp(a), 1e-30)


def _curve(a: Any) -> Any:
    """Values of any shape, in their order, as a line from the least to the largest."""
    from PIL import ImageDraw

    values = np.abs(np.asarray(a).ravel()) if np.iscomplexobj(a) else np.asarray(a, float).ravel()
    sheet = pillow().new("RGB", (SIDE, SIDE), (245, 245, 247))
    finite = np.isfinite(values)
    if finite.any():
        low, span = values[finite].min(), max(np.ptp(values[finite]), 1e-30)
        at = np.linspace(4, SIDE - 5, len(values))
        height = SIDE - 5 - (np.where(finite, values, low) - low) / span * (SIDE - 10)
        ImageDraw.Draw(sheet).line([*zip(at.tolist(), height.tolist())], INK)
    return sheet


def _panel(a: Any) -> Any:
    found = pixels(a)
    if found is None:
        return _curve(a)
    height, width = found.shape[:2]
    scale = enlargement([height, width], SIDE)
    return pillow().fromarray(found).resize((width * scale, height * scale), pillow().Resampling.NEAREST)


def _batched(x: np.ndarray, measurement: Measurement | None) -> bool:
    """Whether `x` has an axis of examples before the sample's own."""
    if measurement is not None:
        return x.ndim > len(measurement.operator.shape)
    return x.ndim == 4 or (x.ndim == 3 and x.shape[-1] > 4)


def _size(a: Any) -> str:
    return f"{' x '.join(map(str, np.shape(a)))}"


def _words(x: Any, truth: Any, residual: Any) -> str:
    said = [] if truth is None else [f"PSNR {10 * np.log10(4 / max(np.mean((x - truth) ** 2), 1e-12)):.2f} dB"]
    if residual is not None:
        said.append(f"|y - A x| {np.linalg.norm(np.ravel(residual)):.3g}")
    return "   ".join(said) or _size(x)


def show(solution: Solution | Array, measurement: Measurement | None = None, truth: Array | None = None) -> Any:
    """A Pillow image: a row an example, with the truth, the measurement and the solution side by side, and captions.

    A notebook shows it; `.save("x.png")` keeps it. Measurements that are no pictures are drawn as curves.

    Args:
      solution: a `Solution` or a sample; of one example, or of several along a first axis.
      measurement, truth: of as many, or None.

    Raises ImportError where Pillow is missing, ValueError where the numbers of examples differ.
    """
    x = np.asarray(jax.device_get(solution.x if isinstance(solution, Solution) else solution))
    columns = {"truth": truth, "measurement": measurement and measurement.y, "solution": x}
    parts = {name: np.asarray(jax.device_get(part)) for name, part in columns.items() if part is not None}
    residual = None
    if not _batched(x, measurement):
        parts = {name: part[None] for name, part in parts.items()}
        residual = measurement and measurement.residual(jnp.asarray(x))[None]
    elif measurement is not None:
        residual = jax.vmap(lambda m, x: m.residual(x))(measurement, x)
    counts = {name: len(part) for name, part in parts.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"examples are {counts}; give as many of each")
    rows = [{name: part[i] for name, part in parts.items()} for i in range(len(parts["solution"]))]
    residuals = [None] * len(rows) if residual is None else list(np.asarray(residual))
    return _sheet([_row(row, r) for row, r in zip(rows, residuals)])


def _row(row: dict[str, Any], residual: Any) -> list[tuple[str, str, Any]]:
    captions = {name: _size(part) for name, part in row.items()}
    captions["solution"] = _words(row["solution"], row.get("truth"), residual)
    return [(name, captions[name], _panel(part)) for name, part in row.items()]


def contact_sheet(rows: Sequence[Sequence[tuple[str, str, Any]]]) -> Any:
    """A Pillow image of rows of (name, caption, array), each array as `pixels` or as a curve; as many in every row."""
    return _sheet([[(name, text, _panel(part)) for name, text, part in row] for row in rows])


def _sheet(rows: list[list[tuple[str, str, Any]]]) -> Any:
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    widths = [
        max(max(panel.width, round(max(font.getlength(name), font.getlength(text)))) for name, text, panel in column)
        for column in zip(*rows)
    ]
    heights = [max(panel.height for _, _, panel in row) + 2 * LINE + MARGIN for row in rows]
    sheet = pillow().new("RGB", (sum(widths) + MARGIN * (len(widths) + 1), sum(heights) + MARGIN), (255, 255, 255))
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for row, height in zip(rows, heights):
        left = MARGIN
        for (name, text, panel), width in zip(row, widths):
            pen.text((left, top), name, INK, font)
            sheet.paste(panel, (left, top + LINE))
            pen.text((left, top + LINE + panel.height + 1), text, INK, font)
            left += width + MARGIN
        top += height
    return sheet

"""The page of `experiments.super_resolve`: each picture's middle as it was, interpolated, and enlarged."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffinv import operators
from diffinv.data import to_pixels, to_unit
from experiments.common.photos import Photo, eight
from experiments.report import ledger
from experiments.report.page import link, shown
from experiments.report.shell import paragraphs, shell

MORE = "\nsection img { max-width: 100%; image-rendering: auto; }"
SHOWN, GAP, HEAD = 384, 8, 22  # pixels: longest side of a middle, between them, and above them


class Entry(NamedTuple):
    """A finished picture: its name, (width, height), files, seconds, and what was converted."""

    name: str
    size: tuple[int, int]
    result: Path
    compare: Path
    seconds: float
    notes: tuple[str, ...]

    def line(self) -> str:
        """What the terminal says of it."""
        width, height = self.size
        notes = f" ({', '.join(self.notes)})" if self.notes else ""
        return f"{self.result}  {width} x {height}, {self.seconds:.1f} s{notes}"


def bicubic(rgb: np.ndarray, scale: int) -> np.ndarray:
    """MATLAB's, uint8 to uint8."""
    size = (scale * rgb.shape[0], scale * rgb.shape[1])
    return to_pixels(operators.imresize(jnp.asarray(to_unit(rgb)), size))


def compare(path: Path, photo: Photo, result: np.ndarray, scale: int) -> Path:
    """One PNG of the middle: pixels enlarged, bicubic, result, of 8 or 16 bits."""
    rgb = photo.rgb
    height, width = rgb.shape[:2]
    h, w = min(height, SHOWN // scale), min(width, SHOWN // scale)
    top, left = (height - h) // 2, (width - w) // 2
    margin = 8  # so that the interpolation knows what lies around
    above, before = min(margin, top), min(margin, left)
    around = bicubic(rgb[top - above : top + h + margin, left - before : left + w + margin], scale)
    crop = rgb[top : top + h, left : left + w]
    inner = around[scale * above :, scale * before :][: scale * h, : scale * w]
    done = eight(result[scale * top :, scale * left :][: scale * h, : scale * w])
    panels = {"input": crop.repeat(scale, 0).repeat(scale, 1), "bicubic": inner, "result": done}
    sheet = Image.new("RGB", (3 * scale * w + 2 * GAP, scale * h + HEAD), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (name, panel) in enumerate(panels.items()):
        sheet.paste(Image.fromarray(panel), (i * (scale * w + GAP), HEAD))
        pen.text((i * (scale * w + GAP), 2), name, "black", font)
    return ledger.put(path, ledger.png(sheet))


def _section(folder: Path, entry: Entry) -> str:
    width, height = entry.size
    source = "data:image/png;base64," + base64.b64encode(entry.compare.read_bytes()).decode()
    notes = "; ".join([f"{width} x {height}", f"{entry.seconds:.1f} s", *entry.notes])
    target = entry.result.relative_to(folder)
    file = f'<a href="{link(target)}">{shown(target)}</a>'
    head = f"<h2>{shown(entry.name)} <small>{html.escape(notes)} · {file}</small></h2>"
    return f'<section>{head}<img src="{source}" alt="input, bicubic, result"></section>'


def write(folder: Path, command: str, entries: list[Entry], failed: list[str]) -> Path:
    """`folder`/index.html."""
    blocks = [
        *paragraphs(["The middle of each picture: its pixels, bicubic interpolation (MATLAB's), and the result."]),
        *(_section(folder, entry) for entry in entries),
        *(f'<p class="flag">failed: {html.escape(text)}</p>' for text in failed),
    ]
    page = shell("Enlarged pictures", command, blocks, style=MORE)
    return ledger.put(folder / "index.html", page.encode("utf-8", "replace"))

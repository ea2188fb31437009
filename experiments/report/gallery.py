"""Records to one labelled PNG: a row a picture, a column a method, pixels enlarged and never blended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from diffinv.data.reader import pillow
from diffinv.display import enlargement
from experiments.report.ledger import images, size_of
from experiments.report.tables import Record, complaint, keys, text

INK, GREY, RED, PAPER = (20, 20, 24), (105, 105, 115), (190, 30, 30), (255, 255, 255)
MARGIN, GAP, LINE = 16, 10, 17


class Layout(NamedTuple):
    """Pixels: left edges of the columns and one past the last, top edges of the rows likewise; enlargement."""

    lefts: list[int]
    tops: list[int]
    scale: int


def _edges(start: int, extents: Sequence[int]) -> list[int]:
    edges = [start]
    for extent in extents:
        edges.append(edges[-1] + extent + GAP)
    return edges


def _caption(case: dict[str, Any]) -> tuple[str, tuple[int, int, int]]:
    """What stands under a reconstruction: PSNR and SSIM, or in red how it failed."""
    if said := complaint(case):
        return said, RED
    units = {"psnr": " dB", "ssim": ""}
    return "   ".join(text(name, case[name]) + unit for name, unit in units.items() if name in case), GREY


def _layout(rows: Sequence[dict[str, Any]], records: Sequence[Record], columns: Sequence[str], width: Any) -> Layout:
    """Every row takes its picture's size, every column its widest picture or text."""
    sizes = [size_of(row) for row in rows]
    scale = enlargement([side for size in sizes for side in size], 128)
    captions = {c: [_caption(r["methods"][c])[0] for r in records if c in r["methods"]] for c in columns}
    widest = max(w for w, _ in sizes) * scale
    extents = [max([widest, *(width(t) for t in [column, *captions[column]])]) for column in columns]
    names = max(width(r[key]) for r in records for key in ("picture", "task"))
    heights = [max(h * scale, 2 * LINE) + LINE + 2 for _, h in sizes]
    return Layout(_edges(MARGIN + names + GAP, extents), _edges(MARGIN + LINE + GAP, heights), scale)


def draw(records: Sequence[Record], note: str = "") -> Any:
    """The gallery as a Pillow image.

    Args:
      records: at least one; a method that one of them lacks leaves a gap.
      note: a line at the foot.
    """
    image_module = pillow()
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    rows = [images(record) for record in records]
    columns = keys(rows)
    layout = _layout(rows, records, columns, lambda t: round(font.getlength(t.encode("utf-8", "replace").decode())))
    sheet = image_module.new(
        "RGB", (layout.lefts[-1] - GAP + MARGIN, layout.tops[-1] + MARGIN + LINE * bool(note)), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    plain = lambda string: string.encode("utf-8", "replace").decode()
    write = lambda x, y, string, ink: pen.text((x, y), plain(string), ink, font)
    for left, column in zip(layout.lefts, columns):
        write(left, MARGIN, column, INK)
    for top, row, record in zip(layout.tops, rows, records):
        write(MARGIN, top, record["picture"], INK)
        write(MARGIN, top + LINE, record["task"], GREY)
        size = tuple(side * layout.scale for side in size_of(row))
        for left, column in zip(layout.lefts, columns):
            if column in row:
                sheet.paste(row[column].convert("RGB").resize(size, image_module.Resampling.NEAREST), (left, top))
            if column in record["methods"]:
                write(left, top + size[1] + 2, *_caption(record["methods"][column]))
    write(MARGIN, layout.tops[-1], note, GREY)
    return sheet

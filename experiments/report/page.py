"""Records to one HTML page that carries its pictures in itself and asks for nothing from outside."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from diffinv.display import enlargement
from experiments.report.ledger import GIVEN, images, png, size_of
from experiments.report.shell import paragraphs, shell
from experiments.report.tables import (
    MARKED,
    Record,
    Row,
    best,
    column,
    complaint,
    grid,
    keys,
    number,
    printable,
    text,
)

LABELS = {
    "psnr": "PSNR / dB",
    "ssim": "SSIM",
    "feature_distance": "feature distance",
    "residual": "residual / floor",
    "nfe": "NFE",
    "seconds": "seconds",
}


def link(path: str | PurePath) -> str:
    """The address of a file beside the page, fit for an attribute: `./a%23b.png`, whatever its name looks like.

    The leading `./` keeps a name such as `javascript:x` a file's; bytes that are no UTF-8 stay what they are.
    """
    return "./" + html.escape(quote(os.fsencode(PurePath(path).as_posix())))


def shown(name: str | PurePath) -> str:
    """A file's name, escaped, to be read; what is no text becomes "?"."""
    return html.escape(str(name).encode("utf-8", "replace").decode())


def element(name: str, body: str, **attributes: str) -> str:
    """An element; the body is HTML already, attributes are escaped; `class_` is the attribute class."""
    pairs = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items() if value)
    return f"<{name}{pairs}>{body}</{name}>"


def _look(name: str, value: Any, is_best: bool) -> str:
    """The classes of a cell of the means: numbers to the right, the best marked, frozen trajectories flagged."""
    flagged = name in MARKED and number(value) not in (None, 0.0)
    return " ".join(["n"] * (number(value) is not None) + ["best"] * is_best + ["flagged"] * flagged)


def means_table(rows: Sequence[Row]) -> str:
    """The table of means as HTML, a heavier line where the task changes."""
    names = keys(rows)
    heads = {name: "n" * any(number(row.get(name)) is not None for row in rows) for name in names}
    head = "".join(
        element("th", html.escape(column(name).heading), scope="col", class_=kind) for name, kind in heads.items()
    )
    body, task = [], None
    for row, cells in zip(rows, grid(rows, names)):
        pairs = zip(names, cells)
        tags = [element("td", html.escape(cell), class_=_look(name, row.get(name), won)) for name, (cell, won) in pairs]
        body.append(element("tr", "".join(tags), class_="new" * (task not in (None, row.get("task")))))
        task = row.get("task")
    table = element("table", element("thead", element("tr", head)) + element("tbody", "".join(body)), class_="means")
    return element("div", table, class_="wide")


def _numbers(case: dict[str, Any], winners: set[str]) -> str:
    """The list of a reconstruction's numbers; those that are best in its row are marked."""
    shown = [name for name in case if name not in ("image", "first_bad_step", "floor") and printable(case[name])]
    lines = []
    for name in shown:
        value = text(name, case[name])
        if name == "residual" and case.get("floor") is not None:
            value += f" / {text('floor', case['floor'])}"
        label = LABELS.get(name, column(name).heading)
        kind = "best" * (name in winners)
        lines.append(element("dt", html.escape(label)) + element("dd", html.escape(value), class_=kind))
    return element("dl", "".join(lines))


def _figure(name: str, image: Any, size: tuple[int, int], about: str, numbers: str = "") -> str:
    width, height = size
    source = "data:image/png;base64," + base64.b64encode(png(image)).decode()
    alt = html.escape(f"{name}: {about}")
    img = f'<img src="{source}" width="{width}" height="{height}" alt="{alt}">'
    return element("td", element("figure", element("figcaption", html.escape(name)) + img + numbers))


def _row(record: Record) -> str:
    """One picture: truth, measurement, and the reconstructions side by side."""
    pictures = images(record)
    scale = enlargement(size_of(pictures), 192)
    size = tuple(side * scale for side in size_of(pictures))
    methods = record["methods"]
    winners = {name: best(list(methods.values()), name) for name in ("psnr", "ssim", "feature_distance")}
    cells = [_figure(name, pictures[name], size, record["picture"]) for name in GIVEN if name in pictures]
    for index, (name, case) in enumerate(methods.items()):
        numbers = _numbers(case, {key for key, rows in winners.items() if index in rows})
        said = complaint(case)
        flag = element("p", f"⚠ {html.escape(said)}", class_="flag") if said else ""
        cells.append(_figure(name, pictures[name], size, record["picture"], flag + numbers))
    return element("tr", element("th", html.escape(record["picture"]), scope="row") + "".join(cells))


def _task(task: str, records: Sequence[Record]) -> str:
    """A section: the rows of one task."""
    count = f"{len(records)} picture{'s' * (len(records) != 1)}"
    head = element("h2", f"{html.escape(task)} <small>{count}</small>")
    table = element("table", element("tbody", "\n".join(map(_row, records))), class_="pictures")
    return element("section", head + element("div", table, class_="wide"))


MEANS = "Means <small>the best of each column and task is marked</small>"
ADDED = "What is added to the base <small>mean difference by picture, 95 % interval</small>"


def page(
    title: str,
    command: str,
    records: Sequence[Record],
    means: Sequence[Row],
    added: Sequence[Row],
    notes: Sequence[str],
    config: Any = None,
    versions: Row | None = None,
) -> str:
    """The page as HTML. Every given text is escaped.

    Args: as of `experiments.report.write`; `added` as of `tables.paired`; config and versions as JSON holds them.
    """
    tasks = list(dict.fromkeys(record["task"] for record in records))
    about = " · ".join(f"{name} {version}" for name, version in (versions or {}).items())
    settings = html.escape(json.dumps(config, indent=1, ensure_ascii=False)) if config else ""
    blocks = [
        element("details", element("summary", "configuration") + element("pre", settings)) if settings else "",
        *paragraphs(notes),
        element("h2", MEANS) + means_table(means) if means else "",
        element("h2", ADDED) + means_table(added) if added else "",
        *(_task(task, [record for record in records if record["task"] == task]) for task in tasks),
    ]
    return shell(title, command, blocks, about)

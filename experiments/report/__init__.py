r"""From records to files: `results.json`, a lossless PNG per image, `gallery.png`, and a page that needs nothing else.

A record is a plain dictionary, one picture under one task; a truth that is not known is left out. Images are
uint8, (H, W), (H, W, 1) or (H, W, 3):

    {"picture": "cat", "task": "box", "truth": image, "measurement": image,
     "methods": {"dps": {"image": image, "psnr": 24.1, "ssim": 0.8, "feature_distance": 0.1, "residual": 2.9,
                         "floor": 2.8, "nfe": 1000, "seconds": 9.5, "first_bad_step": -1}}}

`first_bad_step` is the step at which a trajectory was frozen as not finite, or -1; `largest`, where it is there, the
greatest |x|, which marks what diverged. A method's other numbers show too.
`append` keeps each picture as soon as it is there, `load` resumes, `write` makes the whole report. Nothing is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report import gallery, ledger
from experiments.report.ledger import load, readable, slug, sound
from experiments.report.page import page
from experiments.report.tables import Record, Row, failures, paired, summarise, table

__all__ = [
    "Report",
    "append",
    "failures",
    "load",
    "paired",
    "readable",
    "slug",
    "sound",
    "strip",
    "summarise",
    "table",
    "write",
]


def strip(folder: str | Path, record: Record) -> Path:
    """One PNG of a picture: truth, measurement and every reconstruction side by side, labelled."""
    place = Path(folder) / "pictures" / ledger.slug(record["task"])
    return ledger.put(place / f"{ledger.slug(record['picture'])}.png", ledger.png(gallery.draw([record])))


def append(folder: str | Path, record: Record, title: str = "", command: str = "", config: Any = None) -> None:
    """Keeps one finished picture: its PNG files, its strip, and its numbers in `results.json`.

    It replaces one of its name and task. A run that is killed or finds the disk full loses none of those before.

    """
    ledger.append(folder, record, title, command, config)
    strip(folder, record)


@dataclass(frozen=True)
class Report:
    """Where the parts of a report are."""

    index: Path
    gallery: Path
    results: Path


def write(
    folder: str | Path,
    title: str,
    command: str,
    records: Sequence[Record],
    means: Sequence[Row] | None = None,
    notes: str | Sequence[str] = (),
    config: Any = None,
    shown: int = 50,
) -> Report:
    r"""The whole report: pictures, `results.json`, `gallery.png`, `index.html`; each file whole or not at all.

    Args:
      folder: made where it is missing; what `append` kept there of other pictures is no longer listed.
      title, command: text; the command is what makes the report again.
      records: at least one; see the module's head.
      means: rows for the table of means, of text, numbers or pairs (mean, error); `summarise(records)` by default.
      notes: paragraphs.
      config: anything that JSON holds, or a ConfigDict.
      shown: at most so many pictures on the page and in the gallery. All are in `results.json` and `pictures/`.
    """
    if not records:
        raise ValueError("records is empty; give at least one record")
    folder, means = Path(folder), summarise(records) if means is None else means
    notes = [notes] if isinstance(notes, str) else list(notes)
    head = ledger.plain({"title": title, "command": command, "config": config, "notes": notes, "means": means})
    ledger.keep(folder, records, **head)
    for record in records:
        strip(folder, record)
    results = ledger.rewrite(folder, map(ledger.entry, records), **head)
    rest = f"The first {shown} of {len(records)} pictures; all are in results.json and pictures/."
    more = [rest] if len(records) > shown else []
    sheet = ledger.put(folder / "gallery.png", ledger.png(gallery.draw(records[:shown], *more)))
    whole = page(
        title, command, records[:shown], means, paired(records), [*notes, *more], head["config"], ledger.versions()
    )
    return Report(ledger.put(folder / "index.html", whole.encode("utf-8", "replace")), sheet, results)

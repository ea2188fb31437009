"""The report of `experiments.augment`: the verdict in words, the tables behind it, and sheets of made pictures."""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from diffinv.data import to_pixels
from experiments.augmenting import bench, quality
from experiments.augmenting.verdict import SCORES, Paired, paired, verdict
from experiments.report import ledger
from experiments.report.shell import paragraphs, shell
from experiments.report.tables import student

MAIN = "balanced accuracy"
AGAINST = "oversampling"
SHEET = 8
NOTES = (
    "Scores are of test pictures that no generator, filter or choice has seen. Gains are means over seeds, each with "
    "its own split, in points (hundredths), with Student's 95 % interval; in brackets that of Nadeau and Bengio, which "
    "allows for splits that overlap. A strength is chosen anew on the validation pictures of each split.",
    "Baselines add as many pictures of each rare class as the recipes do, but for class weights, which add none. Where "
    "a recipe stands beside a baseline, its pictures are half of those that are added.",
)
Records = Sequence[dict[str, Any]]


class Row(NamedTuple):
    """One arm under one classifier.

    Attributes:
      arm: its name.
      strengths: how often each was chosen; "" where there is one.
      scores: mean and Student's half of each score, in [0, 1].
      gain: of balanced accuracy over oversampling.
    """

    arm: str
    strengths: str
    scores: dict[str, tuple[float, float]]
    gain: Paired


def gain(records: Records, judge: str, arm: str, against: str, strength: str | None = None) -> Paired:
    """Of balanced accuracy, at the strength that validation chose or at another."""
    of = lambda name, strength=None: [bench.score(record, name, judge, MAIN, strength) for record in records]
    sizes = records[0]["pictures"]
    return paired(of(arm, strength), of(against), sizes["test"], sizes["train"])


def validated(records: Records, judge: str, arm: str, strength: str = "") -> float:
    """The mean score on validation pictures."""
    return float(np.mean([record["arms"][arm][strength]["validation"][judge][MAIN] for record in records]))


def best_baseline(records: Records, judge: str, baselines: Sequence[str]) -> str:
    """The baseline of the best mean score on validation pictures."""
    return max(baselines, key=lambda arm: validated(records, judge, arm))


def settled(records: Records, judge: str, method: str) -> str:
    """The one strength for all splits that is best on their validation pictures.

    Only where no split's validation pictures are another's test: of a test of its own.
    """
    return max(records[0]["arms"][method], key=lambda strength: validated(records, judge, method, strength))


def table(records: Records, judge: str) -> list[Row]:
    """All arms under one classifier."""
    rows = []
    for arm in records[0]["arms"]:
        picked = Counter(bench.chosen(record, arm, judge) for record in records)
        strengths = ", ".join(f"{name} ({count})" for name, count in picked.most_common() if name)
        of = lambda what, arm=arm: student([bench.score(record, arm, judge, what) for record in records])
        rows.append(Row(arm, strengths, {what: of(what) for what in SCORES}, gain(records, judge, arm, AGAINST)))
    return rows


def verdicts(records: Records, methods: Sequence[str]) -> list[str]:
    """A sentence for each classifier and recipe, against oversampling and against the best baseline."""
    lines = []
    for judge in judges(records):
        best = best_baseline(records, judge, [arm for arm in records[0]["arms"] if arm not in methods])
        for method in methods:
            for against in dict.fromkeys((AGAINST, best)):
                named = against if against == AGAINST else f"{against} (the best baseline on validation)"
                lines.append(f"{judge}: {verdict(gain(records, judge, method, against), method, named)}")
    return lines


def judges(records: Records) -> list[str]:
    """The classifiers of the records."""
    return list(next(iter(records[0]["arms"]["none"].values()))["test"])


def points(found: Paired) -> str:
    """A gain as text."""
    if math.isnan(found.half):
        return f"{found.mean:+.1f}"
    return f"{found.mean:+.1f} ± {found.half:.1f} (± {found.corrected:.1f})"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = lambda kind, row: "".join(
        f"<{kind}{'' if i == 0 else ' class=n'}>{html.escape(cell)}</{kind}>" for i, cell in enumerate(row)
    )
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="means"><thead><tr>{cells("th", head)}</tr></thead>{body}</table></div>'


def judged(records: Records, judge: str) -> str:
    """The table of one classifier."""
    rows = [
        (row.arm, row.strengths, *(spread(row.scores[what], ".3f") for what in SCORES), points(row.gain))
        for row in table(records, judge)
    ]
    head = ("", "strength chosen (seeds)", *SCORES, f"gain of {MAIN} over {AGAINST}")
    return f"<h2>{html.escape(judge)}</h2>{_table(head, rows)}"


def tried(records: Records, methods: Sequence[str]) -> str:
    """Gains of every strength that was tried, by classifier."""
    names = judges(records)
    rows = [
        (f"{method} {strength}", *(points(gain(records, judge, method, AGAINST, strength)) for judge in names))
        for method in methods
        for strength in records[0]["arms"][method]
        if strength
    ]
    if not rows:
        return ""
    return f"<h2>Every strength that was tried</h2>{_table(('', *names), rows)}"


def over_each(records: Records, judge: str, methods: Sequence[str], apart: bool) -> str:
    """What each recipe gains over each baseline, chosen on each split, and `apart` also as `settled` says."""
    baselines = [arm for arm in records[0]["arms"] if arm not in methods]
    over = lambda method, strength: [points(gain(records, judge, method, each, strength)) for each in baselines]
    rows = []
    for method in methods:
        rows.append((f"{method}, chosen on each split", *over(method, None)))
        if apart:
            strength = settled(records, judge, method)
            rows.append((f"{method} {strength}, chosen on all".replace(" ,", ","), *over(method, strength)))
    title = f"<h2>Gains over each baseline <small>{html.escape(judge)}</small></h2>"
    return title + _table(("", *baselines), rows)


def means(records: Records, part: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Means over seeds of what a record tells by name, with half of Student's interval."""
    of = lambda name, field: student([record[part][name][field] for record in records])
    return {name: {field: of(name, field) for field in fields} for name, fields in records[0][part].items()}


def spread(pair: tuple[float, float], digits: str) -> str:
    """A mean and half of its interval, where it has one."""
    mean, half = (format(value, digits) for value in pair)
    return mean if math.isnan(pair[1]) else f"{mean} ± {half}"


def compared(records: Records, size: int, notes: Sequence[str] = ()) -> str:
    """The table of quality, with the name of the network, and what is said of those that were given."""
    told = means(records, "quality")
    head = ("", *next(iter(told.values())))
    rows = [(name, *(spread(pair, ".3g") for pair in values.values())) for name, values in told.items()]
    copied = [name for name, values in told.items() if values["copies"][0] < 0.5]
    flag = [f"{', '.join(copied)}: the pictures lie much nearer to training than unseen ones do: they are copies."]
    title = f"<h2>Made pictures against unseen real ones <small>features: {quality.network(size)}</small></h2>"
    flags = "".join(f'<p class="flag">{html.escape(line)}</p>' for line in flag if copied)
    return "".join([title, _table(head, rows), *paragraphs(notes), flags])


def cost(records: Records) -> str:
    """Seconds of a seed, by part."""
    names = list(records[0]["seconds"])
    rows = [(name, f"{np.mean([record['seconds'][name] for record in records]):.1f}") for name in names]
    return f"<h2>Cost <small>seconds of a seed, compilation included</small></h2>{_table(('', 'seconds'), rows)}"


def taken(records: Records) -> str:
    """What each filter took, of all seeds."""
    told = {
        name: sum((Counter(record["taken"][name]) for record in records), Counter()) for name in records[0]["taken"]
    }
    whole = sum(record["made"] for record in records)
    filters = list(next(iter(records[0]["taken"].values())))
    rows = [(name, *(str(counts[each]) for each in filters)) for name, counts in told.items()]
    return f"<h2>Taken by filters <small>of {whole} pictures of each</small></h2>{_table(('', *filters), rows)}"


def some(count: int) -> str:
    """How many of so many pictures a sheet shows."""
    return f"all {count}" if count <= SHEET**2 else f"{SHEET**2} at random of {count}"


def sheet(images: np.ndarray, title: str, about: str, least: int = 64) -> str:
    """Up to 64 pictures in a square, enlarged by whole factors, inside the page."""
    if not len(images):
        return f"<section><h2>{html.escape(title)}</h2><p>none</p></section>"
    pixels, side = to_pixels(images[: SHEET**2]), images.shape[1]
    grid = np.full((SHEET * (side + 1), SHEET * (side + 1), images.shape[-1]), 255, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = (i // SHEET) * (side + 1), (i % SHEET) * (side + 1)
        grid[top : top + side, left : left + side] = picture
    factor = max(least // side, 1)
    grid = grid.repeat(factor, 0).repeat(factor, 1)
    data = base64.b64encode(ledger.png(Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid))).decode()
    words = f"<h2>{html.escape(title)} <small>{html.escape(about)}</small></h2>"
    return f'<section>{words}<img src="data:image/png;base64,{data}" alt="{html.escape(title)}"></section>'


def page(
    records: Records,
    methods: Sequence[str],
    size: int,
    command: str,
    about: Sequence[str],
    sheets: str,
    notes: Sequence[str] = (),
    apart: bool = False,
) -> str:
    """The whole report; of no seed, the sheets alone. `notes` are of given networks; `apart`: the test is one of its
    own, see `settled`."""
    blocks = [*paragraphs(about)]
    if records:
        blocks += ["<h2>Verdict</h2>", *paragraphs(verdicts(records, methods)), *paragraphs(NOTES)]
        blocks += [judged(records, judge) for judge in judges(records)]
        blocks += [over_each(records, judge, methods, apart) for judge in judges(records)]
        blocks += [tried(records, methods), compared(records, size, notes), taken(records), cost(records)]
    return shell("Diffusion augmentation, judged by downstream accuracy", command, [*blocks, sheets])

"""Rows of dictionaries to text: how each column prints, and which value in it is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

Record = dict[str, Any]
Row = Mapping[str, Any]


class Column(NamedTuple):
    """A heading; a number format; a score, larger for better, or None where nothing is best."""

    heading: str
    format: str
    score: Callable[[float], float] | None = None


_lower = lambda value: -value
COLUMNS = {
    "psnr": Column("PSNR / dB ↑", ".2f", lambda value: value),
    "ssim": Column("SSIM ↑", ".4f", lambda value: value),
    "nmse": Column("NMSE ↓", ".4f", _lower),
    "feature_distance": Column("feature distance ↓", ".4f", _lower),
    "residual": Column("residual", "#.4g"),
    "floor": Column("noise floor", "#.4g"),
    "ratio": Column("residual / floor → 1", ".3f", lambda value: -abs(math.log(value)) if value > 0 else -math.inf),
    "ms_ssim": Column("MS-SSIM ↑", ".4f", lambda value: value),
    "lpips": Column("LPIPS ↓", ".4f", _lower),
    "dists": Column("DISTS ↓", ".4f", _lower),
    "niqe": Column("NIQE ↓", ".3f", _lower),
    "taken": Column("taken for what it is ↑", ".3f", lambda value: value),
    "kid": Column("EffNetLite0-KID ↓", ".4f", _lower),
    "cmmd": Column("EffNetLite0-CMMD ↓", ".3f", _lower),
    "inception_fid": Column("Inception-FID ↓", ".2f", _lower),
    "inception_fid_limit": Column("Inception-FID without its bias in 1/n ↓", ".2f", _lower),
    "inception_kid": Column("Inception-KID ↓", ".5f", _lower),
    "clip_cmmd": Column("CLIP-CMMD ↓", ".3f", _lower),
    "dino_fd": Column("FD-DINOv2 ↓", ".1f", _lower),
    "nfe": Column("NFE ↓", ".0f", _lower),
    "seconds": Column("seconds ↓", ".2f", _lower),
    "pictures": Column("pictures", ".0f"),
    "averaged": Column("in the means", ".0f"),
    "frozen": Column("frozen", ".0f"),
    "diverged": Column("diverged", ".0f"),
    "failed": Column("failed", ".0f"),
    "missing": Column("missing", ".0f"),
    "vjps": Column("VJPs", ".0f"),
    "calls": Column("operator calls", ".0f"),
    "mean_psnr": Column("PSNR of the draws' mean / dB ↑", ".2f", lambda value: value),
    "deviation": Column("deviation of the draws", ".4f"),
    "error": Column("error of their mean", ".4f", _lower),
    "covered": Column("covered → nominal", ".3f"),
    "nominal": Column("nominal", ".3f"),
    "nmse_added": Column("NMSE", "+.4f"),
    "psnr_added": Column("PSNR / dB", "+.2f"),
    "ssim_added": Column("SSIM", "+.4f"),
    "feature_distance_added": Column("feature distance", "+.4f"),
    "ratio_added": Column("residual / floor", "+.3f"),
    "ms_ssim_added": Column("MS-SSIM", "+.4f"),
    "lpips_added": Column("LPIPS", "+.4f"),
    "dists_added": Column("DISTS", "+.4f"),
    "niqe_added": Column("NIQE", "+.3f"),
    "taken_added": Column("taken for what it is", "+.3f"),
}
FAILURES = ("frozen", "diverged")
MARKED = (*FAILURES, "failed", "missing")
ADDED = ("psnr", "ssim", "feature_distance", "ratio")
WIDEST = 5.0  # of a picture whose range is [-1, 1]; beyond it lies no restoration


def column(name: str) -> Column:
    """How the column of this name prints; one that is not in `COLUMNS` has four digits and no best."""
    return COLUMNS.get(name, Column(name.replace("_", " "), ".4g"))


def number(value: Any) -> float | None:
    """The value as a float, of a pair (mean, error) the mean; None for text."""
    value = value[0] if isinstance(value, (tuple, list)) else value
    return None if value is None or isinstance(value, (str, bool)) else float(value)


def printable(value: Any) -> bool:
    """Whether it fits a cell: text, a number or a pair, and not a trace or a table."""
    return np.ndim(value) == 0 and not isinstance(value, Mapping) or np.shape(value) == (2,)


def text(name: str, value: Any) -> str:
    """As printed: by the column's format, `mean ± error` of a pair, text as it is."""
    if value is None or isinstance(value, (str, bool)):
        return "" if value is None else str(value)
    values = value if isinstance(value, (tuple, list)) else (value,)
    mark = " ⚠" if name in MARKED and number(value) else ""
    kind = column(name).format
    return " ± ".join(format(float(v), k) for v, k in zip(values, (kind, kind.lstrip("+")))) + mark


def best(rows: Sequence[Row], name: str) -> set[int]:
    """The rows that print the best value among those of their task; none where all print the same.

    A row with a failure is none of them.
    """
    score = column(name).score or (lambda value: math.nan)
    winners = set()
    for task in {row.get("task") for row in rows}:
        sound = [i for i, row in enumerate(rows) if row.get("task") == task and not any(map(row.get, MARKED))]
        values = {i: number(rows[i].get(name)) for i in sound}
        scores = {i: score(v) for i, v in values.items() if v is not None and not math.isnan(score(v))}
        printed = {i: text(name, rows[i][name]) for i in scores}
        if len(set(printed.values())) > 1:
            winner = printed[max(scores, key=scores.__getitem__)]
            winners |= {i for i in printed if printed[i] == winner}
    return winners


def grid(rows: Sequence[Row], columns: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """(text, is best) of every cell."""
    winners = {name: best(rows, name) for name in columns}
    return [[(text(name, row.get(name)), i in winners[name]) for name in columns] for i, row in enumerate(rows)]


def keys(rows: Sequence[Row]) -> list[str]:
    """All keys in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """A Markdown table that also reads well in a terminal; the best value of a column, per task, in `**`.

    Args:
      rows: dictionaries of text, numbers or pairs (mean, error).
      columns: the keys to show; all of them by default.
    """
    columns = keys(rows) if columns is None else list(columns)
    escape = lambda cell: cell.replace("|", "\\|").replace("\n", " ")
    body = [[f"**{cell}**" if is_best else escape(cell) for cell, is_best in row] for row in grid(rows, columns)]
    heads = [escape(column(name).heading) for name in columns]
    widths = [max([3, *(len(row[i]) for row in [heads, *body])]) for i in range(len(columns))]
    right = [any(number(row.get(name)) is not None for row in rows) for name in columns]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right)]
    pad = lambda row: [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right)]
    return "\n".join("| " + " | ".join(pad(row)) + " |" for row in [heads, rule, *body])


def frozen(case: Row) -> bool:
    """Whether a reconstruction stopped as not finite, or has a number that is none."""
    numbers = [float(v) for v in case.values() if isinstance(v, (int, float))]
    return int(case.get("first_bad_step", -1)) >= 0 or any(map(math.isnan, numbers))


def diverged(case: Row) -> bool:
    """Whether a reconstruction is finite, and has left its range far behind: `largest`, its greatest |x|."""
    return not frozen(case) and float(case.get("largest", 0)) > WIDEST


def failures(records: Sequence[Record]) -> tuple[int, int]:
    """How many reconstructions are frozen or diverged, and how many there are."""
    found = [frozen(case) or diverged(case) for record in records for case in record["methods"].values()]
    return sum(found), len(found)


def cases(record: Record) -> list[dict[str, Any]]:
    """One row a method: its numbers, `ratio` = residual / floor where there is noise, and how it failed."""
    rows = []
    for method, case in record["methods"].items():
        numbers = {k: v for k, v in case.items() if k not in ("image", "first_bad_step")}
        if case.get("floor") and case.get("residual") is not None:
            numbers["ratio"] = case["residual"] / case["floor"]
        rows.append({"method": method, **numbers, "frozen": int(frozen(case)), "diverged": int(diverged(case))})
    return rows


def summarise(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows of means, one per task and method, with the counts of pictures, of frozen and of diverged trajectories.

    Means are over the reconstructions that did not fail, NaN where all did; `averaged` says how many these are, where
    any failed. `diverged` is there where any is.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for record in records:
        for case in cases(record):
            groups.setdefault((record["task"], case["method"]), []).append(case)
    others, every = ("residual", "floor", *FAILURES), [case for group in groups.values() for case in group]
    counted = [name for name in FAILURES if name == "frozen" or any(case[name] for case in every)]
    failing = any(case[name] for case in every for name in FAILURES)
    rows = []
    for (task, method), group in groups.items():
        sound = [case for case in group if not any(case[name] for name in FAILURES)]
        names = [name for name in COLUMNS if name not in others and any(name in c for c in group)]
        means = {name: _mean([float(c[name]) for c in sound if name in c]) for name in names}
        averaged = {"averaged": len(sound)} if failing else {}
        counts = {"pictures": len(group), **averaged, **{name: sum(c[name] for c in group) for name in counted}}
        rows.append({"task": task, "method": method, **means, **counts})
    return rows


def paired(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What each wrapper "A(B)" adds to its base "B": rows of (mean, half of the 95 % interval) of paired differences.

    Over the pictures on which neither failed, two at least; the interval is Student's,
    `t_{n-1} s / sqrt(n)`, as the pictures are few.
    """
    groups: dict[tuple[str, str, str], list[tuple[Row, Row]]] = {}
    for record in records:
        sound = {case["method"]: case for case in cases(record) if not any(case[name] for name in FAILURES)}
        for method, case in sound.items():
            base = method.partition("(")[2].removesuffix(")")
            if base in sound:
                groups.setdefault((record["task"], method, base), []).append((sound[base], case))
    rows = []
    for (task, method, base), pairs in groups.items():
        shared = [name for name in ADDED if all(name in case for pair in pairs for case in pair)]
        added = {f"{name}_added": student([case[name] - plain[name] for plain, case in pairs]) for name in shared}
        if len(pairs) > 1:
            rows.append({"task": task, "method": f"{method} - {base}", **added, "pictures": len(pairs)})
    return rows


def student(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half its 95 % interval, which is Student's."""
    n = len(values)
    quantile = stdtrit(n - 1, 0.975) if n > 1 else math.nan
    return float(np.mean(values)), float(quantile * np.std(values, ddof=min(n - 1, 1)) / math.sqrt(n))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def complaint(case: Row) -> str:
    """What a failed reconstruction is marked with; "" for a sound one."""
    step = int(case.get("first_bad_step", -1))
    if frozen(case):
        return f"frozen: not finite from step {step}" if step >= 0 else "not finite"
    return f"diverged: |x| up to {float(case['largest']):.3g}" if diverged(case) else ""

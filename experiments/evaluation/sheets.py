"""The rows of a table as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report import tables
from experiments.report.tables import Row

TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "→": "$\\to$",
    "Δ": "$\\Delta$",
    "×": "$\\times$",
    "⚠": "(!)",
}


def worded(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of comparisons with each difference and its word in one cell."""
    lines = []
    for row in rows:
        cells: dict[str, Any] = {}
        for name, value in row.items():
            if name.endswith("_added"):
                cells[name] = f"{tables.text(name, value)}, {row[name.removesuffix('added') + 'word']}"
            elif not name.endswith("_word"):
                cells[name] = value
        lines.append(cells)
    return lines


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(TEX.get(letter, letter) for letter in text)


def latex(rows: Sequence[Row], caption: str) -> str:
    """A table of booktabs, the best value of a column, per task, in bold, a rule between tasks."""
    names = tables.keys(rows)
    right = [any(tables.number(row.get(name)) is not None for row in rows) for name in names]
    heads = " & ".join(escaped(tables.column(name).heading) for name in names)
    body, task = [], rows[0].get("task") if rows else None
    for row, cells in zip(rows, tables.grid(rows, names)):
        if row.get("task") != task:
            body.append("\\midrule")
            task = row.get("task")
        told = [f"\\textbf{{{escaped(text)}}}" if best else escaped(text) for text, best in cells]
        body.append(" & ".join(told) + " \\\\")
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{escaped(caption)}}}",
        f"\\begin{{tabular}}{{{''.join('r' if number else 'l' for number in right)}}}",
        "\\toprule",
        f"{heads} \\\\",
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Full numbers; of a pair (mean, half of its interval) both, the second as NAME_half."""
    flat = [_flat(row) for row in rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in row.items():
        pair = value if isinstance(value, (tuple, list)) else (value,)
        cells |= dict(zip((name, f"{name}_half"), pair))
    return cells


def markdown(title: str, command: str, notes: Sequence[str], sections: Mapping[str, Sequence[Row]]) -> str:
    """A page: the command, notes, and a table under each heading; an empty one is left out."""
    blocks = [f"# {title}", f"`{command}`", *notes]
    for heading, rows in sections.items():
        if rows:
            blocks += [f"## {heading}", tables.table(rows)]
    return "\n\n".join(blocks) + "\n"

"""The ledger of a table: of every cell what is needed to compute it again, and all its scores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.evaluation.items import Item, Set
from experiments.evaluation.summary import Found, failed
from experiments.report import ledger

EACH = ("psnr", "first_bad_step")
"""What is told of every item, so that the ledger says which there are."""


def account(found: Found, row: Mapping[str, Any], pictures: Sequence[str], shared: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's entry; `shared` is what all cells are made with; scores by name, a line a picture, a number a draw.

    What is the same of every item, as the evaluations, is told once, in `constants`.
    """
    results = found.results
    shards = {json.dumps(each.about, sort_keys=True): each.about for each in results.values()}
    makers = {json.dumps(about["made_by"], sort_keys=True): about["made_by"] for about in shards.values()}
    draws = sorted({item.draw for item in results})
    names = list(dict.fromkeys(name for each in results.values() for name in each.scores))
    told = lambda item, name: rounded(results[item].scores.get(name)) if item in results else None
    whole = {name: [[told(Item(p, draw), name) for draw in draws] for p in pictures] for name in names}
    values = {name: {value for line in lines for value in line} for name, lines in whole.items()}
    shared_by_all = [name for name, found in values.items() if len(found) == 1 and None not in found]
    constants = {name: values[name].pop() for name in shared_by_all if name not in EACH}
    scores = {name: lines for name, lines in whole.items() if name not in constants}
    return {
        "cell": found.cell.name,
        "settings": {**found.cell.settings(), **shared},
        **({"refused": found.refused} if found.refused else {}),
        "made_by": list(makers.values()),
        "batches": sorted({about["batch"] for about in shards.values()}),
        "compile_seconds": max((about["compile_seconds"] for about in shards.values()), default=0),
        "wall_seconds": rounded(sum(each.scores["seconds"] for each in results.values())),
        "bytes_predicted": max((about["bytes"] for about in shards.values()), default=0),
        "bytes_measured": max((about["bytes_measured"] for about in shards.values()), default=0),
        "failed": sum(map(failed, results.values())),
        "row": {name: row[name] for name in row if name not in ("task", "method")},
        "constants": constants,
        "scores": scores,
    }


def rounded(value: float | None, digits: int = 6) -> float | None:
    """To so many significant digits; what is no number as None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def ledger_of(
    head: Mapping[str, Any],
    pictures: Set,
    found: Sequence[Found],
    rows: Sequence[Mapping[str, Any]],
    shared: Mapping[str, Any],
) -> dict[str, Any]:
    """All of a table, whose cells are made with `shared`, beside their own settings."""
    known = [{"name": name, "sha256": digest} for name, digest in zip(pictures.names, pictures.digests)]
    cells = [account(each, row, pictures.digests, shared) for each, row in zip(found, rows, strict=True)]
    return ledger.plain({**head, "versions": ledger.versions(), "pictures": known, "cells": cells})


def dumped(content: Mapping[str, Any]) -> bytes:
    """As JSON, a score a line."""
    cells = content["cells"]
    scores = [cell["scores"] for cell in cells]
    marked = {**content, "cells": [{**cell, "scores": f"@{i}@"} for i, cell in enumerate(cells)]}
    text = json.dumps(marked, indent=1, allow_nan=False, ensure_ascii=False)
    for i, each in enumerate(scores):
        lines = [
            f"    {json.dumps(name)}: {json.dumps(values, separators=(',', ':'))}" for name, values in each.items()
        ]
        text = text.replace(f'"@{i}@"', "{\n" + ",\n".join(lines) + "\n   }")
    return f"{text}\n".encode()


def scores_of(path: Path, cell: str) -> dict[Item, dict[str, float]]:
    """The scores of a cell in a ledger by item. Raises ValueError where the file is none, or lacks the cell."""
    try:
        content = json.loads(path.read_text("utf-8"))
        pictures = [each["sha256"] for each in content["pictures"]]
        cells = {each["cell"]: (each["scores"], each["constants"]) for each in content["cells"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--against is {str(path)!r}, which is no ledger of a table ({error}); give ledger.json"
        ) from None
    if cell not in cells:
        raise ValueError(f"--against is {str(path)!r}, which has no cell {cell!r}; it has {', '.join(cells)}")
    found: dict[Item, dict[str, float]] = {}
    scores, constants = cells[cell]
    for name, lines in scores.items():
        for picture, values in zip(pictures, lines, strict=True):
            for draw, value in enumerate(values):
                if value is not None:
                    found.setdefault(Item(picture, draw), dict(constants))[name] = value
    return found

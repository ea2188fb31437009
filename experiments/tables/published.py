"""What the tables share: options that exist only while one runs, cells with intervals, published numbers by their mark.

A table is `main(options) -> Table`; importing it defines no flag, so that several may be imported at once.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from diffinv import schema
from diffinv.metrics import posterior as metrics
from experiments.common import commandline, runtime
from experiments.report import ledger

flags.disclaim_key_flags()  # a table's flags are of the table


class Option(NamedTuple):
    """A flag's default, its value under --quick (None: the default too), and what it may be and means."""

    default: Any
    quick: Any
    field: schema.Field


def named(known: Iterable[str], meaning: str = "rows of the table") -> schema.Field:
    """One or several of the known names."""
    return schema.several(schema.choice(list(known), meaning), least=1)


def counted(meaning: str, high: int, low: int = 2) -> schema.Field:
    """A whole number; two at least where an interval is to be told."""
    return schema.whole(meaning, low, high)


def numbers(field: schema.Field) -> schema.Field:
    """One or several such values."""
    return schema.several(field, least=1, most=100)


class Kept:
    """`kept(key, make)`: what a file of scores has under the key, else what `make()` gives, which the file then gets.

    Without a path they are kept in memory. Raises ValueError where the file holds no scores.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path) if path else None
        self.known: dict[str, Any] = {}
        if self.path and self.path.exists():
            try:
                self.known = dict(json.loads(self.path.read_text()))
            except ValueError:
                raise ValueError(f"--kept is {path!r}, which holds no scores; give another file") from None

    def __call__(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self.known:
            self.known[key] = make()
            if self.path:
                ledger.put(self.path, json.dumps(self.known, indent=0).encode())
        return self.known[key]


class Table(NamedTuple):
    """What a table prints, and how many of the methods' results are not finite, of how many."""

    text: str
    failed: int
    whole: int


def table(text: str, results: Iterable[Iterable[float]]) -> Table:
    """A table with its count of failures, by what the methods scored in every run; exact samples cannot fail."""
    every = np.asarray([value for each in results for value in each], float)
    failed = int(np.sum(~np.isfinite(every)))
    told = f"\n\n{failed} of {every.size} results failed, and are in no mean" if failed else ""
    return Table(text + told, failed, every.size)


class Told(NamedTuple):
    """A published value as its source prints it, and whether somebody has compared it with that source."""

    value: str
    verified: bool

    def __str__(self) -> str:
        return self.value if self.verified else f"{self.value} (unverified)"


def told(number: Told | None) -> str:
    """The cell of a published number; "not at hand" where we have none."""
    return "not at hand" if number is None else str(number)


def sliced(x: np.ndarray, reference: np.ndarray, directions: int, seed: int) -> float:
    """The mean-sliced W1 of two clouds, rows; NaN where x is not finite."""
    return metrics.sliced_wasserstein(x, reference, 1, directions, seed) if np.isfinite(x).all() else float("nan")


def cell(values: list[float], digits: int = 2) -> str:
    """`mean ± 1.96 s / sqrt(n)` over the finite values, and how many were not."""
    mean, half = metrics.interval(values)
    failed, kind = int(np.sum(~np.isfinite(values))), f".{digits}f" if abs(mean) < 1e4 else ".1e"
    return f"{mean:{kind}} ± {half:{kind}}" + (f" ({failed} of {len(values)} failed)" if failed else "")


def columns(lines: list[tuple[str, ...]]) -> str:
    """Lines of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def values(options: dict[str, Option], quick: bool = False, **given: Any) -> SimpleNamespace:
    """What `main` gets: `given`, then the quick values where `quick`, then the defaults."""
    chosen = {
        name: option.quick if quick and option.quick is not None else option.default for name, option in options.items()
    }
    return SimpleNamespace(**{**chosen, **given})


def rows(name: str, chosen: list[str], known: list[str]) -> list[str]:
    """The chosen rows, each of them known and once; ValueError names the nearest."""
    return list(dict.fromkeys(runtime.choose(name, each.strip(), known) for each in chosen))


def cells(dims: list[int], measured: list[int]) -> list[tuple[int, int]]:
    """All (dim, dim_y) of mixtures whose components lie in pairs of coordinates; ValueError where one cannot be."""
    found = [(int(dim), int(dim_y)) for dim in dims for dim_y in measured]
    if any(dim < 2 or dim % 2 for dim, _ in found):
        raise ValueError(f"dims is {dims}; the components lie in pairs of coordinates: give even numbers")
    if any(dim_y > dim for dim, dim_y in found):
        raise ValueError(f"measured is {measured} and dims {dims}; give at most as many measured as there are")
    return found


def run(main: Callable[[SimpleNamespace], Table], options: dict[str, Option]) -> None:
    """Defines the flags, --quick and --out, runs `main` and prints its text; --out names a page that keeps it.

    The status is 2, with one line, where every result failed.
    """
    quick = runtime.flag("quick", False, schema.switch("a few small runs, to see that it works"))
    out = runtime.flag("out", "", schema.path("the file that gets the text, too, as Markdown; '' for none"))
    found = {name: runtime.flag(name, each.default, each.field) for name, each in options.items()}

    def shown() -> None:
        if out.value:
            runtime.writable(Path(out.value).parent)
            if Path(out.value).is_dir():
                raise ValueError(f"--out is {out.value!r}, a folder; give the name of a file, as table.md")
        given = {name: flag.value for name, flag in found.items() if flags.FLAGS[name].present}
        start = time.time()
        done = main(values(options, quick.value, **given))
        text = done.text + f"\n\n{time.time() - start:.0f} s on {runtime.cores()} cores"
        print(text)
        if out.value:
            page = sys.modules["__main__"]
            command = shlex.join(["python", "-m", page.__spec__.name, *_kept(sys.argv[1:])])
            whole = f"# {page.__doc__.splitlines()[0]}\n\n`{command}`\n\n```\n{text}\n```\n"
            ledger.put(Path(out.value), whole.encode("utf-8", "replace"))
        if done.whole and done.failed == done.whole:
            commandline.fail(f"all {done.whole} results failed; give other --methods, or other settings", 2)

    runtime.run(shown)


def _kept(arguments: list[str]) -> list[str]:
    return [each for each in arguments if not each.lstrip("-").startswith("out=")]

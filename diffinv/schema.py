"""What a field of a configuration or of a model card may hold.

A field is declared once: `number("step of the gradient", above=0)`. From the declaration come the refusal of a bad
value ("config.dps.zeta is nan; give a number above 0"), the lines of `--help` and the tables of the documentation. A
schema is a dict of names to fields, whose values may be schemas again.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Field:
    """One declaration.

    Attributes:
      accepts: whether a value is of the field's type and range.
      wanted: what to give, as the refusal and the help say it: "a number above 0".
      meaning: one line that says what the field does.
      unit: of the value, "" where it has none.
      known: the names among which it is a choice.
      kind: what a text of the command line is read as, see `parsed`; of a list, its members' kind.
      listed: whether it is a list.
    """

    accepts: Callable[[Any], bool]
    wanted: str
    meaning: str = ""
    unit: str = ""
    known: tuple[str, ...] = ()
    kind: type = str
    listed: bool = False


Schema = Mapping[str, "Field | Schema"]


def _range(low: float | None, high: float | None, above: float | None, below: float | None) -> tuple[Any, str]:
    """The predicate and the words of an interval, closed at `low` and `high`, open at `above` and `below`."""
    ends = [
        (low, "at least", lambda value, end: value >= end),
        (above, "above", lambda value, end: value > end),
        (high, "at most", lambda value, end: value <= end),
        (below, "below", lambda value, end: value < end),
    ]
    given = [(end, words, holds) for end, words, holds in ends if end is not None]
    words = " and ".join(f"{words} {end if isinstance(end, int) else f'{end:g}'}" for end, words, _ in given)
    return lambda value: all(holds(value, end) for end, _, holds in given), f" {words}" if words else ""


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def number(
    meaning: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    unit: str = "",
) -> Field:
    """A finite number in an interval, closed at `low` and `high`, open at `above` and `below`."""
    inside, words = _range(low, high, above, below)

    def accepts(value: Any) -> bool:
        return isinstance(value, Real) and not isinstance(value, bool) and _finite(value) and inside(value)

    return Field(accepts, f"a number{words}", meaning, unit, kind=float)


def whole(meaning: str = "", low: int | None = None, high: int | None = None, unit: str = "") -> Field:
    """A whole number from `low` to `high`."""
    inside, words = _range(low, high, None, None)

    def accepts(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and inside(value)

    return Field(accepts, f"a whole number{words}", meaning, unit, kind=int)


def switch(meaning: str = "") -> Field:
    """True or False."""
    return Field(lambda value: isinstance(value, bool), "True or False", meaning, kind=bool)


def text(meaning: str = "", most: int = 4096) -> Field:
    """A text of at most `most` characters, without control characters."""
    fits = lambda value: isinstance(value, str) and len(value) <= most and (value.isprintable() or not value)
    return Field(fits, f"a text in one line of at most {most} characters", meaning)


def _is_path(value: Any) -> bool:
    fits = isinstance(value, str) and len(value) <= 4096 and not any(map(_no_letter, value))
    return fits and not REMOTE.match(value)


REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}")
"""What begins an address: a bucket's would become a folder of the name `gs:`."""


def _no_letter(letter: str) -> bool:
    """A control character, or a surrogate that stands for no byte of a name."""
    kind = unicodedata.category(letter)
    return kind == "Cc" or kind == "Cs" and not "\udc80" <= letter <= "\udcff"


def path(meaning: str = "") -> Field:
    """A file, a folder or a pattern, with any letters that a name may have but control characters; no address."""
    wanted = "a path in one line of at most 4096 characters (of a bucket, the folder where it is mounted)"
    return Field(_is_path, wanted, meaning)


def _is_component(value: Any, most: int) -> bool:
    fits = isinstance(value, str) and len(value.encode("utf-8", "replace")) <= most and value.isprintable()
    return fits and value.strip() == value and not set(value) & set('/\\:*?"<>|') and value not in (".", "..")


def component(meaning: str = "", most: int = 120, empty: bool = False) -> Field:
    """The name of one file or folder: no separators, not `.` or `..`; `empty` allows ""."""
    fits = lambda value: _is_component(value, most) and (empty or value != "")
    return Field(fits, f"a name without a path, of at most {most} bytes", meaning)


def choice(known: Sequence[Any], meaning: str = "") -> Field:
    """One of the known values."""
    names = tuple(map(str, known))
    accepts = lambda value: any(type(value) is type(k) and value == k for k in known)
    wanted = f"one of {', '.join(name or repr(name) for name in names)}"
    return Field(accepts, wanted, meaning, known=names, kind=type(known[0]))


def choices(known: Sequence[str], meaning: str = "") -> Field:
    """One or several of the known names, with commas between them, none of them twice."""

    def accepts(value: Any) -> bool:
        found = [name.strip() for name in value.split(",")] if isinstance(value, str) else [""]
        return set(found) <= set(known) and len(set(found)) == len(found)

    return Field(accepts, f"one or several, with commas, of {', '.join(known)}", meaning, known=tuple(known))


def several(field: Field, least: int = 0, most: int | None = None) -> Field:
    """A list or tuple of such values, from `least` to `most` of them."""
    top = math.inf if most is None else most

    def accepts(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and least <= len(value) <= top and all(map(field.accepts, value))

    count = f"{least}" if least == most else f"{least} to {most}" if most is not None else f"{least} or more"
    return replace(field, accepts=accepts, wanted=f"a list of {count} values, each {field.wanted}", listed=True)


def either(*fields: Field, meaning: str = "") -> Field:
    """A value that one of the fields accepts."""
    wanted = ", or ".join(field.wanted for field in fields)
    unit = next((field.unit for field in fields if field.unit), "")
    accepts = lambda value: any(field.accepts(value) for field in fields)
    known = tuple(name for field in fields for name in field.known)
    meaning = meaning or next((field.meaning for field in fields if field.meaning), "")
    return Field(accepts, wanted, meaning, unit, known, fields[-1].kind, any(field.listed for field in fields))


def exactly(value: Any, words: str = "") -> Field:
    """This one value, as `either(exactly(0, "0 for the paper's"), ...)`."""
    same = lambda given: type(given) is type(value) and given == value
    return Field(same, words or f"{value!r}", kind=type(value))


def parsed(field: Field, written: str) -> Any:
    """A text of the command line as the field's kind; the text itself where it is none, for `refusal` to name.

    A list has commas between its members; "" is the empty list.
    """
    if field.listed:
        return [parsed(replace(field, listed=False), part.strip()) for part in written.split(",") if written.strip()]
    words = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    try:
        return words.get(written.lower(), written) if field.kind is bool else field.kind(written)
    except ValueError:
        return written


def refusal(field: Field, value: Any, name: str) -> str:
    """The line that refuses a value, "" for one that is accepted."""
    return "" if field.accepts(value) else f"{name} is {shown(value)}; {_hint(field, value)}give {field.wanted}"


def shown(value: Any, most: int = 60) -> str:
    """A value in a refusal: cut where it is long."""
    written = repr(value)
    return written if len(written) <= most else f"{written[:most]}..."


def nearest(name: Any, known: Sequence[str]) -> str:
    """'did you mean X? known are ...', for the end of a refusal."""
    near = get_close_matches(str(name), known, 1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known are {', '.join(known)}"


def _hint(field: Field, value: Any) -> str:
    """Where a known name was mistyped, its nearest."""
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    wrong = [name.strip() for name in given if isinstance(name, str)] if field.known else []
    near = [close for name in wrong if name not in field.known for close in get_close_matches(name, field.known, 1)]
    return f"did you mean {near[0]!r}? " if near else ""


def refusals(schema: Schema, values: Any, name: str, partial: bool = False) -> Iterator[str]:
    """One line for each value that its field does not accept, and for each unknown or (unless `partial`) missing one.

    Args: `values`: a mapping; `name`: what it is called, as "config".
    """
    if not isinstance(values, Mapping):
        yield f"{name} is {shown(values)}; give a section with {', '.join(schema)}"
        return
    for key in values:
        if key not in schema:
            yield f"{name} has no field {shown(key)}; {nearest(key, list(schema))}"
    for key, field in schema.items():
        if key not in values:
            if not partial:
                yield f"{name}.{key} is missing; give {field.wanted if isinstance(field, Field) else 'a section'}"
        elif not isinstance(field, Field):
            yield from refusals(field, values[key], f"{name}.{key}", partial)
        elif line := refusal(field, values[key], f"{name}.{key}"):
            yield line


def require(schema: Schema, values: Any, name: str = "config", partial: bool = False) -> None:
    """ValueError with the first refusal, where there is one; see `refusals`."""
    for line in refusals(schema, values, name, partial):
        raise ValueError(line)


def flat_fields(schema: Schema, name: str = "config") -> Iterator[tuple[str, Field]]:
    """Every field with its full name, in order, sections flattened."""
    for key, field in schema.items():
        if isinstance(field, Field):
            yield f"{name}.{key}", field
        else:
            yield from flat_fields(field, f"{name}.{key}")


def _at(values: Any, path: str) -> Any:
    for key in path.split(".")[1:]:
        values = values[key]
    return values


def explain(schema: Schema, values: Mapping[str, Any], name: str = "config") -> str:
    """The lines of `--help`: name and default, what may be given with its unit, what it means."""
    lines = []
    for path, field in flat_fields(schema, name):
        unit = f" ({field.unit})" if field.unit else ""
        lines += [f"--{path}={shown(_at(values, path))}", f"    {field.meaning}; {field.wanted}{unit}"]
    return "\n".join(lines)


def markdown(schema: Schema, values: Mapping[str, Any], name: str = "config") -> str:
    """The same as a table for the documentation."""
    lines = ["| field | default | give | meaning |", "|---|---|---|---|"]
    for path, field in flat_fields(schema, name):
        unit = f" ({field.unit})" if field.unit else ""
        lines.append(f"| `{path}` | `{shown(_at(values, path))}` | {field.wanted}{unit} | {field.meaning} |")
    return "\n".join(lines)

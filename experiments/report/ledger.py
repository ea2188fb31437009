"""`results.json` and the PNG files beside it: written whole or not at all, one picture at a time."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffinv.atomic import replacing
from diffinv.data.reader import pillow
from experiments.report.tables import Record, Row

PARTS = {"picture", "task", "measurement", "methods"}
GIVEN = ("truth", "measurement")  # columns before those of the methods; a truth need not be known


def put(path: Path, data: bytes | Iterable[bytes]) -> Path:
    """The file, whole or not at all, with the folders above it; `data` may come in parts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.writelines([data] if isinstance(data, bytes) else data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        line = f"no space left for {path}; the pictures finished before are kept, free some space and run again"
        raise OSError(error.errno, line) from None
    return path


def _picture(array: Any, name: str) -> Any:
    """A Pillow image; refuses anything but uint8."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,)):
        shape = f"{array.dtype} {array.shape}"
        raise ValueError(f"{name} is {shape}; give uint8, (H, W), (H, W, 1) or (H, W, 3), converted from its own range")
    return pillow().fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def png(image: Any) -> bytes:
    """A Pillow image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def images(record: Record) -> dict[str, Any]:
    """Column name to Pillow image: truth, measurement, then the methods."""
    missing = PARTS - set(record)
    if missing:
        raise ValueError(
            f"record {record.get('picture', '')!r} lacks {sorted(missing)}; see the head of experiments.report"
        )
    taken = set(GIVEN) & set(record["methods"])
    if taken:
        raise ValueError(
            f"methods of {record['picture']!r} has {sorted(taken)}, columns of their own; rename the method"
        )
    arrays = {name: record[name] for name in GIVEN if name in record}
    arrays |= {name: case["image"] for name, case in record["methods"].items()}
    return {name: _picture(array, f"{name} of {record['picture']!r}") for name, array in arrays.items()}


def size_of(pictures: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height) of a row of images: its truth's, or that of what was restored."""
    known = [image for name, image in pictures.items() if name != "measurement"]
    return (known or list(pictures.values()))[0].size


def slug(name: str) -> str:
    """The name as a file name; with a digest where they differ, so that two names stay two."""
    slug = re.sub(r"[^\w-]+", "-", name, flags=re.ASCII).strip("-")[:60]
    return (
        slug
        if slug and slug == name
        else f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    )


def readable(names: Iterable[str]) -> list[str]:
    """Names that can be printed, kept and told apart: what is no text becomes "?", and twins are numbered."""
    found: list[str] = []
    for name in names:
        text = "".join(c if c.isprintable() else "?" for c in name) or "?"
        twins = (f"{text}-{number}" for number in itertools.count(2))
        found.append(text if text not in found else next(twin for twin in twins if twin not in found))
    return found


def plain(value: Any) -> Any:
    """What strict JSON holds: arrays as numbers, numbers that are not finite as "nan", "inf", "-inf"."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        return {str(k): plain(v) for k, v in (value if isinstance(value, Mapping) else value.to_dict()).items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def versions() -> dict[str, str]:
    """Of Python and of the libraries that made the numbers, those installed."""
    installed = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "numpy", "diffinv"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _paths(record: Record) -> dict[str, str]:
    """Column name to the relative path of its PNG, numbered in the order of the columns."""
    place = f"pictures/{slug(record['task'])}/{slug(record['picture'])}"
    names = (*(name for name in GIVEN if name in record), *record["methods"])
    return {name: f"{place}/{index}-{slug(name)}.png" for index, name in enumerate(names)}


def entry(record: Record) -> Record:
    """A record as JSON holds it: its numbers, and relative paths for images."""
    paths = _paths(record)
    methods = {name: {**case, "image": paths[name]} for name, case in record["methods"].items()}
    given = {name: paths[name] for name in GIVEN if name in record}
    return plain({**record, **given, "methods": methods})


def _stored(folder: Path) -> dict[str, Any]:
    """What `results.json` holds, or an empty ledger."""
    path = folder / "results.json"
    try:
        found = json.loads(path.read_text("utf-8")) if path.exists() else {"records": []}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); move it away, or give another folder") from None
    if not isinstance(found, dict) or not isinstance(found.get("records"), list):
        raise ValueError(f"{path} is no ledger of records; move it away, or give another folder")
    return found


def rewrite(folder: Path, records: Iterable[Row], **head: Any) -> Path:
    """Rewrites `results.json`, atomically."""
    content = {**plain({**head, "versions": versions()}), "records": list(records)}
    return put(folder / "results.json", (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def keep(folder: Path, records: Iterable[Record], **head: Any) -> None:
    """Each record's PNG files, then at once its entry in `results.json`; replaces one of its name."""
    known = [r for r in _stored(folder)["records"] if isinstance(r, dict) and set(r) >= PARTS]
    stored = {(r["task"], r["picture"]): r for r in known}
    for record in records:
        paths = _paths(record)
        for name, image in images(record).items():
            put(folder / paths[name], png(image))
        new, name = entry(record), (record["task"], record["picture"])
        changed, stored[name] = stored.get(name) != new, new
        if changed:
            rewrite(folder, stored.values(), **head)


def append(folder: str | Path, record: Record, title: str = "", command: str = "", config: Any = None) -> None:
    """Keeps one finished picture: its PNG files, and its numbers in `results.json`; replaces one of its name and task.

    A run that is killed or finds the disk full loses none of those before.
    """
    keep(Path(folder), [record], title=title, command=command, config=config)


def _image(path: Path) -> np.ndarray:
    """A PNG of ours as (H, W, C). Raises ValueError where it is missing or damaged."""
    try:
        array = np.asarray(pillow().open(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is damaged or missing ({error})") from None
    return array if array.ndim == 3 else array[..., None]


def _whole(folder: Path, record: Any) -> Record:
    """A stored record with its images. Raises ValueError where it is none, or lacks one."""
    number = lambda v: float(v) if v in ("nan", "inf", "-inf") else v
    case = lambda c: {k: _image(folder / v) if k == "image" else number(v) for k, v in c.items()}
    try:
        pictures = {name: _image(folder / record[name]) for name in GIVEN if name == "measurement" or name in record}
        methods = {name: case(c) for name, c in record["methods"].items()}
        return {"picture": record["picture"], "task": record["task"], **record, **pictures, "methods": methods}
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / 'results.json'} holds a record that is none ({str(record)[:60]})") from None


def load(folder: str | Path) -> list[Record]:
    """The records kept in a folder, images (H, W, C) and all: what is finished need not be done again.

    Raises ValueError, which names the file, where one is damaged; see `sound`.
    """
    return [_whole(Path(folder), record) for record in _stored(Path(folder))["records"]]


def sound(folder: str | Path) -> tuple[dict[str, Any], list[Record], list[str]]:
    """What of a folder can still be read: the head of `results.json`, whole records, and a line about each damage.

    A damaged `results.json` is moved aside, to `results.json.damaged`.
    """
    folder, lines, records = Path(folder), [], []
    try:
        stored = _stored(folder)
    except ValueError as error:
        os.replace(folder / "results.json", folder / "results.json.damaged")
        return {}, [], [f"{error}; it is moved to results.json.damaged"]
    for record in stored["records"]:
        try:
            records.append(_whole(folder, record))
        except ValueError as error:
            lines.append(f"{error}; this picture is made again")
    return {name: value for name, value in stored.items() if name != "records"}, records, lines

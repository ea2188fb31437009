"""What travels to a machine that has no network: pictures, and the packages that it lacks, within a limit."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffinv import data
from diffinv.data import files
from diffinv.data.files import Record
from experiments.common import provenance

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
NEEDED = "jax flax optax orbax-checkpoint numpy ml-collections absl-py safetensors pillow tqdm scipy pytest".split()
"""Packages that `benchmarks.accelerator` imports, without those that they need."""


def spread(records: Iterable[Record], count: int) -> list[Record]:
    """`count` of the records (0 for all), evenly from every class and, within one, evenly from its list."""
    classes: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        classes[record.label].append(record)
    share = -(-count // len(classes)) if classes else 0
    chosen = []
    for kept in classes.values():
        rows = np.unique(np.linspace(0, len(kept) - 1, min(share or len(kept), len(kept))).astype(int))
        chosen += [kept[row] for row in rows]
    return chosen


def encoded(record: Record) -> bytes:
    """The record's file as it is; of arrays a PNG in colour."""
    if isinstance(record.source, bytes):
        return record.source
    if isinstance(record.source, str):
        return Path(record.source).read_bytes()
    from PIL import Image

    kept = io.BytesIO()
    Image.fromarray(files.decode(record.source, None, 3)).save(kept, "PNG")
    return kept.getvalue()


def pack(path: str, target: Path, count: int, held_out: int, said: dict[str, str] | None = None) -> dict[str, int]:
    """Some pictures of a path as a pack, `target`, file by file as they are; `said`: `name` and `licence` of its meta.

    Returns how many are for training and for validation; 0 asks for all.
    """
    listing = data.catalogue(path)
    parts: tuple[list[Record], list[Record]] = ([], [])
    for number, record in enumerate(listing.records()):
        parts[files.held_out(record, number)].append(record)
    chosen = [spread(parts[0], count), spread(parts[1], held_out)]
    contents = [encoded(record) for part in chosen for record in part]
    known = provenance.packed(path)
    meta = {"classes": list(listing.classes)} | (dict(zip(("name", "licence"), known)) if known else {}) | (said or {})
    arrays = {
        "header": np.zeros(0, np.uint8),
        "header_offset": np.zeros(2, np.int64),
        "header_id": np.zeros(len(contents), np.uint8),
        "payload": np.frombuffer(b"".join(contents), np.uint8),
        "offset": np.cumsum([0, *map(len, contents)]),
        "label": np.asarray([record.label for part in chosen for record in part], np.int16),
        "split": np.repeat(np.arange(2, dtype=np.uint8), list(map(len, chosen))),
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
    }
    np.savez(target, **arrays)
    return {"training": len(chosen[0]), "held_out": len(chosen[1])}


def of_repository(aside: Path) -> int:
    """Bytes of the files that git knows or would not ignore, but for those below `aside`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    paths = {ROOT / name for name in names if name}
    return sum(path.stat().st_size for path in paths if path.is_file() and aside.resolve() not in path.parents)


class Package(NamedTuple):
    """A package that travels; `version` is the one installed here."""

    name: str
    version: str


def packages(there: Iterable[str], needed: Iterable[str] = NEEDED) -> list[Package]:
    """`needed` and what these need in turn, but for what is `there`, by name; as the packages installed here say."""
    plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
    seen, waiting, found = {plain(name) for name in there}, list(needed), []
    while waiting:
        name = plain(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            about = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # asked for by another system or Python
        found.append(Package(name, about.version))
        asked = [line for line in about.requires or () if "extra ==" not in line]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in asked]
    return sorted(found)


def fetching(lacking: list[Package], folder: Path, python: str) -> str:
    """The command that fetches the wheels of another machine's Python."""
    platforms = " ".join(f"--platform manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014"))
    wanted = " ".join(f"{name}=={version}" for name, version in lacking)
    options = f"--no-deps --only-binary=:all: --python-version {python} --implementation cp {platforms}"
    return f"python -m pip download {options} -d {folder} {wanted}"

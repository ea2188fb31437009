"""Finished pictures of an earlier start, and whether they are still what the same command would make.

A record in results.json carries a stamp of all that it was made of: settings, weights, code, its pixels and its place
among the pictures, which draws its noise. Where settings, weights or code have changed, the folder is refused with what
changed; a picture that was replaced, or whose files are damaged, is restored again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import report
from experiments.common import runtime

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

REMEDY = "give another --config.name, or --fresh to restore everything again"


def digest(*parts: Any) -> str:
    """Of arrays with type and shape, bytes, and whatever JSON holds; 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content = f"{part.dtype}{part.shape}".encode() + part.tobytes()
        else:
            content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        whole.update(f"{len(content)} ".encode() + content)
    return whole.hexdigest()[:16]


def code(*files: str) -> dict[str, str]:
    """Digests of what computes: the library, the given files of experiments/, and JAX's version."""
    library = sorted((runtime.ROOT / "diffinv").rglob("*.py"))
    names = [path.relative_to(runtime.ROOT).as_posix() for path in library]
    found = {"diffinv": digest(names, *(path.read_bytes() for path in library))}
    found |= {f"experiments/{name}": digest((runtime.ROOT / "experiments" / name).read_bytes()) for name in files}
    return {**found, "jax": jax.__version__}


MADE_BY = ("sha256", "architecture", "parametrisation", "process", "shape", "given", "consistency")


def weights(card: Mapping[str, Any]) -> str:
    """Of a checkpoint that was loaded, and so verified: its weights, and what the card says of the network."""
    told = {"onnx": card["onnx"]} if "onnx" in card else {}
    return digest({field: card.get(field) for field in MADE_BY} | told)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names."""
    rows: dict[str, Any] = {}
    for name, value in settings.items():
        rows |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return rows


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting, or part of the code, that is not what it was."""
    was, now = flat(was), flat(now)
    words = []
    for name in dict.fromkeys([*now, *was]):
        before, after = was.get(name), now.get(name)
        if before != after and name.startswith("made_by."):
            words.append(f"another {name.removeprefix('made_by.')} (then {before or 'not told'}, now {after})")
        elif before != after:
            words.append(f"{name} = {json.dumps(before)}, not {json.dumps(after)}")
    return words


def stamps(settings: Mapping[str, Any], pixels: np.ndarray) -> list[str]:
    """What each picture's record is made of, by its place."""
    return [digest(settings, place, picture) for place, picture in enumerate(pixels)]


def kept(
    folder: Path, settings: Mapping[str, Any], wanted: Mapping[tuple[str, str], str]
) -> tuple[dict[tuple[str, str], dict], list[str]]:
    """Finished records by (task, picture) whose stamp is the wanted one, and lines about those left out.

    Raises ValueError, which names what changed, where the folder holds a run with other settings, weights or code.
    """
    head, records, notes = report.sound(folder)
    if head and (words := changed(head.get("config") or {}, settings)):
        more = f" and {len(words) - 3} more" if len(words) > 3 else ""
        raise ValueError(f"{folder} holds a run with {'; '.join(words[:3])}{more}; {REMEDY}")
    known = {(record["task"], record["picture"]): record for record in records}
    done = {key: record for key, record in known.items() if wanted.get(key) == record.get("stamp")}
    replaced = sorted({picture for task, picture in set(known) - set(done) if (task, picture) in wanted})
    if replaced:
        notes.append(f"{named(replaced)}: not the picture that it was; restored again")
    return done, notes


def named(names: Iterable[str], most: int = 5) -> str:
    """A few names, and how many more."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder, until the end or a kill. Raises OSError where another process holds it."""
    with open(folder / ".lock", "w") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(f"another run is writing to {folder}; wait for it, or give another name") from None
        yield

"""Which files a path names: literal before glob, every real file once, names that can be printed."""

from __future__ import annotations

import glob
import os
from functools import cache

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".npy")


def matches(pattern: str) -> list[str]:
    """The path itself where it exists, brackets and all; else what it matches as a glob (`**` too), sorted."""
    return [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))


def pictures(path: str, nested: bool = True) -> list[str]:
    """The picture files of a folder (and of those below it, where `nested`), of a glob, or the one file, sorted.

    A file that links reach by several ways is listed once, by its own path where that is among them. A glob
    gives files with the endings `SUFFIXES`, or with its own; a file that is named itself is taken whatever its ending.
    """
    if os.path.isdir(path):
        return _once([file for file in (_walked(path) if nested else _inside(path)) if _named(file)])
    found, ending = matches(path), os.path.splitext(path)[1]
    wanted = lambda file: _named(file) or bool(ending and file.endswith(ending))
    return found if found == [path] else _once([file for file in found if wanted(file) and not os.path.isdir(file)])


def _named(file: str) -> bool:
    return file.lower().endswith(SUFFIXES)


def _inside(folder: str) -> list[str]:
    return [entry.path for entry in os.scandir(folder) if not entry.is_dir()]


def _walked(folder: str) -> list[str]:
    """All files below, those behind links last; each folder is entered once."""
    found: list[str] = []
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        for path, folders, files in os.walk(waiting.pop(0)):
            if (real := os.path.realpath(path)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            found += [os.path.join(path, name) for name in sorted(files)]
            waiting += [inner for name in folders if os.path.islink(inner := os.path.join(path, name))]
    return found


def _once(files: list[str]) -> list[str]:
    """Sorted, each real file once: by a path that is no link, where there is one."""
    real = cache(os.path.realpath)
    first: dict[str, str] = {}
    for file in sorted(files, key=os.path.islink):
        folder, name = os.path.split(file)
        first.setdefault(real(file) if os.path.islink(file) else os.path.join(real(folder), name), file)
    return sorted(first.values())


def printable_name(path: str) -> str:
    r"""A name that can be printed and stored as UTF-8; bytes that are neither are written as `\xNN`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def stems(paths: list[str], most: int = 120) -> list[str]:
    """File names without extension, fit for new files: of at most `most` bytes, numbered where two are equal.

    What cannot be printed becomes "_"; a stem that is cut keeps its first and its last letters.
    """
    found: dict[str, None] = {}
    for path in paths:
        stem = name = _cut(_printable(os.path.splitext(os.path.basename(path))[0]), most)
        number = 2
        while name in found:
            name, number = f"{stem}-{number}", number + 1
        found[name] = None
    return list(found)


def _printable(name: str) -> str:
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() and letter != "\ufffd" else "_" for letter in text)


def _cut(stem: str, most: int) -> str:
    raw = stem.encode()
    if len(raw) <= most:
        return stem
    return raw[: most // 2].decode("utf-8", "ignore") + ".." + raw[-(most // 2 - 2) :].decode("utf-8", "ignore")

"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there, and nothing tidied up
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which takes the place of `path` where the block ends without an error.

    Until then it lies beside it under another name: a reader, and a kill at any moment, find the old content or the
    new one. Nothing is left of a block that fails; what a kill leaves, `tidy` removes.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with _locked(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _locked(path: Path) -> IO[bytes]:
    """A new file to write, which is locked while its writer lives, where the file system has locks."""
    while True:
        file = open(path, "wb")
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file
        file.close()  # tidied away before it was locked


def tidy(folder: str | os.PathLike[str]) -> None:
    """Removes what killed writers left below a folder; what a living one writes stays."""
    for path in Path(folder).rglob(".*.tmp") if fcntl is not None else ():
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()

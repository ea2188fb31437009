"""The finished rows of the exact lab: one file each, named by what it was made of.

Runs with other settings, other methods or at the same time share a folder: none of them touches another one's rows.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from experiments.report import ledger


def digest(*parts: Any) -> str:
    """One digest of texts, numbers, modules (their source), and of pytrees of arrays with their types and shapes."""
    whole = hashlib.sha256()
    for leaf in jax.tree.leaves(parts):
        if isinstance(leaf, ModuleType):
            leaf = inspect.getsource(leaf)
        array = np.asarray(leaf) if hasattr(leaf, "dtype") else None
        content = repr(leaf).encode() if array is None else f"{array.dtype}{array.shape}".encode() + array.tobytes()
        whole.update(f"{len(content)} ".encode() + content)
    return whole.hexdigest()[:24]


class Rows:
    """The rows in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, problem: str, method: str, made_of: str) -> Path:
        return self.folder / ledger.slug(problem) / ledger.slug(method) / f"{made_of}.json"

    def load(self, problem: str, method: str, made_of: str) -> dict | None:
        """The row that was made of this, or None; a damaged file counts for none."""
        try:
            found = json.loads(self._path(problem, method, made_of).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def save(self, problem: str, method: str, made_of: str, row: Mapping[str, Any]) -> None:
        """Keeps a row: whole or not at all."""
        ledger.put(self._path(problem, method, made_of), (json.dumps(row, indent=1) + "\n").encode())

    def known(self, problem: str, method: str) -> bool:
        """Whether there is a row of this method, whatever it was made of."""
        return any(self._path(problem, method, "").parent.glob("*.json"))

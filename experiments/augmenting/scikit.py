"""scikit-learn's modules, or one line that says how to have them."""

from __future__ import annotations

import importlib
from typing import Any


def scikit(module: str) -> Any:
    """`sklearn.module`. Raises ImportError where scikit-learn is not installed."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError("the judges of augmentation need scikit-learn; pip install scikit-learn") from error

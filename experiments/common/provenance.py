"""What a model card says of the pictures that a network was trained on: from the data, or as the user says it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from diffinv import data
from diffinv.data import arrays, files, listing

UNKNOWN = "unknown: ask whoever gave you the pictures"
EUROSAT = "MIT, Copyright (c) 2023 Patrick Helber; contains modified Copernicus Sentinel data"
BUNDLED = {
    "gradients": ("generated gradients", "none needed"),
    "digits": ("scikit-learn's handwritten digits (UCI, Alpaydin and Kaynak 1998)", "CC BY 4.0"),
    "photographs": ("photographs that install with scikit-image", "those of scikit-image's data"),
    "satellite": ("20 held-out pictures of EuroSAT", EUROSAT),
}
LICENCES = {"Tiny ImageNet": "non-commercial research, as ImageNet's terms", "EuroSAT": EUROSAT}


def packed(path: str) -> tuple[str, str] | None:
    """(name, licence) that a pack says of itself in its `meta`; "" for what it does not say."""
    found = listing.matches(path)
    if len(found) != 1 or not found[0].endswith(".npz"):
        return None
    try:
        stored = arrays.npz(found[0], ["meta"], 2**24)
        meta = json.loads(stored["meta"].tobytes()) if "meta" in stored else {}
    except (ValueError, OSError, RecursionError):
        return None
    said = lambda field: meta.get(field) if isinstance(meta, dict) and isinstance(meta.get(field), str) else ""
    return (said("name"), said("licence") or said("license")) if said("name") else None


def plain(text: str, most: int = 400) -> str:
    """One line of printable letters, as a card's field may hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:most]


def described(path: str, source: data.Source) -> str:
    """Pictures of the user's own: how many, where from without the path, and how many classes."""
    kinds = f" in {len(source.classes)} classes" if len(source.classes) > 1 else ""
    return f"{len(source)} pictures of {plain(Path(path).name or 'a folder', 80)!r}{kinds}"


def about(config, source: data.Source) -> dict[str, str]:
    """The card's `data`, `data_licence` and `data_digest`.

    What the configuration says stands; else what the data say of themselves: the sets that packages carry, public
    TFDS names and packs with a `meta`. For other pictures the licence is unknown until the user gives it.
    """
    name, licence = _said(config, source)
    return {
        "data": config.data_name or name,
        "data_licence": config.data_licence or licence or UNKNOWN,
        "data_digest": digest(source),
    }


def _said(config, source: data.Source) -> tuple[str, str]:
    if files.is_bundled(config.data):
        return BUNDLED[config.data]
    pack = packed(config.data)
    name = pack[0] if pack else "" if listing.matches(config.data) else f"TFDS {config.data}"
    known = next((licence for start, licence in LICENCES.items() if pack and name.startswith(start)), "")
    shown = f"{plain(name)}; " if name else ""
    whole = f"{shown}{described(config.data, source)}, brought to {config.size} pixels"
    return whole, plain(pack[1]) if pack and pack[1] else known


def digest(source: data.Source, most: int = 1024) -> str:
    """Of the number of pictures and of up to `most` of them, evenly spread, with their labels; 16 hexadecimal digits.

    Another data set, size or split has another; the path of the pictures has no part in it.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int))
    whole = hashlib.sha256(f"{len(source)} {source.classes} {source.digest}".encode())
    for start in range(0, len(rows), 64):
        batch = source.take(rows[start : start + 64].tolist())
        whole.update(np.ascontiguousarray(batch["image"]).tobytes() + batch["label"].tobytes())
    return whole.hexdigest()[:16]

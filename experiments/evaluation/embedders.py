"""Distances that papers print, FID, KID, CMMD and FD-DINOv2, of their networks, whose ONNX files one gives.

Pictures are rounded to 8 bits, as papers keep theirs, and made what the network's authors make of them. Features are
kept in single precision by the digest of network, preparation and pictures, and no cell depends on them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from diffinv import schema
from diffinv.metrics import distribution, embeddings
from experiments.common import keeping
from experiments.evaluation import realism
from experiments.report import ledger, tables

GROUPS = 10
"""Of the estimate without a bias in 1/n, which takes twice as many pictures of either set at least."""
Distance = Callable[[np.ndarray, np.ndarray], Any]


class Network(NamedTuple):
    """What a field's file is: the network's name among `embeddings.PUBLISHED`, and the columns that are of it."""

    published: str
    columns: Mapping[str, Distance]


def _pair(estimate: Distance) -> Distance:
    return lambda rows, reference: tuple(estimate(rows, reference))


def _without_bias(rows: np.ndarray, reference: np.ndarray) -> tuple[float, float] | None:
    many = min(len(rows), len(reference)) >= 2 * GROUPS
    return tuple(distribution.feature_fid_estimate(rows, reference, GROUPS)) if many else None


NETWORKS = {
    "inception": Network(
        "inception_v3",
        {
            "inception_fid": distribution.feature_fid,
            "inception_fid_limit": _without_bias,
            "inception_kid": _pair(distribution.feature_kid),
        },
    ),
    "clip": Network("clip_vit_l14_336", {"clip_cmmd": distribution.feature_cmmd}),
    "dino": Network("dinov2_vit_l14", {"dino_fd": distribution.feature_fid}),
}
TAKES: schema.Schema = {
    "size": schema.whole("of a side, where the file takes any", 8, 8192, "pixels"),
    "mean": schema.several(schema.number("of each channel, of values in [0, 1]"), 1, 3),
    "deviation": schema.several(schema.number("of each channel", above=0), 1, 3),
    "method": schema.choice(("bilinear", "bicubic"), "of resizing"),
    "antialias": schema.switch("whether a picture is smoothed as it is shrunk"),
    "channels": schema.choice(("first", "last"), "where the file does not say"),
    "output": schema.text("name of the output that is the row of features"),
}
"""What may be said of a file whose pictures are not as its authors' code makes them."""
TOLD = "what the file wants otherwise than its authors' code, as size=96 mean=0.5,0.4,0.4 output=NAME"
FIELDS: schema.Schema = {
    "inception": schema.path("ONNX of pytorch-fid's Inception-v3: Inception-FID, -KID; '' for no such columns"),
    "clip": schema.path("ONNX of CLIP ViT-L/14-336's image tower: CLIP-CMMD; '' for no such column"),
    "dino": schema.path("ONNX of DINOv2 ViT-L/14: FD-DINOv2; '' for no such column"),
    **{f"{name}_takes": schema.text(f"of config.{name}, {TOLD}") for name in NETWORKS},
}


def taken(written: str, where: str) -> dict[str, Any]:
    """What a text changes of a preparation. Raises ValueError, which names the field, for one that says nothing."""
    found: dict[str, Any] = {}
    for each in written.split():
        name, _, value = each.partition("=")
        if name not in TAKES or not value:
            raise ValueError(f"{where} has {each!r}; give FIELD=VALUE, {schema.nearest(name, list(TAKES))}")
        field = TAKES[name]
        assert isinstance(field, schema.Field)  # no sections
        found[name] = schema.parsed(field, value)
        if line := schema.refusal(field, found[name], f"{where}: {name}"):
            raise ValueError(line)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def check(config: ConfigDict) -> None:
    """Raises ValueError for a network without pictures to compare with, and for what no network takes."""
    for name in NETWORKS:
        changes = taken(config[f"{name}_takes"], f"config.{name}_takes")
        if changes and not config[name]:
            raise ValueError(f"config.{name}_takes is of a file, and config.{name} is ''; give the file, too")
        if config[name] and "reference" in config and not config.reference:
            told = f"config.{name} compares sets of pictures, and config.reference is 0"
            raise ValueError(f"{told}; say how many other held-out pictures there are to be, as config.reference=500")


def rounded(pixels: np.ndarray) -> np.ndarray:
    """Pictures in [-1, 1] as those of 8 bits that are nearest, still in [-1, 1]."""
    levels = np.clip(np.round((np.asarray(pixels, np.float64) + 1) * 127.5), 0, 255)
    return (levels / 127.5 - 1).astype(np.float32)


class Embedder:
    """One given network: its features of pictures, kept in `folder`, and the columns that it gives."""

    def __init__(self, name: str, config: ConfigDict) -> None:
        self.name, self.network, self.path = name, NETWORKS[name], Path(config[name])
        changes = taken(config[f"{name}_takes"], f"config.{name}_takes")
        try:
            self.embedding = embeddings.known_network(self.network.published, self.path, **changes)
        except (OSError, ValueError) as error:
            raise type(error)(f"config.{name}: {error}") from None

    def account(self) -> dict[str, Any]:
        """What the ledger has of it."""
        how = self.embedding.preparation._asdict()
        told = {"file": self.path.name, "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}
        return {**told, "network": self.network.published, **how, "size": list(self.embedding.sides)}

    def rows(self, pixels: np.ndarray, folder: Path) -> np.ndarray:
        """Features of pictures in [-1, 1], (n, width), as they were kept, or are from now on."""
        shown, how = rounded(pixels), self.embedding
        settings = [self.embedding.apply.digest, how.preparation, how.sides, how.last, how.place]
        path = folder / f"{self.name}-{keeping.digest(shown, settings)}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            file = io.BytesIO()
            np.save(file, realism.Eye(how, lambda network, x: network(x))(shown).astype("<f4"))
            ledger.put(path, file.getvalue())
            return np.load(path, allow_pickle=False)

    def columns(self, rows: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
        """Distances of a set's features from the reference's; of two pictures at most none."""
        if min(len(rows), len(reference)) < 3:
            return {}
        found = {name: distance(rows, reference) for name, distance in self.network.columns.items()}
        return {name: value for name, value in found.items() if value is not None}


def headings(name: str) -> list[str]:
    """Of a network's columns, without their arrows."""
    return [tables.column(column).heading.rstrip(" ↓") for column in NETWORKS[name].columns]


def embedders(config: ConfigDict) -> list[Embedder]:
    """Those whose files are given. Raises OSError or ValueError, which name the field, for one of another network."""
    return [Embedder(name, config) for name in NETWORKS if config[name]]


def accounts(given: Sequence[Embedder]) -> dict[str, Any]:
    """Of each network, by its field, file, digest and how it was given its pictures."""
    return {each.name: each.account() for each in given}


def notes(networks: Mapping[str, Mapping[str, Any]], reference: int | str) -> list[str]:
    """What stands under a table whose columns these are, by the number of pictures that are compared with."""
    lines = []
    for name, told in networks.items():
        heads = ", ".join(headings(name))
        how = "{} x {}, {}".format(*told["size"], told["method"])
        lines.append(f"{heads}: of {told['file']} (sha256 {told['sha256'][:16]}), {how}, 8 bits, against {reference}.")
    if {"inception", "dino"} & set(networks):
        lines.append("FID and FD fall with the number of pictures: only equal numbers of both sets compare.")
    return lines

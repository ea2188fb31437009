"""The augmented set on disk: a folder of one folder a class, as `tfds.folder_dataset.ImageFolder` reads it too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diffinv.data import to_pixels
from experiments.augmenting.labelled import Labelled
from experiments.augmenting.making import Made
from experiments.augmenting.splits import FewShot
from experiments.report import ledger

PROVENANCE = "provenance.jsonl"


def folder_names(classes: Sequence[str]) -> list[str]:
    """Names of classes as folders; numbers before those that no folder may have, or that would be one."""
    plain = ["".join(letter if letter.isalnum() or letter in " -_." else "_" for letter in name) for name in classes]
    plain = [name.strip(" .") or "class" for name in plain]
    return [name if plain.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(plain)]


def write(folder: Path, split: FewShot, made: Made, mask: np.ndarray, classes: Sequence[str], told: dict) -> Path:
    """`train/CLASS/real-ID.png` and `made-N.png`, `validation/` and `test/` as they were split, and the provenance.

    A line of provenance.jsonl is one picture: its file, class, whether it was made, and of a made one the ids of what
    it started from, the recipe, the classifier's confidence and the distance to the nearest training picture. The
    folder is written beside the old one, which it then replaces.
    """
    new, names = folder.with_name(folder.name + ".new"), folder_names(classes)
    shutil.rmtree(new, ignore_errors=True)
    lines = []
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for part, data in parts.items():
        lines += [_real(new, part, names, data, i) for i in range(len(data.labels))]
    for number in np.flatnonzero(mask):
        file = _put(new, "train", names[made.labels[number]], f"made-{number}", made.images[number])
        source = {
            "from": [int(each) for each in made.sources[number] if each >= 0],
            "recipe": int(made.recipes[number]),
        }
        scores = {"confidence": float(made.confidence[number]), "distance": float(made.distance[number])}
        scores["recipe"] = int(made.recipes[number])
        lines.append({"file": file, "class": classes[made.labels[number]], "made": True, **source, **scores, **told})
    ledger.put(new / PROVENANCE, "".join(json.dumps(line) + "\n" for line in lines).encode())
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return folder


def _real(folder: Path, part: str, names: Sequence[str], data: Labelled, i: int) -> dict:
    label, number = int(data.labels[i]), int(data.ids[i])
    file = _put(folder, part, names[label], f"real-{number}", data.images[i])
    return {"file": file, "class": names[label], "made": False, "id": number}


def _put(folder: Path, part: str, name: str, stem: str, image: np.ndarray) -> str:
    pixels = to_pixels(image)
    path = folder / part / name / f"{stem}.png"
    ledger.put(path, ledger.png(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)))
    return path.relative_to(folder).as_posix()

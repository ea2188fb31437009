"""The augmented set on disk: a folder of one folder a class, as `tfds.folder_dataset.ImageFolder` reads it too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diffinv.data import to_pixels
from experiments.augmenting.making import Made
from experiments.augmenting.splits import FewShot
from experiments.report import ledger

PROVENANCE = "provenance.jsonl"


def folder_names(classes: Sequence[str]) -> list[str]:
    """Names of classes as folders; numbers before those that no folder may have, or that would be one."""
    plain = ["".join(letter if letter.isalnum() or letter in " -_." else "_" for letter in name) for name in classes]
    plain = [name.strip(" .") or "class" for name in plain]
    return [name if plain.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(plain)]


def write(
    folder: Path,
    split: FewShot,
    made: Made,
    mask: np.ndarray,
    classes: Sequence[str],
    name: Callable[[int], str],
    told: dict,
) -> Path:
    """`train/CLASS/real-ID.png` and `made-N.png`, `validation/` and `test/` as they were split, and the provenance.

    A line of provenance.jsonl is one picture: its file, class, whether it was made; of a real one its id and what it is
    called in the user's data, `name(id)`; of a made one those of what it started from, the recipe, the classifier's
    confidence and the distance to the nearest training picture, and what is `told` of all of them. The
    folder is written beside the old one, which it then replaces.
    """
    new, names = folder.with_name(folder.name + ".new"), folder_names(classes)
    shutil.rmtree(new, ignore_errors=True)
    lines = []
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for part, data in parts.items():
        for i, (label, number) in enumerate(zip(data.labels.tolist(), data.ids.tolist())):
            file = _put(new, part, names[label], f"real-{number}", data.images[i])
            lines.append({"file": file, "class": classes[label], "made": False, "id": number, "name": name(number)})
    for number in np.flatnonzero(mask):
        file = _put(new, "train", names[made.labels[number]], f"made-{number}", made.images[number])
        source = [int(each) for each in made.sources[number] if each >= 0]
        about = {"from": source, "from_names": list(map(name, source)), "recipe": int(made.recipes[number])}
        about |= {"confidence": float(made.confidence[number]), "distance": float(made.distance[number])}
        lines.append({"file": file, "class": classes[made.labels[number]], "made": True, **about, **told})
    ledger.put(new / PROVENANCE, "".join(json.dumps(line) + "\n" for line in lines).encode())
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return folder


def _put(folder: Path, part: str, name: str, stem: str, image: np.ndarray) -> str:
    pixels = to_pixels(image)
    path = folder / part / name / f"{stem}.png"
    ledger.put(path, ledger.png(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)))
    return path.relative_to(folder).as_posix()

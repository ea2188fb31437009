"""What is told of samples as a set: distances of features, memorisation, and the classes that they are taken for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from diffinv.metrics import distribution, memorisation, probe

SHRUNK = 16


class Seen(NamedTuple):
    """What pictures are compared by, a row each: features (N, 1280), and values of the shrunk picture (N, d)."""

    features: np.ndarray
    pixels: np.ndarray


def quality(fake: np.ndarray, real: np.ndarray, steps: int, what: str) -> dict[str, Any]:
    """The card's note of the features of samples and of held-out pictures."""
    halves = [real[::2], real[1::2]]
    many = f"{steps} {what} step{'s' * (steps > 1)}"
    kid, floor = distribution.feature_kid(fake, real), distribution.feature_kid(*halves)
    return {
        "name": f"{distribution.NAME}, {len(fake)} samples of {many} against {len(real)} held out, drawn",
        "value": round(distribution.feature_fid(fake, real), 3),
        "half": round(distribution.feature_fid(fake[::2], halves[0]), 3),
        "floor": round(distribution.feature_fid(*halves), 3),
        distribution.KID_NAME: [round(each, 6) for each in kid],
        f"{distribution.KID_NAME} floor": [round(each, 6) for each in floor],
    }


class Memory(NamedTuple):
    """The training pictures, uint8, what they are compared by, and how far the held-out ones lie from them."""

    pixels: np.ndarray
    seen: Seen
    held_out: list[np.ndarray]


def remembered(trained: np.ndarray, looks: Seen, real: Seen) -> Memory:
    """The memory of training pictures; distances of the held-out ones by features, then by pixels."""
    return Memory(trained, looks, [memorisation.nearest_rows(*pair).distance for pair in zip(real, looks)])


def repeated(memory: Memory, fake: Seen) -> tuple[dict[str, Any], memorisation.Nearest]:
    """The card's note of how many samples lie nearer to training than held-out pictures, and the nearest features."""
    found = [memorisation.nearest_rows(*pair) for pair in zip(fake, memory.seen)]
    shares = [memorisation.near_share(near.distance, held) for near, held in zip(found, memory.held_out)]
    told = {"floor": memorisation.LEVEL, "training_pictures": len(memory.pixels)}
    names = ("near_by_features", f"near_by_{SHRUNK}x{SHRUNK}_pixels")
    return {**{name: round(share, 4) for name, share in zip(names, shares)}, **told}, found[0]


class Classes(NamedTuple):
    """A classifier that was fitted to training pictures, and its accuracy on held-out ones."""

    classifier: probe.LinearProbe
    held_out: float


def taught(trained: Seen, labels: np.ndarray, test: Seen, known: np.ndarray) -> Classes:
    """The classifier of training pictures, tried on held-out ones."""
    classifier = probe.linear_probe(trained.features, labels)
    return Classes(classifier, float(np.mean(classifier.predict(test.features) == known)))


def told(note: dict[str, Any]) -> str:
    """The lines of a note."""
    lines = ["{name}: {value}; of halves {half}; floor, two halves of the held-out {floor}".format(**note)]
    kid, floor = (
        f"{note[name][0]} ± {note[name][1]}" for name in (distribution.KID_NAME, f"{distribution.KID_NAME} floor")
    )
    lines.append(f"{distribution.KID_NAME}: {kid}; floor, two halves of the held-out {floor}")
    if memory := note.get("memorisation"):
        by_features, by_pixels, floor, count = memory.values()
        lines.append(
            f"memorisation, {count} training pictures: {by_features} of the samples are as near as the nearest 5 % of "
            f"the held-out by features, {by_pixels} by {SHRUNK} x {SHRUNK} pixels; floor {floor}"
        )
    if classes := note.get("classes"):
        guidance = f", guidance {classes['guidance']:g}" if "guidance" in classes else ""
        shares = ", ".join(f"{name} {share}" for name, share in classes["by_label"].items())
        lines.append(
            f"classes{guidance}: {classes['agreement']} of the samples are taken for their "
            f"label (of held-out pictures {classes['held_out_accuracy']}): {shares}"
        )
    return "\n".join(lines)

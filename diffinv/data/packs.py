"""Pictures that lie in one file or in four: packs of JPEG or PNG files, arrays in a `.npz`, IDX files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from diffinv.data import arrays, reader
from diffinv.data.arrays import Refused
from diffinv.data.reader import Picture, Reading
from diffinv.describe import described

GUARD = 2  # the split that is neither for training nor for validation
PARTS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 1}


@described
class Record(NamedTuple):
    """One picture of a catalogue.

    Attributes:
      name: of the picture.
      label: its class.
      split: 0 for training, 1 for validation, None where the source does not say.
      source: the file's bytes, its path, uint8 pixels, or a picture that was read.
    """

    name: str
    label: int
    split: int | None
    source: bytes | str | np.ndarray | Picture


@described
class Catalogue(NamedTuple):
    """What a path holds.

    Attributes:
      classes: their names; one, "", where there are no labels.
      records: gives a fresh stream of records at every call.
    """

    classes: tuple[str, ...]
    records: Callable[[], Iterator[Record]]


@described
class Part(NamedTuple):
    """Arrays of one split.

    Attributes:
      name: of the arrays.
      split: 0 for training, 1 for validation, None where the source does not say.
      images: (N, H, W, C).
      found: their range.
      labels: (N,), or None.
      words: the names of the classes, or None where they are not known.
    """

    name: str
    split: int | None
    images: np.ndarray
    found: arrays.Found
    labels: np.ndarray | None
    words: tuple[str, ...] | None = None


def numbered(parts: list[Part]) -> Catalogue:
    """The pictures of arrays, named by their place; classes are the words, or the numbers up to the largest."""
    labels = [part.labels for part in parts if part.labels is not None]
    count = 1 + max((int(each.max(initial=0)) for each in labels), default=0)
    words = next((part.words for part in parts if part.words), None)

    def records() -> Iterator[Record]:
        for part in parts:
            for i, image in enumerate(part.images):
                label = 0 if part.labels is None else int(part.labels[i])
                yield Record(f"{part.name}{i}", label, part.split, reader.as_picture(image, part.found))

    return Catalogue(words or (tuple(map(str, range(count))) if count > 1 else ("",)), records)


def archive(path: str, reading: Reading) -> Catalogue:
    """A `.npz`: a pack of JPEG or PNG files, `images` with or without `labels`, or `train_images` and the like.

    Raises `Refused` where it is damaged, too large, of another form, or where its numbers are not plain.
    """
    names = arrays.members(path)
    if "payload" in names:
        return _jpegs(path, reading)
    if "png" in names:
        return _pngs(path, reading)
    if "images" in names:
        return numbered(_parts(path, {"": ("images", "labels")}, reading))
    pairs = {f"{part}/": (f"{part}_images", f"{part}_labels") for part in PARTS if f"{part}_images" in names}
    pairs |= {f"{part}/": (f"x_{part}", f"y_{part}") for part in PARTS if f"x_{part}" in names}
    if "train/" in pairs:
        return numbered(_parts(path, pairs, reading))
    raise Refused(f"{path} holds {sorted(names)[:9]}; a .npz needs `images`, or the arrays of a JPEG or PNG pack")


def _parts(path: str, pairs: dict[str, tuple[str, str]], reading: Reading) -> list[Part]:
    stored = arrays.npz(path, [name for pair in pairs.values() for name in pair], reading.bytes)
    missing = [label for _, label in pairs.values() if label not in stored]
    if 0 < len(missing) < len(pairs):
        raise Refused(f"{path} lacks {', '.join(missing)}; give labels for every split, or for none")
    whole = len(pairs) == 1  # a source without a split of its own
    parts = [
        _part(path, "" if whole else part, pair, stored, None if whole else PARTS[part[:-1]], reading)
        for part, pair in pairs.items()
    ]
    return _named_alike(path, parts)


def _named_alike(path: str, parts: list[Part]) -> list[Part]:
    """The same, where labels are words that number the same in every part."""
    words = tuple(sorted({word for part in parts for word in part.words or ()}))
    if words and not all(part.words for part in parts):
        raise Refused(f"{path} has words for labels in some splits and numbers in others; give words for all")
    place = {word: i for i, word in enumerate(words)}
    number = lambda part: np.asarray([place[word] for word in part.words])[part.labels]
    return [part._replace(labels=number(part), words=words) for part in parts] if words else parts


def _part(path: str, part: str, pair: tuple[str, str], stored: dict, split: int | None, reading: Reading) -> Part:
    try:
        name = pair[0]
        images = arrays.many(stored[name])
        reading.admit(images.shape[2], images.shape[1])
        found = arrays.ranged(images, reading.levels)
        if found.dim:
            raise Refused(found.dim)
        name = pair[1]
        labels, words = arrays.labels(stored[name], len(images)) if name in stored else (None, None)
    except Refused as error:
        raise Refused(f"{path}: {name} {error}") from None
    return Part(part, split, images, found, labels, words)


def _pack(path: str, names: list[str], reading: Reading) -> dict[str, np.ndarray]:
    """The arrays of a pack, flat, of the types that its form asks for."""
    found = arrays.npz(path, [*names, "label", "split", "meta"], reading.bytes)
    if missing := [name for name in names if name not in found]:
        raise Refused(f"{path} is a pack without {', '.join(missing)}; download it again")
    for name, values in found.items():
        kind = "u1" if name in ("header", "payload", "png", "meta") else "integers"
        if values.ndim != 1 or values.dtype.kind not in "ui" or (kind == "u1" and values.dtype != np.uint8):
            raise Refused(
                f"{path}: {name} is {values.dtype} of shape {values.shape}, not flat {kind}; download it again"
            )
    return found


def _offsets(path: str, pack: dict[str, np.ndarray], name: str, content: str) -> np.ndarray:
    """Where the parts of `content` begin and end. Raises `Refused` where they do not lie inside it, in order."""
    offset = pack[name].astype(np.int64)
    if not len(offset) or offset[0] < 0 or offset[-1] > len(pack[content]) or (np.diff(offset) < 0).any():
        raise Refused(f"{path}: {name} does not divide {content} of {len(pack[content])} bytes; download it again")
    return offset


def _meta(path: str, pack: dict[str, np.ndarray]) -> dict:
    try:
        found = json.loads(pack["meta"].tobytes()) if "meta" in pack else {}
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: meta is no JSON ({error}); download it again") from None
    if not isinstance(found, dict):
        raise Refused(f"{path}: meta is no JSON object; download it again")
    return found


def _words(path: str, meta: dict, name: str) -> list[str]:
    found = meta.get(name, [])
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise Refused(f"{path}: {name} of its meta is no list of names; download it again")
    return found


def _packed(path: str, pack: dict, count: int, labels: np.ndarray, classes: list[str], encoded: Callable) -> Catalogue:
    """Records of a pack's files; those between the splits are left out."""
    split = pack.get("split")
    wrong = split is not None and (len(split) != count or not np.isin(split, (0, 1, GUARD)).all())
    if wrong or len(labels) != count or (count and not 0 <= labels.min() <= labels.max() < arrays.MOST_CLASSES):
        raise Refused(f"{path}: label or split does not fit its {count} pictures; download it again")
    if not classes:
        classes = list(map(str, range(1 + int(labels.max(initial=0))))) if labels.any() else [""]
    if count and labels.max() >= len(classes):
        raise Refused(f"{path}: label {labels.max()} has no name among {len(classes)} classes; download it again")

    def records() -> Iterator[Record]:
        for i in range(count):
            part = None if split is None else int(split[i])
            if part != GUARD:
                yield Record(f"{i}", int(labels[i]), part, encoded(i))

    return Catalogue(tuple(classes), records)


def _jpegs(path: str, reading: Reading) -> Catalogue:
    """JPEG files as `header[k] + payload[i]`, `k = header_id[i]`."""
    pack = _pack(path, ["header", "header_offset", "header_id", "payload", "offset"], reading)
    heads, offset = _offsets(path, pack, "header_offset", "header"), _offsets(path, pack, "offset", "payload")
    which, count = pack["header_id"], len(offset) - 1
    if len(which) != count or (count and not 0 <= which.min() <= which.max() < len(heads) - 1):
        raise Refused(
            f"{path}: header_id does not fit {count} pictures and {len(heads) - 1} headers; download it again"
        )

    def encoded(i: int) -> bytes:
        head = pack["header"][heads[which[i]] : heads[which[i] + 1]]
        return head.tobytes() + pack["payload"][offset[i] : offset[i + 1]].tobytes()

    labels = pack.get("label", np.zeros(count, np.int64))
    return _packed(path, pack, count, labels, _words(path, _meta(path, pack), "classes"), encoded)


def _pngs(path: str, reading: Reading) -> Catalogue:
    """PNG files one after the other; without `label` the categories of the meta data are the labels, or the names."""
    pack = _pack(path, ["png", "offset"], reading)
    offset, meta = _offsets(path, pack, "offset", "png"), _meta(path, pack)
    count, classes = len(offset) - 1, _words(path, meta, "classes")
    kinds = _words(path, meta, "name" if reading.captions and isinstance(meta.get("name"), list) else "category")
    labels = pack.get("label", np.zeros(count, np.int64))
    if "label" not in pack and kinds:
        classes = sorted(set(kinds))
        place = {kind: number for number, kind in enumerate(classes)}
        labels = np.asarray([place[kind] for kind in kinds], np.int64)
    encoded = lambda i: pack["png"][offset[i] : offset[i + 1]].tobytes()
    return _packed(path, pack, count, labels, classes, encoded)


def idx_files(folder: str) -> list[tuple[int, str, str]]:
    """MNIST and Fashion-MNIST as they are published: (split, images, labels) of IDX files, gzipped or not."""
    inside = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    named = lambda stem: next((os.path.join(folder, name) for name in inside if name.startswith(stem)), None)
    pairs = [(named(f"{stem}-images-idx3-ubyte"), named(f"{stem}-labels-idx1-ubyte")) for stem in ("train", "t10k")]
    return [(split, images, labels) for split, (images, labels) in enumerate(pairs) if images and labels]


def idx_folder(found: list[tuple[int, str, str]], reading: Reading) -> Catalogue:
    """The catalogue of `idx_files`. Raises `Refused` where one is damaged or too large."""
    parts = []
    for split, pictures, words in found:
        images = arrays.idx(pictures, reading.bytes)
        stored = {"images": images, "labels": arrays.idx(words, reading.bytes)}
        parts.append(_part(pictures, f"{('train', 'test')[split]}/", ("images", "labels"), stored, split, reading))
    return numbered(parts)

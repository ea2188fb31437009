"""Pictures where they lie: folders, globs, packs, arrays, IDX files, and the sets that Python packages carry.

Every form becomes a stream of `Record`s, whose pixels are decoded only when asked for; docs/pictures.md has the rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffinv.data import arrays, fitting, listing, packs, reader
from diffinv.data.arrays import Range
from diffinv.data.fitting import Size
from diffinv.data.packs import Catalogue, Record
from diffinv.data.reader import PLAIN, Picture, Reading
from diffinv.describe import described

HOLD_OUT = 16
VALIDATION = ("validation", "valid", "val", "test")
PHOTOGRAPHS = "astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png hubble_deep_field.jpg".split()


@described
class Images(NamedTuple):
    """What was read.

    Attributes:
      pixels: uint8 (N, H, W, channels).
      names: N names, in the source's own order, or in the order in which they were drawn.
      skipped: names of images that were left out, corrupt or not plain, with the reason.
    """

    pixels: np.ndarray
    names: list[str]
    skipped: list[str]


def picture(source: bytes | str | np.ndarray | Picture, reading: Reading = PLAIN) -> Picture:
    """A record's picture: a file's bytes, its path, uint8 pixels (H, W) or (H, W, C), or one that was read already.

    Raises OSError where it is corrupt, too large, or not plain in what its numbers mean.
    """
    if isinstance(source, Picture):
        return source
    if not isinstance(source, np.ndarray):
        return reader.read_picture(source, reading)
    values = arrays.one(source)
    known = source.dtype == np.uint8
    return reader.as_picture(values, arrays.Found(Range(0, 255)) if known else arrays.ranged(values, reading.levels))


def decode(
    source: bytes | str | np.ndarray | Picture, size: Size = None, channels: int = 3, reading: Reading = PLAIN
) -> np.ndarray:
    """One image (see `picture`) as uint8 (H, W, channels), laid on white, at `size` (see `fitting.fit`).

    Raises OSError where it is corrupt, too large, not plain, or almost black in more than 8 bits.
    """
    found = fitting.plain(picture(source, reading))
    return fitting.eight(fitting.fit(fitting.opaque(found, channels), size))


def _folder(path: str) -> Catalogue:
    """Image files: a folder `train`, `val` or `test` above a file is its split, the folder below it its class."""
    files = listing.pictures(path)
    inside = [
        Path(os.path.relpath(file, path) if os.path.isdir(path) else os.path.basename(file)).parts for file in files
    ]
    has_splits = {"train"} < {parts[0] for parts in inside if len(parts) > 1} <= {"train", *VALIDATION}
    folders = [parts[has_splits:-1] for parts in inside]
    classes = tuple(sorted({part[0] if part else "" for part in folders})) or ("",)

    def records():
        for file, parts, folder in zip(files, inside, folders, strict=True):
            label = classes.index(folder[0] if folder else "")
            yield Record(listing.printable_name(file), label, int(parts[0] in VALIDATION) if has_splits else None, file)

    return Catalogue(tuple(map(listing.printable_name, classes)), records)


def captioned(found: Catalogue) -> Catalogue:
    """A catalogue of files whose labels are the captions beside them: NAME.txt for NAME.png.

    Raises ValueError for a picture without one; it names the file and says how many lack theirs.
    """
    every = list(found.records())
    beside = [os.path.splitext(os.fspath(str(record.source)))[0] + ".txt" for record in every]
    missing = [path for path in beside if not os.path.isfile(path)]
    if missing:
        first = listing.printable_name(missing[0])
        raise ValueError(f"{len(missing)} of {len(every)} pictures have no caption, the first {first}; write it there")
    captions = [caption(path) for path in beside]
    classes = sorted(set(captions))
    place = {text: number for number, text in enumerate(classes)}
    told = [record._replace(label=place[text]) for record, text in zip(every, captions, strict=True)]
    return Catalogue(tuple(classes), lambda: iter(told))


def caption(path: str) -> str:
    """What a text file says, in one line of at most 400 letters. Raises ValueError for none, and for other bytes."""
    with open(path, "rb") as file:
        content = file.read(4096)
    text = " ".join(content.decode("utf-8", "ignore").split())[:400]
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{listing.printable_name(path)} holds no text; write the picture's caption there, in UTF-8")
    return text


def _array(name: str, images: np.ndarray, labels: np.ndarray, split: int | None = None) -> packs.Part:
    return packs.Part(name, split, arrays.many(images), arrays.Found(Range(0, 255)), labels)


def _digits() -> Catalogue:
    """1,797 grey digits of 8 x 8 pixels from scikit-learn, values 0 to 16 scaled to 0 to 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("data 'digits' needs scikit-learn; pip install scikit-learn") from error
    found = load_digits()
    return packs.numbered([_array("", np.rint(found.images * (255 / 16)).astype(np.uint8), found.target)])


def _photographs() -> Catalogue:
    """The colour photographs inside scikit-image's wheel."""
    import skimage.data

    folder = os.path.dirname(skimage.data.__file__)
    return Catalogue(("",), lambda: (Record(name, 0, None, os.path.join(folder, name)) for name in PHOTOGRAPHS))


def _gradients(count: int = 80, size: int = 16) -> Catalogue:
    """Generated colour gradients, for quick runs without any file."""
    ramp, ends = np.linspace(0, 1, size), np.random.default_rng(0).uniform(0, 255, (2, count, 1, 1, 3))
    images = ends[0] * ramp[:, None, None] + ends[1] * (1 - ramp[None, :, None])
    split = [images[: count * 4 // 5], images[count * 4 // 5 :]]
    eight = [part.clip(0, 255).astype(np.uint8) for part in split]
    named = zip(("train/", "test/"), eight, strict=True)
    return packs.numbered([_array(name, part, np.arange(len(part)) % 2, i) for i, (name, part) in enumerate(named)])


def _satellite() -> Catalogue:
    """20 held-out pictures of EuroSAT, 64 x 64, two of each class; see data/bundled/LICENCE.txt."""
    found = packs.archive(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bundled", "satellite.npz"), PLAIN)
    name = lambda number, record: f"{found.classes[record.label]}-{number // len(found.classes) + 1}"
    records = lambda: (each._replace(name=name(number, each)) for number, each in enumerate(found.records()))
    return Catalogue(found.classes, records)


BUNDLED = {"digits": _digits, "photographs": _photographs, "gradients": _gradients, "satellite": _satellite}


def is_bundled(path: str) -> bool:
    """Whether a path is the name of a set that a package carries, and of nothing that lies here."""
    return path in BUNDLED and not os.path.lexists(path)


def catalogue(path: str, reading: Reading = PLAIN) -> Catalogue:
    """The records of a folder, a file, a glob, a `.npz`, a folder of IDX files, or of one of `BUNDLED`.

    A path that exists is taken literally, also where it has brackets. Raises FileNotFoundError where nothing
    is there, ValueError for a `.npz` or IDX file that is damaged, too large, or of another form.
    """
    if is_bundled(path):
        return BUNDLED[path]()
    found = listing.matches(path)
    if not found:
        raise FileNotFoundError(f"data path {path!r} matches no file; give a folder, a glob of images or a .npz")
    packed = [file for file in found if file.endswith(".npz")]
    if packed and len(found) > 1:
        raise ValueError(
            f"data path {path!r} matches {len(found)} files, with .npz among them; give one of these alone"
        )
    if packed:
        return packs.archive(packed[0], reading)
    if idx := packs.idx_files(path):
        return packs.idx_folder(idx, reading)
    return captioned(_folder(path)) if reading.captions else _folder(path)


def held_out(record: Record, number: int) -> bool:
    """Whether a record is for validation: as its source says, else every 16th, beginning with the second."""
    return number % HOLD_OUT == 1 if record.split is None else record.split == 1


def _wanted(found: Catalogue, split: int | None, label: int | None) -> Iterator[Record]:
    for number, record in enumerate(found.records()):
        if (split is None or held_out(record, number) == bool(split)) and label in (None, record.label):
            yield record


def _ordered(records: Iterable[Record], seed: int | None) -> Iterable[Record]:
    """As they are, or in a random order."""
    if seed is None:
        return records
    every = list(records)
    return [every[i] for i in np.random.default_rng(seed).permutation(len(every))]


def read(
    path: str,
    size: Size = None,
    split: int | None = None,
    limit: int | None = None,
    channels: int = 3,
    reading: Reading = PLAIN,
    label: int | None = None,
    seed: int | None = None,
) -> Images:
    """All images of a catalogue in memory.

    Images that are corrupt, too large or not plain are skipped and named in `Images.skipped`.

    Args:
      path: as for `catalogue`; a folder is searched with its subfolders, in sorted order.
      size: side in pixels, or (height, width); None keeps each image's own (they must then agree).
      split: 0 train, 1 validation (every 16th where the source has no split), None all.
      limit: at most so many.
      channels: 3 (RGB) or 1 (grey).
      reading: how files are read.
      label: those of one class alone, by its place in `Catalogue.classes`.
      seed: of a random order, so that `limit` takes a sample: a source's own order is often by class.

    Raises FileNotFoundError where nothing is there, ValueError where nothing is readable or the sizes differ.
    """
    pixels, skipped = [], []
    names: list[str] = []
    for record in _ordered(_wanted(catalogue(path, reading), split, label), seed):
        if limit is not None and len(names) >= limit:
            break
        try:
            pixels.append(decode(record.source, size, channels, reading))
            names.append(record.name)
        except OSError as error:
            skipped.append(f"{record.name}: {arrays.reason(error)}")
    if not pixels:
        reason = f", the first {skipped[0]}" if skipped else ""
        raise ValueError(
            f"data path {path!r} gave no image ({len(skipped)} corrupt{reason}); check the path and the split"
        )
    if len({image.shape for image in pixels}) > 1:
        raise ValueError(f"images under {path!r} differ in size; pass size= to bring them to one")
    return Images(np.stack(pixels), names, skipped)

"""Pictures where they lie: folders, globs, packs, arrays, IDX files, and the sets that Python packages carry.

Every form becomes a stream of `Record`s, whose pixels are decoded only when asked for.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffinv.describe import described

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
HOLD_OUT = 16
VALIDATION = ("validation", "valid", "val", "test")
PHOTOGRAPHS = "astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png hubble_deep_field.jpg".split()


@described
class Record(NamedTuple):
    """One picture. `split` is 0 for training, 1 for validation, None where the source does not say; `source` is the
    file's bytes, its path, or uint8 pixels."""

    name: str
    label: int
    split: int | None
    source: bytes | str | np.ndarray


@described
class Catalogue(NamedTuple):
    """What a path holds: class names (one, "", without labels), and a fresh stream of records at every call."""

    classes: tuple[str, ...]
    records: Callable[[], Iterator[Record]]


@described
class Images(NamedTuple):
    """What was read.

    Attributes:
      pixels: uint8 (N, H, W, 3).
      names: N names, in the source's own order.
      skipped: names of corrupt images that were left out, with the reason.
    """

    pixels: np.ndarray
    names: list[str]
    skipped: list[str]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow; pip install pillow") from error
    return Image


def eight_bits(image: Any) -> Any:
    """A Pillow image of 16 bits of grey as one of 8, 65535 white; any other as it is. Pillow's `convert` would clip."""
    if not image.mode.startswith("I;16"):
        return image
    return _pillow().fromarray(np.round(np.asarray(image, np.float64) / 257).astype(np.uint8))


def _opaque(image: Any, mode: str) -> Any:
    """In 8 bits, without transparency: laid on white."""
    image = eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = _pillow().alpha_composite(_pillow().new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def shrink(image: Any, size: int | None, channels: int = 3) -> np.ndarray:
    """A uint8 array (H, W, channels) of a Pillow image, centre-cropped to a square and brought to `size` pixels.

    Shrinks with the exact area mean (`Resampling.BOX`), enlarges with bicubic interpolation; None keeps the image.
    Transparent pictures are laid on white; `channels` is 1 (grey) or 3 (RGB).
    """
    pillow, image = _pillow(), _opaque(image, "RGB" if channels == 3 else "L")
    if size is not None:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        method = pillow.Resampling.BOX if side >= size else pillow.Resampling.BICUBIC
        image = image.crop((left, top, left + side, top + side)).resize((size, size), method)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def decode(source: bytes | str | np.ndarray, size: int | None = None, channels: int = 3) -> np.ndarray:
    """One image (a file's bytes, its path, or pixels) as uint8 (H, W, channels). Raises OSError where it is corrupt."""
    if isinstance(source, np.ndarray):
        pixels = source[..., 0] if source.ndim == 3 and source.shape[-1] == 1 else source
        return shrink(_pillow().fromarray(pixels), size, channels)
    try:
        with _pillow().open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return shrink(image, size, channels)
    except (SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for some damaged files
        raise OSError(f"cannot decode the image: {error}") from error


def _packed(path: str) -> Catalogue:
    """JPEG files as `header[k] + payload[i]`, `k = header_id[i]`."""
    with np.load(path, allow_pickle=False) as archive:
        pack = dict(archive)
    classes = tuple(json.loads(pack["meta"].tobytes()).get("classes", [""])) if "meta" in pack else ("",)

    def records() -> Iterator[Record]:
        heads, offset = pack["header_offset"], pack["offset"]
        for i, k in enumerate(pack["header_id"]):
            head = pack["header"][heads[k] : heads[k + 1]].tobytes()
            encoded = head + pack["payload"][offset[i] : offset[i + 1]].tobytes()
            yield Record(f"{i}", int(pack["label"][i]), int(pack["split"][i]), encoded)

    return Catalogue(classes, records)


def _emoji(path: str) -> Catalogue:
    """PNG files one after the other; their categories are the labels."""
    with np.load(path, allow_pickle=False) as archive:
        png, offset, meta = archive["png"], archive["offset"], json.loads(archive["meta"].tobytes())
    kinds = meta.get("category", [""] * (len(offset) - 1))
    classes = tuple(sorted(set(kinds)))

    def records() -> Iterator[Record]:
        for i, kind in enumerate(kinds):
            yield Record(f"{i}", classes.index(kind), None, png[offset[i] : offset[i + 1]].tobytes())

    return Catalogue(classes, records)


def _numbered(parts: Sequence[tuple[int | None, np.ndarray, np.ndarray | None]]) -> Catalogue:
    """Arrays `(split, images, labels)`."""
    count = 1 + max(int(labels.max(initial=0)) if labels is not None else 0 for _, _, labels in parts)

    def records() -> Iterator[Record]:
        for split, images, labels in parts:
            for i, image in enumerate(images):
                name = f"{i}" if split is None else f"{('train', 'test')[split]}/{i}"
                yield Record(name, 0 if labels is None else int(labels[i]), split, image)

    return Catalogue(tuple(map(str, range(count))) if count > 1 else ("",), records)


def _archive(path: str) -> Catalogue:
    with np.load(path, allow_pickle=False) as archive:
        names = set(archive.files)
        if "payload" in names:
            return _packed(path)
        if "png" in names:
            return _emoji(path)
        if "images" in names:
            return _numbered([(None, archive["images"], archive["labels"] if "labels" in names else None)])
        if "train_images" in names:
            return _numbered(
                [(i, archive[f"{s}_images"], archive[f"{s}_labels"]) for i, s in enumerate(("train", "test"))]
            )
    raise ValueError(f"{path} holds {sorted(names)}; a .npz needs `images`, or the arrays of a JPEG pack")


def _idx(path: str) -> np.ndarray:
    """One IDX file of bytes (LeCun's MNIST format): magic 0x0000 08 ndim, big-endian sizes, data."""
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        raw = file.read()
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes; download it again")
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    if len(raw) - 4 - 4 * raw[3] != shape.prod():
        raise ValueError(f"{path} holds {len(raw)} bytes, its header says {shape.tolist()}; download it again")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def _idx_folder(folder: str) -> Catalogue:
    """MNIST and Fashion-MNIST as they are published: four IDX files, gzipped or not."""
    parts = []
    for split, stem in enumerate(("train", "t10k")):
        files = [
            sorted(glob.glob(os.path.join(folder, f"{stem}-{kind}-ubyte*"))) for kind in ("images-idx3", "labels-idx1")
        ]
        if all(files):
            images, labels = (_idx(found[0]) for found in files)
            parts.append((split, images, labels))
    return _numbered(parts)


def _listed(path: str) -> list[str]:
    files = sorted(glob.glob(os.path.join(path, "**") if os.path.isdir(path) else path, recursive=True))
    return [file for file in files if file.lower().endswith(SUFFIXES)]


def _folder(path: str) -> Catalogue:
    """Image files: a folder `train`, `val` or `test` above a file is its split, the folder below it its class."""
    files = _listed(path)
    inside = [
        Path(os.path.relpath(file, path) if os.path.isdir(path) else os.path.basename(file)).parts for file in files
    ]
    has_splits = {"train"} < {parts[0] for parts in inside if len(parts) > 1} <= {"train", *VALIDATION}
    folders = [parts[has_splits:-1] for parts in inside]
    classes = tuple(sorted({part[0] if part else "" for part in folders})) or ("",)

    def records() -> Iterator[Record]:
        for file, parts, folder in zip(files, inside, folders, strict=True):
            label = classes.index(folder[0] if folder else "")
            yield Record(file, label, int(parts[0] in VALIDATION) if has_splits else None, file)

    return Catalogue(classes, records)


def _digits() -> Catalogue:
    """1,797 grey digits of 8 x 8 pixels from scikit-learn, values 0 to 16 scaled to 0 to 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("data 'digits' needs scikit-learn; pip install scikit-learn") from error
    found = load_digits()
    return _numbered([(None, np.rint(found.images * (255 / 16)).astype(np.uint8), found.target)])


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
    return _numbered(
        [(i, part.clip(0, 255).astype(np.uint8), np.arange(len(part)) % 2) for i, part in enumerate(split)]
    )


BUNDLED = {"digits": _digits, "photographs": _photographs, "gradients": _gradients}


def catalogue(path: str) -> Catalogue:
    """The records of a folder, a glob, a `.npz`, a folder of IDX files, or of one of `BUNDLED`.

    Original. Raises FileNotFoundError where nothing is there, ValueError for a `.npz` of another form.
    """
    if path in BUNDLED:
        return BUNDLED[path]()
    if not glob.glob(path):
        raise FileNotFoundError(f"data path {path!r} matches no file; give a folder, a glob of images or a .npz")
    if path.endswith(".npz"):
        return _archive(path)
    return _idx_folder(path) if glob.glob(os.path.join(path, "*-images-idx3-ubyte*")) else _folder(path)


def held_out(record: Record, number: int) -> bool:
    """Whether a record is for validation: as its source says, else every 16th, beginning with the second."""
    return number % HOLD_OUT == 1 if record.split is None else record.split == 1


def read(path: str, size: int | None = None, split: int | None = None, limit: int | None = None) -> Images:
    """All images of a catalogue in memory, as RGB.

    Original. Corrupt images are skipped and named in `Images.skipped`.

    Args:
      path: as for `catalogue`; a folder is searched with its subfolders, in sorted order.
      size: side in pixels; None keeps each image's own (they must then agree).
      split: 0 train, 1 validation (every 16th where the source has no split), None all.
      limit: at most so many.

    Raises FileNotFoundError where nothing is there, ValueError where nothing is readable or the sizes differ.
    """
    pixels, skipped = [], []
    names: list[str] = []
    for number, record in enumerate(catalogue(path).records()):
        if limit is not None and len(names) >= limit:
            break
        if split is not None and held_out(record, number) != bool(split):
            continue
        try:
            pixels.append(decode(record.source, size))
            names.append(record.name)
        except OSError as error:
            skipped.append(f"{record.name}: {error}")
    if not pixels:
        raise ValueError(f"data path {path!r} gave no image ({len(skipped)} corrupt); check the path and the split")
    if len({image.shape for image in pixels}) > 1:
        raise ValueError(f"images under {path!r} differ in size; pass size= to bring them to one")
    return Images(np.stack(pixels), names, skipped)


def to_unit(pixels: Any) -> Any:
    """uint8 in [0, 255] to float32 in [-1, 1]; numpy or JAX."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_pixels(images: Any) -> np.ndarray:
    """Floats in [-1, 1] (others are clipped) to uint8 in [0, 255], rounded."""
    return np.rint((np.clip(np.asarray(images, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)

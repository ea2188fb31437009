"""TFDS as the layer below: any catalogue, prepared once as ArrayRecord, and the public sets, read by random access.

Neither preparing nor reading imports TensorFlow.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import struct

from diffinv.data import arrays, files, listing, reader
from diffinv.data.reader import PLAIN, Reading
from diffinv.describe import Described, described

VERSION = "1.0.0"
IMAGE, LABEL = "image", "label"
RESIDENT = 2**34  # bytes in memory
Watch = Callable[[Iterator[files.Record]], Iterable[files.Record]]


@described
class Resident(NamedTuple):
    """Decoded examples in memory.

    Attributes:
      images: uint8, (N, H, W, C).
      labels: int32, (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """As `Source.take`."""
        index = np.asarray(indices, np.int64)
        return {"image": self.images[index], "label": self.labels[index], "index": index}


@struct.dataclass
class Source(Described):
    """Random access to pictures of one size.

    Attributes:
      records: a TFDS data source, or `Resident`.
      size: of the pictures' sides, in pixels.
      channels: 3 or 1.
      classes: their names.
      skipped: images that were left out when the set was prepared, with the reason.
      digest: of pixels, labels and order, by which another set is told from this one.
    """

    records: Any = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    channels: int = struct.field(pytree_node=False, default=3)
    classes: tuple[str, ...] = struct.field(pytree_node=False, default=("",))
    skipped: tuple[str, ...] = struct.field(pytree_node=False, default=())
    digest: str = struct.field(pytree_node=False, default="")

    def __len__(self) -> int:
        return len(self.records)

    def take(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """`{"image": uint8 (n, size, size, channels), "label": int32 (n,), "index": int64 (n,)}`."""
        if isinstance(self.records, Resident):
            return self.records.take(indices)
        found = [self.records[int(i)] for i in indices]
        images = [self._pixels(np.asarray(example[IMAGE])) for example in found]
        labels = np.asarray([example.get(LABEL, 0) for example in found], np.int32)
        return {"image": np.stack(images), "label": labels, "index": np.asarray(indices, np.int64)}

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        fits = image.shape == (self.size, self.size, self.channels)
        return image if fits else files.decode(image, self.size, self.channels)


def _tfds() -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError('datasets are read with TFDS; pip install "diffinv[train]"') from error
    return tfds


@cache
def _builder() -> type:
    """The one TFDS builder; a class made late, because TFDS is imported where it is used."""
    tfds = _tfds()
    base: Any = tfds.core.GeneratorBasedBuilder

    class Pictures(base, skip_registration=True):  # type: ignore[call-arg]  # TFDS's own keyword
        """A catalogue's records as PNG of one size, with label and name."""

        VERSION = tfds.core.Version(VERSION)
        name = "pictures"

        def __init__(self, *, listing: files.Catalogue, size: int, channels: int, reading: Reading, **fields: Any):
            self.listing, self.size, self.channels, self.reading = listing, size, channels, reading
            super().__init__(**fields)

        def _info(self) -> Any:
            shape = (self.size, self.size, self.channels)
            label = tfds.features.Scalar(np.int64)
            features = {IMAGE: tfds.features.Image(shape=shape), LABEL: label, "name": tfds.features.Text()}
            about = tfds.core.MetadataDict(classes=list(self.listing.classes), skipped=[], digest={})
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), metadata=about)

        def _split_generators(self, download: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(False), "validation": self._generate_examples(True)}

        def _generate_examples(self, validation: bool) -> Iterator[tuple[int, dict[str, Any]]]:
            digest = hashlib.sha256()
            for number, record in enumerate(self.listing.records()):
                if files.held_out(record, number) == validation:
                    try:
                        pixels = files.decode(record.source, self.size, self.channels, self.reading)
                    except OSError as error:
                        self.info.metadata["skipped"].append(f"{record.name}: {arrays.reason(error)}")
                        continue
                    digest.update(f"{number} {record.label} ".encode() + pixels.tobytes())
                    yield number, {IMAGE: _png(pixels), LABEL: record.label, "name": record.name}
            self.info.metadata["digest"]["validation" if validation else "train"] = digest.hexdigest()

    return Pictures


def _png(pixels: np.ndarray) -> io.BytesIO:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(encoded, "PNG")
    encoded.seek(0)
    return encoded


def _fingerprint(path: str, size: int, channels: int, reading: Reading) -> str:
    """A folder name that changes with the files below `path` and the rules, so that a prepared set is never a stale
    one: a replaced file has another time of change, whatever its size and its time of writing."""
    found = [] if files.is_bundled(path) else listing.pictures(path) or listing.matches(path)
    if os.path.isdir(path):
        found = sorted({*found, *(entry.path for entry in os.scandir(path) if entry.is_file())})
    found = [*found, *(f"{os.path.splitext(file)[0]}.txt" for file in found if reading.captions)]
    stats = [(os.fsencode(file), *_times(file)) for file in found]
    digest = hashlib.sha256(repr((stats, size, channels, reading, reader.RULES)).encode()).hexdigest()[:12]
    stem = "".join(letter for letter in Path(path).name.split(".")[0] if letter.isalnum() or letter in "-_")[:60]
    return f"{stem or 'data'}-{size}x{size}x{channels}-{digest}"


def _times(file: str) -> tuple[int, ...]:
    """Size, time of writing and time of change of a file; nothing of a link that leads nowhere."""
    if not os.path.exists(file):
        return ()
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def prepare(path: str, size: int, folder: str, channels: int = 3, reading: Reading = PLAIN, watch: Watch = iter) -> str:
    """Brings a catalogue to one size and stores it as a TFDS data set under `folder`; returns its directory.

    A second call with the same files returns at once; of two at the same time both store it, and the first one's is
    kept. A run that was cut off leaves nothing that is taken for a whole set (TFDS renames at the end). Images that are
    corrupt, too large or not plain are left out and named in the set's metadata. Every 16th picture (the second first)
    is for validation where the source has no split of its own.

    Raises FileNotFoundError where nothing is there, ValueError where no image, or none for validation, is readable, or
    where `size` is under 1 or over the limit of pixels.
    """
    if not 1 <= size * size <= reading.pixels or size < 1:
        raise ValueError(f"size is {size}; give at least 1 and at most {int(reading.pixels**0.5)} pixels")
    listed = files.catalogue(path, reading)
    if not any(True for _ in listed.records()):
        raise ValueError(f"data path {path!r} holds no image; give a folder with {', '.join(listing.SUFFIXES)} files")
    target = os.path.join(os.path.abspath(folder), _fingerprint(path, size, channels, reading))
    watched = listed._replace(records=lambda: iter(watch(listed.records())))
    fields = {"listing": watched, "size": size, "channels": channels, "reading": reading}
    builder = _builder()(**fields, data_dir=target, file_format="array_record")
    try:
        builder.download_and_prepare()
    except OSError:
        if not builder.is_prepared():
            raise
    except (AssertionError, ValueError) as error:
        skipped = builder.info.metadata["skipped"]
        first = f", the first {skipped[0]}" if skipped else ""
        raise ValueError(
            f"data path {path!r} gave no image in a split ({len(skipped)} corrupt{first}): {error}"
        ) from error
    return str(builder.data_dir)


def _public(name: str, folder: str | None, download: bool) -> Any:
    """A public TFDS set as a builder, prepared; what is missing is said, and nothing is downloaded unasked."""
    tfds = _tfds()
    folder = folder or os.environ.get("TFDS_DATA_DIR")
    if not re.fullmatch(r"[A-Za-z]\w*([/:][\w.:/=,-]+)?", name):
        raise FileNotFoundError(f"data {name!r} matches no file; give a folder, a glob, a .npz or a TFDS name")
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        near = get_close_matches(name, [*tfds.list_builders(with_community_datasets=False), *files.BUNDLED], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise FileNotFoundError(f"data {name!r} matches no file and is no TFDS data set{hint}") from None
    if download:
        builder.download_and_prepare()
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"TFDS knows {name!r}, but it is not prepared in {builder.data_dir}; set TFDS_DATA_DIR to where it is, or "
            "prepare it on a machine with a network: --config.download=True"
        )
    return builder


def _split(builder: Any, split: str) -> str:
    """TFDS's name for "train" or "validation": a set without validation gives its test split, or its train's end."""
    known = list(builder.info.splits)
    if split in known:
        return split
    return "test" if "test" in known and split == "validation" else {"train": "train[:95%]"}.get(split, "train[95%:]")


def source(
    name: str,
    size: int,
    split: str = "train",
    folder: str | None = None,
    channels: int = 3,
    download: bool = False,
    reading: Reading = PLAIN,
    watch: Watch = iter,
) -> Source:
    """Examples of a path (prepared on first use, see `prepare`) or of a public TFDS set, at `size` and `channels`.

    Args:
      name: a folder, glob, `.npz`, one of `files.BUNDLED`, or a public TFDS name ("cifar10", "imagenet_resized/64x64").
      split: "train" or "validation".
      folder: where prepared sets are; for public ones TFDS_DATA_DIR by default.
      download: let TFDS fetch a public set that is not there yet.
      reading: how files are read; public sets are 8-bit, and know no other.
      watch: what the records pass through while they are prepared, once for each split, such as a progress bar.

    Raises FileNotFoundError where nothing is there, with the nearest name; ValueError for another split.
    """
    if split not in ("train", "validation"):
        raise ValueError(f"split is {split!r}; give 'train' or 'validation'")
    if name in files.BUNDLED or listing.matches(name) or (os.sep in name and not _tfds_name(name)):
        if folder is None:
            raise ValueError(f"folder is None; say where {name!r} may be prepared")
        builder = _tfds().builder_from_directory(prepare(name, size, folder, channels, reading, watch))
    else:
        builder = _public(name, folder, download)
    about = builder.info.metadata or {}
    classes = about.get("classes") or getattr(builder.info.features.get(LABEL), "names", None) or [""]
    records = builder.as_data_source(split=_split(builder, split))
    digest = about.get("digest", {}).get(split) or f"{builder.info.full_name} {_split(builder, split)}"
    return Source(records, size, channels, tuple(classes), tuple(about.get("skipped", ())), digest)


def _tfds_name(name: str) -> bool:
    return name.split("/")[0].split(":")[0] in _tfds().list_builders(with_community_datasets=False)


def afford(count: int, size: int, channels: int) -> None:
    """Raises ValueError where so many decoded pictures take more than 16 GiB, before they do."""
    if (need := count * size * size * channels) > RESIDENT:
        what = f"{count} decoded pictures of {size} x {size} x {channels} take {need} bytes"
        raise ValueError(f"{what}, more than {RESIDENT}; read them from disk (config.resident=False), or give fewer")


def resident(source: Source, chunk: int = 1024) -> Source:
    """The same source, decoded into memory: for sets that fit, so that no step waits for a decoder.

    Raises ValueError where it takes more than 16 GiB.
    """
    afford(len(source), source.size, source.channels)
    starts = range(0, len(source), chunk)
    parts = [source.take(range(start, min(start + chunk, len(source)))) for start in starts]
    images, labels = (np.concatenate([part[key] for part in parts]) for key in ("image", "label"))
    return replace(source, records=Resident(images, labels))


def only(source: Source, names: Sequence[str]) -> Source:
    """The pictures of some classes, in memory; their labels are the names' places.

    Raises ValueError for a name that is none of the classes or repeats, where no picture is left, and as `resident`.
    """
    if unknown := [name for name in names if name not in source.classes]:
        raise ValueError(f"names has {unknown[0]!r}; the classes are {', '.join(source.classes)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names are {list(names)}; give one class at least, each once")
    images, labels = resident(source).records
    places = np.full(len(source.classes), -1, np.int32)
    places[[source.classes.index(name) for name in names]] = np.arange(len(names))
    kept = places[labels]
    if not (kept >= 0).any():
        raise ValueError(f"names are {list(names)}, of which there is no picture here; add some, or name others")
    digest = hashlib.sha256(json.dumps([source.digest, *names]).encode()).hexdigest() if source.digest else ""
    records = Resident(images[kept >= 0], kept[kept >= 0])
    return replace(source, records=records, classes=tuple(names), digest=digest)

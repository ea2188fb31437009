"""Photographs as users have them: any size, mode and depth, read to 8-bit RGB and written back in their own kind."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffinv.data import files

GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


class Photo(NamedTuple):
    """A picture that was read.

    Attributes:
      rgb: (h, w, 3) uint8; three equal channels where `grey`.
      alpha: (h, w) uint8, or None.
      grey: written back with one channel.
      profile: the embedded ICC profile, or None.
      notes: what was converted.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    profile: bytes | None
    notes: tuple[str, ...]


def _deep(image: Any) -> bool:
    """Whether the file has 16 bits a channel; Pillow keeps the upper 8 of colour without a word."""
    tiles = getattr(image, "tile", None) or ()
    return image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in tiles)


def _photo(image: Any) -> Photo:
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"first of {image.n_frames} frames")
    if _deep(image):
        notes.append("16 bits to 8")
    image.load()
    mode, profile = image.mode, image.info.get("icc_profile")
    if mode not in GREY + COLOUR:
        raise ValueError(f"mode {mode} is not known; convert it to 8 or 16 bits a channel")
    transparent = image.has_transparency_data
    image = files.eight_bits(ImageOps.exif_transpose(image))
    rgb = np.asarray(image.convert("RGBA").convert("RGB") if transparent else image.convert("RGB"))
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if transparent else None
    if mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "1"):
        notes.append(f"{mode} to {'L' if mode == '1' else 'RGB'}")
    kept = mode in ("L", "LA", "RGB", "RGBA")  # a profile of another mode's numbers would colour these wrongly
    return Photo(rgb, alpha, mode in GREY, profile if kept else None, tuple(notes))


def read(path: str) -> Photo:
    """One file, upright by its EXIF rotation. Raises ValueError, in one line with the path, where it is unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _photo(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large ({error}); crop it") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that Pillow reads; convert it to PNG or JPEG") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def write(path: Path, rgb: np.ndarray, photo: Photo) -> None:
    """`rgb` (H, W, 3) uint8 as a PNG of the photo's kind: grey stays grey, alpha is enlarged bicubically."""
    image = Image.fromarray(np.asarray(np.round(rgb.mean(-1)), np.uint8) if photo.grey else rgb)
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha).resize(image.size, Image.Resampling.BICUBIC))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    image.save(temporary, "png", **({"icc_profile": photo.profile} if photo.profile else {}))
    temporary.replace(path)

"""How every command reads pictures: three flags, whose meaning docs/pictures.md tells.

A command takes them into its own `--help` by `flags.adopt_module_key_flags(reading)`.
"""

from __future__ import annotations

from absl import flags

from diffinv import schema
from diffinv.data import Reading
from experiments.common import runtime


def levels(text: str) -> tuple[float, float] | str | None:
    """What --levels says: two numbers, "auto", or nothing. Raises ValueError for anything else."""
    if text in ("", "auto"):
        return text or None
    low, high = map(float, text.split(","))
    return Reading((low, high)).levels


def _accepted(text: object) -> bool:
    try:
        return isinstance(text, str) and (levels(text), True)[1]
    except ValueError:
        return False


LEVELS = runtime.flag(
    "levels",
    "",
    schema.Field(
        _accepted,
        "auto (the least and the greatest of each file), or two growing numbers LOW,HIGH",
        "what becomes black and white in files of more than 8 bits a channel; as docs/pictures.md tells where empty",
    ),
)
MAX_PIXELS = runtime.flag(
    "max_pixels", 0, schema.whole("the most that a picture may have; 0: the command's own", low=0)
)
MAX_BYTES = runtime.flag("max_bytes", Reading.bytes, schema.whole("the most that the arrays of one file take", low=1))


def reading(pixels: int = Reading.pixels) -> Reading:
    """What the flags say, and at most so many `pixels` where they say nothing; the defaults where none are parsed."""
    if not flags.FLAGS.is_parsed():
        return Reading(pixels=pixels)
    return Reading(levels(LEVELS.value), MAX_PIXELS.value or pixels, MAX_BYTES.value)

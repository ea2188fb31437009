"""Pictures from files, digits and TFDS to shuffled batches; uint8 (H, W, C) until `to_unit` makes them [-1, 1]."""

from diffinv.data.builders import Source, prepare, resident, source
from diffinv.data.files import Catalogue, Images, Record, catalogue, decode, read, shrink, to_pixels, to_unit
from diffinv.data.patches import patches
from diffinv.data.pipeline import augment, batches, order

__all__ = [
    "Catalogue",
    "Images",
    "Record",
    "Source",
    "augment",
    "batches",
    "catalogue",
    "decode",
    "order",
    "patches",
    "prepare",
    "read",
    "resident",
    "shrink",
    "source",
    "to_pixels",
    "to_unit",
]

"""Pictures from files, digits and TFDS to shuffled batches; uint8 (H, W, C) until `to_unit` makes them [-1, 1]."""

from diffinv.data.builders import Source, only, prepare, resident, source
from diffinv.data.cutting import patches
from diffinv.data.files import Catalogue, Images, Record, catalogue, decode, picture, read
from diffinv.data.fitting import fit, to_pixels, to_unit
from diffinv.data.pipeline import augment, batches, order
from diffinv.data.reader import Picture, Reading
from diffinv.data.variants import Variants

__all__ = [
    "Catalogue",
    "Images",
    "Picture",
    "Reading",
    "Record",
    "Source",
    "Variants",
    "augment",
    "batches",
    "catalogue",
    "decode",
    "fit",
    "only",
    "order",
    "patches",
    "picture",
    "prepare",
    "read",
    "resident",
    "source",
    "to_pixels",
    "to_unit",
]

"""PNG files of any depth, written by the format's own words, which Pillow cannot all write."""

import struct
import zlib

import numpy as np

KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to colour type


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def header(width, height, bits=8, channels=3):
    fields = struct.pack(">IIBBBBB", width, height, bits, KINDS[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields)


def png(values, bits=16, key=None, exif=b""):
    """Whole numbers (h, w, channels) below 2 ** bits; `key`: the colour that is transparent."""
    height, width, channels = values.shape
    if bits < 8:
        digits = ["".join(f"{v:0{bits}b}" for v in row[:, 0]) for row in values]
        rows = [int(line + "0" * (-len(line) % 8), 2).to_bytes(-(-len(line) // 8), "big") for line in digits]
    else:
        rows = [row.astype(f">u{bits // 8}").tobytes() for row in values]
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    clear = b"" if key is None else chunk(b"tRNS", np.asarray(key).astype(">u2").tobytes())
    turned = chunk(b"eXIf", exif) if exif else b""
    return header(width, height, bits, channels) + turned + clear + body + chunk(b"IEND", b"")

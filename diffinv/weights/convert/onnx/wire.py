r"""Protocol buffers, read by hand: fields of a number, a wire type and a value, counted and kept inside their message.

Source: the encoding at protobuf.dev; the reader is original.
"""

from __future__ import annotations

from collections.abc import Iterator

FIELDS = 2**22  # a network of 10,000 tensors takes 200,000

Value = int | memoryview


class Unread(ValueError):
    """What the file holds is not read here."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value & 2**64 - 1, at + i + 1
    raise ValueError("a number does not end")


class Messages:
    """The fields of messages, counted over the whole file."""

    def __init__(self) -> None:
        self.left = FIELDS

    def fields(self, data: memoryview) -> Iterator[tuple[int, Value]]:
        """Number and value of each field: an int, or its bytes."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise Unread(f"has more than {FIELDS} fields; export its network alone")
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(data, at)
                yield number, value
                continue
            size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}.get(wire), at)
            if not number or size is None or size > len(data) - at:
                raise ValueError(f"field {number} of type {wire} does not lie inside its message")
            yield number, data[at : at + size]
            at += size


def raw(value: Value, what: str) -> memoryview:
    """The bytes of a field. Raises ValueError where it is a number."""
    if isinstance(value, int):
        raise ValueError(f"{what} is a number")
    return value


def decoded(value: Value, what: str) -> str:
    """The text of a field. Raises ValueError where it is a number, or not UTF-8."""
    return str(raw(value, what), "utf-8")


def integers(value: Value) -> list[int]:
    """Signed numbers, one or packed."""
    found, at = ([value], 0) if isinstance(value, int) else ([], 0)
    while not isinstance(value, int) and at < len(value):
        each, at = _varint(value, at)
        found.append(each)
    return [each - 2**64 if each >= 2**63 else each for each in found]

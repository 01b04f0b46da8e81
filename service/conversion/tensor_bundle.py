"""TensorFlow's *tensor bundle*, the format of ``model.ckpt-*``, read without TensorFlow.

``PREFIX.index`` is a table of sorted keys as LevelDB writes it: blocks of entries whose keys share prefixes, an index
block that says where each data block is, and a footer of 48 bytes.  Key ``""`` holds a ``BundleHeaderProto``, every
other key is a variable's name and holds a ``BundleEntryProto``.  ``PREFIX.data-0000i-of-0000n`` hold the bytes.

Sources: tensorflow/core/util/tensor_bundle, tensorflow/core/lib/io/format.h and core/protobuf/tensor_bundle.proto.
The checksum of a tensor (masked crc32c) is compared where the package google-crc32c is installed, and not otherwise:
in Python alone it would take minutes for a large model.  Those of the index's blocks are not compared.
"""

import importlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .files import check_whole, read_bytes

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two block handles, padding, the magic number
TRAILER = 5  # bytes after a block: the kind of compression and a crc32c
# The codes of tensorflow/core/framework/types.proto.  NumPy has no bfloat16: its bits are read as integers first.
BFLOAT16 = 14
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    9: np.dtype("<i8"),
    BFLOAT16: np.dtype("<u2"),
    19: np.dtype("<f2"),
}

Array = np.ndarray[Any, np.dtype[Any]]
Message = dict[int, list[Any]]  # the values of each field of a protobuf message, by the field's number


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one variable is; ``offset`` and ``size`` are in bytes, ``checksum`` is the masked crc32c."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's index: ``entries`` by the name of the variable.  The data files are opened by ``read``."""

    prefix: Path
    shards: int
    entries: dict[str, Entry] = field(repr=False)

    def read(self, name: str) -> Array:
        """The variable's value; bfloat16 is widened to float32.  CheckpointError where its bytes are not there."""
        entry, path = self.entries[name], self._data_file(self.entries[name])
        if entry.dtype not in DTYPES or entry.sliced:
            reason = "is partitioned into slices" if entry.sliced else f"has TensorFlow's data type {entry.dtype}"
            raise CheckpointError(f"{path}: {name} {reason}; can read whole float32, float16, bfloat16, int64")
        dtype, count = DTYPES[entry.dtype], math.prod(entry.shape)
        if entry.size != count * dtype.itemsize or entry.offset + entry.size > path.stat().st_size:
            raise CheckpointError(f"{path}: {name} lies outside of the file or has another size: download it again")
        value: Array = np.fromfile(path, dtype, count, offset=entry.offset)
        if not _checksum_fits(value, entry.checksum):
            raise CheckpointError(f"{path}: the checksum of {name} is wrong: the file is damaged, download it again")
        return (_widened(value) if entry.dtype == BFLOAT16 else value).reshape(entry.shape)

    def _data_file(self, entry: Entry) -> Path:
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self.shards:05d}")
        if not path.exists():
            raise CheckpointError(f"{path}: no such file, and {self.prefix.name}.index needs it")
        check_whole(path)
        return path


def read_index(prefix: Path) -> Bundle:
    """The names, shapes and places of the variables, from ``PREFIX.index`` alone.

    CheckpointError names the file where it is missing, truncated or damaged.
    """
    path = prefix.with_name(f"{prefix.name}.index")
    content = read_bytes(path)
    try:
        pairs = list(_table(path, content))
        entries = {key.decode(): _entry(_message(value)) for key, value in pairs[1:] if not key.startswith(b"\0")}
        header = _message(pairs[0][1])
        shards = int(header.get(1, [1])[-1])
    except (LookupError, ValueError, TypeError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged or truncated ({error}): download it again") from error
    if header.get(2, [0])[-1]:
        raise CheckpointError(f"{path}: written on a big-endian machine; can read little-endian only")
    return Bundle(prefix, shards, entries)


def _table(path: Path, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    # Footer: the handles of the meta index and of the index, padded to 40 bytes, and the magic number.
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise CheckpointError(f"{path}: not an index of a TensorFlow checkpoint, or truncated (bad magic number)")
    _, _, position = _handle(data, len(data) - FOOTER)
    offset, size, _ = _handle(data, position)
    for _, value in _block(path, data, offset, size):
        offset, size, _ = _handle(value, 0)
        yield from _block(path, data, offset, size)


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    # Where a block is: its offset and its size without the trailer, in bytes.
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _block(path: Path, data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    # An entry: the length of the prefix shared with the key before, of the rest, of the value; the rest; the value.
    # After the entries: the offsets of those that share nothing, for a binary search, and how many they are.
    if offset + size + TRAILER > len(data):
        raise ValueError("a block lies outside of the file")
    if data[offset + size]:
        raise CheckpointError(f"{path}: a compressed index; can read uncompressed ones, as tf.train.Saver writes them")
    restarts = struct.unpack_from("<I", data, offset + size - 4)[0]
    position, end, key = offset, offset + size - 4 - 4 * restarts, b""
    while position < end:
        shared, position = _varint(data, position)
        rest, position = _varint(data, position)
        length, position = _varint(data, position)
        key = key[:shared] + data[position : position + rest]
        yield key, data[position + rest : position + rest + length]
        position += rest + length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    # Seven bits a byte, the lowest first; a byte below 128 is the last.
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _message(data: bytes) -> Message:
    # A field: its number and kind (0 varint, 1 eight bytes, 2 a length and bytes, 5 four bytes), then the value.
    fields: Message = {}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value: int | bytes
        if tag & 7 == 0:
            value, position = _varint(data, position)
        else:
            size, position = _varint(data, position) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], position)
            value, position = data[position : position + size], position + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _entry(message: Message) -> Entry:
    # BundleEntryProto: dtype 1, shape 2 (its dim 2, their size 1), shard 3, offset 4, size 5, crc32c 6, slices 7.
    dims = _message(message.get(2, [b""])[-1]).get(2, [])
    shape = tuple(int(_message(dim).get(1, [0])[-1]) for dim in dims)
    dtype, shard, offset, size = (int(message.get(number, [0])[-1]) for number in (1, 3, 4, 5))
    checksum = int.from_bytes(message.get(6, [b""])[-1], "little")
    return Entry(dtype, shape, shard, offset, size, checksum, sliced=7 in message)


def _checksum_fits(value: Array, masked: int) -> bool:
    try:
        crc32c = importlib.import_module("google_crc32c")
    except ImportError:
        return True
    # TensorFlow rotates the checksum and adds a constant, so that one of bytes that hold checksums is no accident.
    checksum = int(crc32c.value(value.tobytes()))
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF == masked


def _widened(value: Array) -> Array:
    # A bfloat16 is the upper half of the float32 of the same value.
    return (value.astype(np.uint32) << 16).view(np.float32)

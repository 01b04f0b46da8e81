"""Tensors of the Open Inference Protocol: in JSON, and in its binary extension.

In a binary body the JSON comes first, ``Inference-Header-Content-Length`` bytes of it, then the values of each binary
tensor in order: numbers little-endian, and of BYTES each element with its length in 32 bits before it.
https://github.com/kserve/open-inference-protocol
"""

import math
import struct
from collections.abc import Iterator, Sequence as Seq
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidRequest, TooLarge
from .json_parts import json_of

NUMBERS: dict[str, Any] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
MOST_DIMENSIONS = 8
Size = Annotated[int, Field(ge=0, le=2**31)]
LENGTH = struct.Struct("<I")


class InputTensor(BaseModel):
    """Values in ``data``, or in the binary part."""

    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=64, description="Which input of the model it is.")
    shape: list[Size] = Field(max_length=MOST_DIMENSIONS, description="Its size in each dimension.")
    datatype: str = Field(max_length=16, description="BYTES: texts in UTF-8.")
    parameters: dict[str, Any] = Field({}, description="binary_data_size: how many bytes of the binary part are its.")
    data: list[Any] | None = Field(None, description="Its values, row by row, nested or not.")


class RequestedOutput(BaseModel):
    name: str = Field(max_length=64, description="Which output of the model is wanted.")
    parameters: dict[str, Any] = Field({}, description="binary_data: true has it in the binary part.")


@dataclass(frozen=True, slots=True)
class Tensor:
    """``values`` row by row: strings for BYTES, numbers else."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Seq[Any]

    def in_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape, "data": self.values}

    def in_binary(self) -> tuple[dict[str, Any], bytes]:
        """What the JSON says of it, and its part of the bytes."""
        if self.datatype == "BYTES":
            encoded = [value.encode(errors="replace") for value in self.values]
            part = b"".join(LENGTH.pack(len(one)) + one for one in encoded)
        else:
            part = np.asarray(self.values, NUMBERS[self.datatype]).tobytes()
        said = {"name": self.name, "datatype": self.datatype, "shape": self.shape}
        return said | {"parameters": {"binary_data_size": len(part)}}, part


def texts(tensor: InputTensor, binary: bytes | None, most: int) -> list[str]:
    """The elements of a tensor of texts.  ``binary``: its part of the body, where it has one.

    InvalidRequest where it is not what it says; TooLarge above ``most`` elements, before any is looked at.
    """
    where = f"inputs: {tensor.name}"
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"{where}: datatype {tensor.datatype}; texts are BYTES")
    count = math.prod(tensor.shape)
    if count > most:
        raise TooLarge(f"{where}: {count} elements; at most {most} are taken")
    values = list(_flat(tensor.data or [])) if binary is None else list(_elements(binary, where, count))
    if len(values) != count:
        raise InvalidRequest(f"{where}: {len(values)} elements, and its shape has {count}")
    if not all(isinstance(value, str) for value in values):
        raise InvalidRequest(f"{where}: an element is no string")
    return values


def split(tensors: Seq[InputTensor], binary: bytes) -> list[bytes | None]:
    """The part of ``binary`` that is each tensor's; None for one whose values are in the JSON."""
    parts: list[bytes | None] = []
    start = 0
    for tensor in tensors:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            parts.append(None)
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - start or tensor.data is not None:
            raise InvalidRequest(f"inputs: {tensor.name}: binary_data_size is not the size of its part of the body")
        parts.append(binary[start : start + size])
        start += size
    if start != len(binary):
        raise InvalidRequest(f"the body has {len(binary) - start} bytes behind its last tensor")
    return parts


def requested(outputs: Seq[Tensor], wanted: Seq[RequestedOutput] | None) -> list[Tensor]:
    """Those that are ``wanted``, in that order; all where nothing is said.  InvalidRequest where one is not there."""
    if wanted is None:
        return list(outputs)
    there = {one.name: one for one in outputs}
    for one in wanted:
        if one.name not in there:
            raise InvalidRequest(f"outputs: {one.name}: there is {', '.join(there)}")
        if one.parameters.get("classification"):
            raise InvalidRequest("outputs: no classification extension: label and score are outputs of their own")
    return [there[one.name] for one in wanted]


def join(said: dict[str, Any], outputs: Seq[Tensor], wanted: Seq[RequestedOutput] | None, binary: bool) -> list[bytes]:
    """An answer: its JSON, then the binary parts.  ``binary``: of outputs that do not say it themselves.

    InvalidRequest for an output that there is not.
    """
    said_of = {one.name: one.parameters.get("binary_data", binary) for one in wanted or ()}
    shown, parts = [], []
    for tensor in requested(outputs, wanted):
        if said_of.get(tensor.name, binary):
            facts, part = tensor.in_binary()
            parts.append(part)
        else:
            facts = tensor.in_json()
        shown.append(facts)
    return [json_of(said | {"outputs": shown}), *parts]


def _flat(data: list[Any], dimensions: int = MOST_DIMENSIONS) -> Iterator[Any]:
    """What nested lists hold, row by row."""
    for value in data:
        if isinstance(value, list) and dimensions:
            yield from _flat(value, dimensions - 1)
        else:
            yield value


def _elements(part: bytes, where: str, count: int) -> Iterator[str]:
    start = 0
    for _ in range(count):
        if start + LENGTH.size > len(part):
            break
        (size,) = LENGTH.unpack_from(part, start)
        start += LENGTH.size
        if start + size > len(part):
            raise InvalidRequest(f"{where}: an element ends beyond the tensor")
        try:
            yield part[start : start + size].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{where}: an element is not UTF-8") from None
        start += size
    if start != len(part):
        raise InvalidRequest(f"{where}: bytes behind its last element")

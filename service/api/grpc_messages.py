"""The messages of the Open Inference Protocol over gRPC, between protocol buffers and ours.

They lie in a pool of their own: two packages that generate code for this protocol cannot be loaded side by side.
"""

from collections.abc import Iterator, Mapping, Sequence as Seq
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ..errors import InvalidRequest
from ..settings import Settings
from .open_inference import MOST_INPUTS, MOST_OUTPUTS, InferRequest
from .route import validate
from .schemas import MOST_FIELDS
from .tensors import MOST_DIMENSIONS, RequestedOutput, Tensor, requested

DESCRIPTION = Path(__file__).with_name("open_inference.binpb")
SERVICE = "inference.GRPCInferenceService"
CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "INT64": "int64_contents"}


def methods() -> dict[str, tuple[type[Any], type[Any]]]:
    """The classes of request and answer of each method of the service."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTION.read_bytes()).file:
        pool.Add(file)
    return {
        method.name: (
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for method in pool.FindServiceByName(SERVICE).methods
    }


def infer_request(message: Any, settings: Settings) -> tuple[InferRequest, bytes]:
    """The same as JSON and its binary part would give.  InvalidRequest where it fits no model."""
    _check_structure(message)
    most = max(settings.max_inputs, settings.max_documents)
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(f"raw_input_contents: {len(raw)}, and there are {len(message.inputs)} inputs")
    inputs = []
    for index, tensor in enumerate(message.inputs):
        given: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
        if raw:
            given["parameters"] = {"binary_data_size": len(raw[index])}
        else:
            # One more than may be is enough to be refused.
            given["data"] = list(_texts(tensor.name, tensor.contents.bytes_contents[: most + 1]))
        inputs.append(given)
    outputs = [{"name": one.name, "parameters": parameters(one.parameters)} for one in message.outputs]
    body = {"inputs": inputs, "parameters": parameters(message.parameters), "outputs": outputs or None}
    if message.id:
        body["id"] = message.id
    return validate(InferRequest, body, settings), b"".join(raw)


def _check_structure(message: Any) -> None:
    """Counts are asked before anything is taken out of a message: it may hold millions of empty tensors."""
    tensors = len(message.inputs) > MOST_INPUTS or len(message.raw_input_contents) > MOST_INPUTS
    if tensors or len(message.outputs) > MOST_OUTPUTS or len(message.parameters) > MOST_FIELDS:
        raise InvalidRequest("more inputs, outputs or parameters than any model takes")
    if any(len(one.shape) > MOST_DIMENSIONS for one in message.inputs):
        raise InvalidRequest(f"inputs: a shape of more than {MOST_DIMENSIONS} dimensions")
    if any(len(one.parameters) > MOST_FIELDS for one in (*message.inputs, *message.outputs)):
        raise InvalidRequest("parameters: more than any tensor has")


def infer_response(
    kind: type[Any], said: Mapping[str, str], outputs: Seq[Tensor], wanted: Seq[RequestedOutput] | None, *, raw: bool
) -> Any:
    """``raw``: values as bytes, as the request had its own."""
    answer = kind(**said)
    for tensor in requested(outputs, wanted):
        shown = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            answer.raw_output_contents.append(tensor.in_binary()[1])
        else:
            texts = tensor.datatype == "BYTES"
            values = [value.encode(errors="replace") for value in tensor.values] if texts else tensor.values
            getattr(shown.contents, CONTENTS[tensor.datatype]).extend(values)
    return answer


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in given.items()}


def _texts(name: str, elements: Seq[bytes]) -> Iterator[str]:
    for element in elements:
        try:
            yield element.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"inputs: {name[:64]}: an element is not UTF-8") from None

"""A graph of one node on the card that the stand-in plays, and what its result is compared with.

Import it before onnxruntime, as ``standin``.
"""

from collections.abc import Callable
from typing import Any

from tests.cuda import standin

# isort: split
# The stand-in comes first: it loads the libraries that onnxruntime then finds.
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
MICROSOFT = "com.microsoft"
TOLERANCES = {"float16": 4e-3, "float32": 2e-5}  # relative to the largest magnitude of the result

random = np.random.default_rng(0)
failures: list[str] = []


def numbers(kind: str, *shape: int) -> Array:
    return random.standard_normal(shape).astype(kind)


def report(name: str, passed: bool, note: str = "") -> None:
    print(f"{'ok    ' if passed else 'FAILED'} {name}{': ' if note else ''}{note}")
    if not passed:
        failures.append(name)


def session(node: onnx.NodeProto, feeds: dict[str, Array], weights: dict[str, Array], **options: Any) -> Any:
    """The node alone as a graph on the card."""

    def info(name: str, array: Array) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)

    graph = helper.make_graph(
        [node],
        "one",
        [info(*item) for item in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 10
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what fails is raised, too
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [("CUDAExecutionProvider", options)]
    # With a fallback the session would be made anew on the CPU.
    return ort.InferenceSession(model.SerializeToString(), settings, providers=providers, enable_fallback=False)


def run(node: onnx.NodeProto, feeds: dict[str, Array], weights: dict[str, Array] | None = None) -> list[Array]:
    found: list[Array] = session(node, feeds, weights or {}).run(None, feeds)
    return found


def compare(
    name: str,
    node: onnx.NodeProto,
    feeds: dict[str, Array],
    weights: dict[str, Array],
    wanted: Callable[..., Any],
) -> None:
    """``wanted`` takes feeds and weights in their order, floats in float32, and returns what numpy says."""
    standin.computing(True)
    values = [*feeds.values(), *weights.values()]
    expected = wanted(*(value.astype(np.float32) if value.dtype.kind == "f" else value for value in values))
    expected = expected if isinstance(expected, list) else [expected]
    found = run(node, feeds, weights)
    error = max(
        float(np.abs(a.astype(np.float32) - b).max() / max(np.abs(b).max(), 1e-9))
        for a, b in zip(found, expected, strict=True)
    )
    kind = next(value.dtype.name for value in feeds.values() if value.dtype.kind == "f")
    unknown = "".join(standin.uncomputed_names())
    right = error <= TOLERANCES[kind] and all(a.shape == b.shape for a, b in zip(found, expected, strict=True))
    report(
        f"{name} {kind}", right and not unknown, f"error {error:.1e}{'; not computed: ' if unknown else ''}{unknown}"
    )

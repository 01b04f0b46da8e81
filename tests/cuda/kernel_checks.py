"""Each kernel that the stand-in computes, against numpy."""

import itertools
import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from tests.cuda import standin
from tests.cuda.checking import MICROSOFT, Array, compare, numbers

TOKENS, STARTS = 21, (0, 9, 14, 21)


def normalized(x: Array, scale: Array, shift: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * scale + shift
    return result


def gelu(x: Array) -> Array:
    result: Array = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return result


def gelu_by_tanh(x: Array) -> Array:
    result: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return result


def attended(q: Array, k: Array, v: Array, heads: int) -> Array:
    out, size = np.zeros_like(v), q.shape[1] // heads
    for start, end in itertools.pairwise(STARTS):
        for at in (slice(head * size, (head + 1) * size) for head in range(heads)):
            shares = np.exp(q[start:end, at] @ k[start:end, at].T / math.sqrt(size))
            out[start:end, at] = shares / shares.sum(-1, keepdims=True) @ v[start:end, at]
    return out


def check_elementwise(kind: str) -> None:
    x, y = numbers(kind, TOKENS, 64), numbers(kind, TOKENS, 64)
    binaries: dict[str, Callable[[Array, Array], Array]] = {"Add": np.add, "Mul": np.multiply, "Min": np.minimum}
    for op, function in binaries.items():
        node = helper.make_node(op, ["x", "y"], ["out"])
        compare(op, node, {"x": x, "y": y}, {}, lambda x, y, f=function: f(x, y))
        six = np.array(0.6, kind)
        compare(f"{op} a scalar", node, {"x": x}, {"y": six}, lambda x, y, f=function: f(x, y))
    unaries: dict[str, Callable[[Array], Array]] = {
        "Tanh": np.tanh,
        "Sigmoid": lambda x: np.asarray(1 / (1 + np.exp(-x))),
        "Relu": lambda x: np.maximum(x, 0),
        "LeakyRelu": lambda x: np.where(x > 0, x, 0.01 * x),
        "Gelu": gelu,
        "Identity": lambda x: x,
    }
    for op, unary in unaries.items():
        compare(op, helper.make_node(op, ["x"], ["out"]), {"x": x}, {}, unary)
    for alpha in (1.0, 1.702):
        node = helper.make_node("QuickGelu", ["x"], ["out"], domain=MICROSOFT, alpha=alpha)
        compare(f"QuickGelu of {alpha}", node, {"x": x}, {}, lambda x, a=alpha: np.asarray(x / (1 + np.exp(-a * x))))
    other = TensorProto.FLOAT if kind == "float16" else TensorProto.FLOAT16
    cast = helper.make_node("Cast", ["x"], ["out"], to=other)
    compare("Cast from", cast, {"x": x}, {}, lambda x: x.astype(np.float16).astype(np.float32))


def check_dense(kind: str) -> None:
    x, weight, bias = numbers(kind, TOKENS, 64), numbers(kind, 64, 192), numbers(kind, 192)
    compare("MatMul", helper.make_node("MatMul", ["x", "w"], ["out"]), {"x": x}, {"w": weight}, lambda x, w: x @ w)
    compare("Gemm", helper.make_node("Gemm", ["x", "w"], ["out"]), {"x": x}, {"w": weight}, lambda x, w: x @ w)
    with_bias = helper.make_node("Gemm", ["x", "w", "b"], ["out"])
    compare("Gemm with bias", with_bias, {"x": x}, {"w": weight, "b": bias}, lambda x, w, b: x @ w + b)
    turned = helper.make_node("Gemm", ["x", "w", "b"], ["out"], transB=1)
    weights = {"w": numbers(kind, 37, 64), "b": numbers(kind, 37)}
    compare("Gemm turned", turned, {"x": x}, weights, lambda x, w, b: x @ w.T + b)
    for op, function in {"BiasGelu": gelu, "FastGelu": gelu_by_tanh}.items():
        for width in (37, 64, 3072):
            node = helper.make_node(op, ["x", "b"], ["out"], domain=MICROSOFT)
            feeds, weights = {"x": numbers(kind, TOKENS, width)}, {"b": numbers(kind, width)}
            compare(f"{op} of {width}", node, feeds, weights, lambda x, b, f=function: f(x + b))


def check_norms(kind: str) -> None:
    for width in (30, 64, 312, 768, 4096):
        feeds = {"x": numbers(kind, TOKENS, width)}
        weights = {"g": numbers(kind, width), "b": numbers(kind, width)}
        plain = helper.make_node("LayerNormalization", ["x", "g", "b"], ["out"], axis=-1, epsilon=1e-12)
        compare(f"LayerNormalization of {width}", plain, feeds, weights, lambda x, g, b: normalized(x, g, b))
        skip = helper.make_node(
            "SkipLayerNormalization", ["x", "s", "g", "b", "c"], ["out"], domain=MICROSOFT, epsilon=1e-12
        )
        feeds["s"], weights["c"] = numbers(kind, TOKENS, width), numbers(kind, width)
        name = f"SkipLayerNormalization of {width}"
        compare(name, skip, feeds, weights, lambda x, s, g, b, c: normalized(x + s + c, g, b))


def check_movement(kind: str) -> None:
    gather = helper.make_node("Gather", ["x", "i"], ["out"])
    rows = np.array([3, 0, 20, 3], np.int32)
    concat = helper.make_node("Concat", ["x", "y"], ["out"], axis=0)
    for width in (5, 64, 768):
        x = numbers(kind, TOKENS, width)
        compare(f"Gather of {width}", gather, {"x": x, "i": rows}, {}, lambda x, i: x[i])
        for other in (1, 5, TOKENS):
            feeds = {"x": x, "y": numbers(kind, other, width)}
            compare(f"Concat of {width}, {other}", concat, feeds, {}, lambda x, y: np.concatenate([x, y]))
    for width in (5, 64, 768):
        split = helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3)
        feeds = {"x": numbers(kind, TOKENS, 3 * width)}
        compare(f"Split of {width}", split, feeds, {}, lambda x: np.split(x, 3, 1))


def check_attention(kind: str, version: int) -> None:
    standin.capability(version)
    rows, longest = len(STARTS) - 1, max(np.diff(STARTS))
    places = np.arange(rows * longest, dtype=np.int32).reshape(rows, longest)
    real = np.arange(longest) < np.diff(STARTS)[:, None]
    offsets = np.concatenate([places[real], places[~real]]).reshape(rows, longest)
    fixed = {"o": offsets, "c": np.array(STARTS, np.int32)}
    for width in (20, 24, 48, 64, 128, 256):
        feeds = {name: numbers(kind, TOKENS, width) for name in "qkv"} | fixed
        for bias in ({}, {"b": numbers(kind, 3 * width)}):

            def wanted(q: Array, k: Array, v: Array, offsets: Array, starts: Array, *bias: Array) -> Array:
                parts = np.split(bias[0], 3) if bias else [0, 0, 0]
                return attended(q + parts[0], k + parts[1], v + parts[2], 4)

            inputs = ["q", "k", "v", "b" if bias else "", "o", "c"]
            node = helper.make_node("PackedMultiHeadAttention", inputs, ["out"], domain=MICROSOFT, num_heads=4)
            name = f"PackedMultiHeadAttention of {width}{' with bias' if bias else ''} on {version}"
            compare(name, node, feeds, bias, wanted)
    standin.reset()


def check_all() -> None:
    for kind in ("float16", "float32"):
        for check in (check_elementwise, check_dense, check_norms, check_movement):
            check(kind)
    for version in (75, 80, 86, 90):
        check_attention("float16", version)
        check_attention("float32", version)

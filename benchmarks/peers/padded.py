"""The model as peers run it: texts padded to the longest of a batch, through the plain ONNX export or PyTorch.

``MODEL`` is a folder with ``padded.onnx``, the checkpoint and its tokenizer; ``THREADS`` the cores; ``RUNTIME`` one of
``RUNTIMES``, of which those in eight bits run what ``quantized.py`` made.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tokenizers

MODEL = Path(os.environ["MODEL"])
THREADS = int(os.environ.get("THREADS", "2"))
BATCH = int(os.environ.get("BATCH", "1"))  # the most that a batch may hold; 1 is no batching
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids and mask (rows, longest) -> logits
WAIT = 0.01  # seconds that a batch waits to fill up, where a peer wants such a time; it is what most of them advise


def _onnxruntime(name: str) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(MODEL / name), options)
    return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})[0]


def _openvino(name: str, precision: str) -> Run:
    import openvino as ov

    hints = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = ov.Core().compile_model(str(MODEL / name), "CPU", hints).create_infer_request()
    return lambda ids, mask: next(iter(request.infer({"ids": ids, "mask": mask}).values()))


RUNTIMES: dict[str, Callable[[], Run]] = {
    "onnxruntime": lambda: _onnxruntime("padded.onnx"),
    "onnxruntime int8": lambda: _onnxruntime("padded.int8.onnx"),
    "openvino": lambda: _openvino("padded.onnx", "f32"),
    "openvino bfloat16": lambda: _openvino("padded.onnx", "bf16"),
    "openvino int8": lambda: _openvino("padded.nncf.xml", "f32"),
}


class Padded:
    def __init__(self) -> None:
        self.tokenizer = _tokenizer()
        self.run = RUNTIMES[os.environ.get("RUNTIME", "onnxruntime")]()

    def __call__(self, texts: list[str]) -> list[dict[str, float]]:
        return _labels(self.run(*_padded(self.tokenizer, texts)))


class Torch:
    def __init__(self) -> None:
        import torch
        from transformers import AlbertForSequenceClassification

        torch.set_num_threads(THREADS)
        self.torch, self.tokenizer = torch, _tokenizer()
        self.model = AlbertForSequenceClassification.from_pretrained(MODEL).eval()

    def __call__(self, texts: list[str]) -> list[dict[str, float]]:
        ids, mask = (self.torch.from_numpy(array) for array in _padded(self.tokenizer, texts))
        with self.torch.inference_mode():
            return _labels(self.model(ids, attention_mask=mask).logits.numpy())


def _tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    return tokenizer


def _padded(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = tokenizer.encode_batch(texts)
    ids, mask = (np.array([getattr(one, name) for one in encoded]) for name in ("ids", "attention_mask"))
    return ids.astype(np.int64), mask.astype(np.int64)


def _labels(logits: np.ndarray) -> list[dict[str, float]]:
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    return [{"negative": float(row[0]), "positive": float(row[1])} for row in scores]

"""The model as peers run it: texts padded to the longest of a batch, through the plain ONNX export or PyTorch.

``MODEL`` is a folder with ``padded.onnx``, the checkpoint and its tokenizer; ``THREADS`` the cores.
"""

import os
from pathlib import Path

import numpy as np
import tokenizers

MODEL = Path(os.environ["MODEL"])
THREADS = int(os.environ.get("THREADS", "2"))
BATCH = int(os.environ.get("BATCH", "1"))  # the most that a batch may hold; 1 is no batching
WAIT = 0.01  # seconds that a batch waits to fill up, where a peer wants such a time; it is what most of them advise


class Padded:
    def __init__(self) -> None:
        import onnxruntime as ort

        self.tokenizer = _tokenizer()
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = ort.InferenceSession(str(MODEL / "padded.onnx"), options)

    def __call__(self, texts: list[str]) -> list[dict[str, float]]:
        ids, mask = _padded(self.tokenizer, texts)
        return _labels(self.session.run(None, {"ids": ids, "mask": mask})[0])


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

"""The plain export in eight bits, as those who make the runtimes advise: ``padded.int8.onnx`` by ONNX Runtime's dynamic
quantization, ``padded.nncf.xml`` by NNCF for OpenVINO, calibrated on sentences.

    python quantized.py CHECKPOINT < sentences.json
"""

import json
import sys
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
import tokenizers
from onnxruntime.quantization import QuantType, quantize_dynamic

folder, texts = Path(sys.argv[1]), json.load(sys.stdin)
export = folder / "padded.onnx"
quantize_dynamic(export, folder / "padded.int8.onnx", weight_type=QuantType.QInt8, per_channel=True)

tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def fed(text: str) -> dict[str, np.ndarray]:
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    return {"ids": ids, "mask": np.ones_like(ids)}


model = nncf.quantize(ov.Core().read_model(export), nncf.Dataset(texts, fed), model_type=nncf.ModelType.TRANSFORMER)
ov.save_model(model, folder / "padded.nncf.xml")

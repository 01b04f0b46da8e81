"""The graphs that belong to no model: see ``conversion/small_graphs.py``, which writes them."""

from pathlib import Path

FOLDER = Path(__file__).with_name("small_graphs")


def small_graph(name: str) -> bytes:
    return (FOLDER / f"{name}.onnx").read_bytes()

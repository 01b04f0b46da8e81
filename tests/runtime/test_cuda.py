"""The CUDA path against the CPU.  Skipped where there is no CUDA; ``make gpu-check`` runs it and says so."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service.conversion.texts import inputs
from service.conversion.verify import TOLERANCE
from service.repository.store import read_files, read_manifest, versions
from service.runtime.providers import choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load, make_model
from service.tasks.classification import Classification
from service.types import Sequence
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="this onnxruntime has no CUDA"
)
SHIPPED = [ROOT / "model_repo" / name / str(max(numbers)) for name, numbers in versions(ROOT / "model_repo").items()]


def rows(engine: Engine) -> list[Sequence]:
    if isinstance(engine.task, Classification):
        return [row for text in inputs() for row in engine.task.encode(text).sequences]
    return [row for text in inputs() for row in engine.task.encode("Who repaired the clock?", [text]).sequences]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_half_precision_on_cuda_answers_as_float32_on_the_cpu(folder: Path) -> None:
    cuda = load(folder, LoadOptions(choose("cuda")))
    manifest = read_manifest(folder)
    cpu = make_model(read_files(folder, manifest), manifest, choose("cpu"), "float32")
    given = rows(cuda)

    for wanted, alone, packed in zip(
        cpu.run(given), (cuda.run([row])[0] for row in given), cuda.run(given), strict=True
    ):
        slack = TOLERANCE["float16"] * max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(alone, wanted, atol=slack)
        np.testing.assert_allclose(packed, wanted, atol=slack)

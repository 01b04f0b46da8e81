"""Loading, warming up, and where text work is done."""

import shutil
import threading
from pathlib import Path

import pytest

from service.errors import RepositoryError
from service.runtime.providers import choose
from service.serving.engine import LONG_TEXT, load
from tests.fakes import light_engine


async def _thread(engine_size: int) -> bool:
    engine = light_engine()
    try:
        return await engine.text_work(engine_size, threading.get_ident) == threading.get_ident()
    finally:
        engine.close()


@pytest.mark.anyio
async def test_long_texts_leave_the_loop_and_short_ones_stay() -> None:
    assert await _thread(LONG_TEXT)
    assert not await _thread(LONG_TEXT + 1)


def test_a_version_loads_warm_and_answers(repository: Path) -> None:
    engine = load(repository / "sentiment" / "1", choose("cpu"), budget=77)
    (logits,) = engine.run(engine.task.encode("It was not good.").sequences)  # type: ignore[call-arg]

    assert engine.budget == 77
    assert logits.shape == (2,)
    assert sum(engine.cost.coefficients) > 0


@pytest.mark.parametrize("file", ["weights.bin", "layers.cpu.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_version_with_a_missing_or_changed_file_is_refused_by_name(
    repository: Path, tmp_path: Path, file: str, damage: str
) -> None:
    folder = tmp_path / "sentiment" / "1"
    shutil.copytree(repository / "sentiment" / "1", folder)
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:-1] + b"!")

    with pytest.raises(RepositoryError, match=file):
        load(folder, choose("cpu"))

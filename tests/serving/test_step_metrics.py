"""What is counted of a step, and that counting keeps nobody waiting."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.errors import InferenceFailed, ServiceError
from service.metrics import Metrics
from service.serving.device_loop import DeviceLoop
from service.serving.step_metrics import Step, count_step
from service.serving.stepping import Progress, Stepping
from service.serving.submission import submit
from tests.fakes import FakeRunner, ManualClock, row
from tests.serving.callers import FAR, a_second_each, answers, ask, of_fake, value, working

pytestmark = pytest.mark.anyio
LOGITS = np.zeros(1, dtype=np.float32)


@pytest.fixture
async def device(anyio_backend: str) -> AsyncIterator[DeviceLoop]:
    async with working() as started:
        yield started


async def test_a_step_is_counted() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        runner = FakeRunner(fails=a_second_each(clock))
        await submit(device, runner, [row(3), row(5), row(10)], deadline=FAR)
        assert of_fake(device, "steps_total") == 1
        assert of_fake(device, "step_sequences_sum") == 3
        assert of_fake(device, "step_tokens_sum") == 18
        assert of_fake(device, "padding_avoided_tokens_total") == 3 * 10 - 18
        assert of_fake(device, "layers_total", fate="run") == 18
        assert of_fake(device, "token_budget") == 64
        assert value(device, "device_busy_seconds_total") == 1.0
        assert of_fake(device, "cost_seconds", coefficient="per_token") == pytest.approx(1 / 18)
        assert of_fake(device, "cost_seconds", coefficient="per_step") == 0.0


def test_those_that_left_those_that_go_on_and_those_that_failed_are_told_apart() -> None:
    metrics, runner = Metrics(CollectorRegistry()), FakeRunner(stepping=Stepping(12))
    after: list[Progress | ServiceError] = [
        Progress(row(10), depth=4, logits=LOGITS),
        Progress(row(20), depth=12, logits=LOGITS),
        Progress(row(30), depth=4),
        InferenceFailed("no"),
    ]
    count_step(metrics, Step(runner, [], [10, 20, 30, 40], after, 240, 0.5))

    def seen(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"albert_{name}", {"model": "fake", "version": "1"} | labels)

    assert seen("layers_total", fate="run") == 240
    assert seen("layers_total", fate="saved") == 10 * 8
    assert [seen("exited_sequences_total", depth=depth) for depth in ("4", "12")] == [1, 1]
    assert seen("failed_sequences_total") == 1


@pytest.mark.parametrize("broken", ["steps", "queue_tokens", "failed"])
async def test_a_metric_that_fails_keeps_nobody_waiting(
    device: DeviceLoop, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    runner = FakeRunner(fails=lambda rows: monkeypatch.setattr(device.metrics, broken, None))
    assert await answers(ask(device, runner, [1, 2])) == [1, 2]
    monkeypatch.undo()
    assert await answers(ask(device, FakeRunner(), [3])) == [3]

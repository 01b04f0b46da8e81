"""One request's way through the device: its promise, its place in the queue, its answers."""

import asyncio
from collections.abc import Sequence as Seq

from ..errors import QueueFull, TooLarge, Unavailable
from ..logs import request_id
from ..types import Priority, Sequence, StepRun, Timings
from .admission import Reservation, late
from .device_loop import DeviceLoop
from .pending import Outcome, PendingRequest, Runner
from .queue import estimate

PART = 64  # sequences that are queued before the event loop gets its turn


async def submit(
    device: DeviceLoop, runner: Runner, rows: Seq[Sequence], *, deadline: float, reservation: Reservation | None = None,
    priority: Priority = Priority.INTERACTIVE, early_exit: bool = True, max_queue_tokens: int = 2**62,
    steps: list[StepRun] | None = None,
) -> tuple[list[Outcome], Timings]:  # fmt: skip
    """Each row's logits, or the error that it alone failed with, and where the time went.

    ``deadline`` is on the device's clock; without ``early_exit`` all layers run.  QueueFull, TooLarge or
    DeadlineExceeded at once where the rows cannot be served in time; DeadlineExceeded later where the deadline passes.
    Cancelling the caller drops the work.  A ``reservation`` stays the caller's to release.  ``steps`` gets the batch
    steps that it was in.
    """
    if device.down:
        raise Unavailable(f"{device.down}; try again in a moment")
    if reservation is None:
        reservation = device.admission.reserve("", 0.0, deadline)
        try:
            return await submit(
                device, runner, rows, deadline=deadline, reservation=reservation, priority=priority,
                early_exit=early_exit, max_queue_tokens=max_queue_tokens, steps=steps,
            )  # fmt: skip
        finally:
            device.admission.release(reservation)
    _check_room(device, sum(map(len, rows)), max_queue_tokens)
    device.admission.resize(reservation, estimate(runner, rows, early_exit), deadline)
    loop, arrived = asyncio.get_running_loop(), device.clock()
    request = PendingRequest(
        runner, loop.create_future(), [None] * len(rows), reservation, request_id.get(), arrived=arrived,
        steps=steps,
    )  # fmt: skip
    device.admission.submitted(reservation, request)
    try:
        async with asyncio.timeout(deadline - arrived):
            for start in range(0, len(rows), PART):
                part = enumerate(rows[start : start + PART], start)
                request.keys += device.queue.add(
                    request, part, now=device.clock(), priority=priority, early_exit=early_exit
                )
                if start + PART < len(rows):
                    await asyncio.sleep(0)  # a long list must not hold up the others
            device.set_gauges()
            await request.done
    except TimeoutError:
        _drop(device, request, "deadline")
        raise late() from None
    finally:
        _drop(device, request, "cancelled")
    return [outcome for outcome in request.outcomes if outcome is not None], request.timings


def _check_room(device: DeviceLoop, tokens: int, most: int) -> None:
    if tokens > most:
        device.metrics.refused.labels("too_large").inc()
        raise TooLarge(f"the request has {tokens} tokens, and at most {most} may wait: send it in parts")
    if device.queue.tokens + tokens > most:
        device.metrics.refused.labels("queue").inc()
        raise QueueFull(
            "too many tokens wait for the device already (max_queue_tokens); come back after Retry-After",
            max(1.0, device.admission.promised),
        )


def _drop(device: DeviceLoop, request: PendingRequest, reason: str) -> None:
    """Forget those of its sequences that are still open."""
    dropped = device.queue.drop(request.keys)
    if dropped:
        device.metrics.dropped.labels(reason).inc(dropped)
        device.set_gauges()
    if not request.done.done():
        request.done.cancel()
    elif not request.done.cancelled():
        request.done.exception()  # read by nobody else where the caller left, and asyncio would complain

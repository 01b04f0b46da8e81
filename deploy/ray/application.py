"""The service as a Ray Serve application: each replica is one engine with its queue, and a part of a GPU where wanted.

    serve run application:application gpus=0.25 max_replicas=8

Settings are those of the service, from ALBERT_SERVE_* in the replicas' environment.  Replicas are added by the tokens
that wait in their queues and by the share of time in which their devices run, as deploy/k8s does it with KEDA.

Source: custom autoscaling, https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html.
"""

import math
import time
from typing import Any

import ray
from albert_serve.api.app import create_app
from albert_serve.api.launch import read_settings
from albert_serve.api.lifecycle import Lifecycle
from fastapi import FastAPI
from pydantic import BaseModel, Field
from ray import serve
from ray.serve.config import AutoscalingContext

BUSY = 0.75  # of the time a device runs: one that runs more gets help
REQUESTS = 1024  # that a replica takes at once: its own queue says no sooner, with when to come back


class Options(BaseModel):
    """What ``serve run`` takes as NAME=VALUE, and ``args`` of a configuration."""

    cpus: float = Field(2, gt=0, description="CPU cores of a replica.")
    gpus: float = Field(0, ge=0, description="GPUs of a replica, such as 0.25; set cuda_memory_mb to its part, too.")
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(4, ge=1)
    queue_tokens: int = Field(8192, ge=1, description="Tokens that may wait for each replica before one is added.")
    upscale_delay_s: float = Field(15, ge=0)
    downscale_delay_s: float = Field(300, ge=0)


def build() -> FastAPI:
    life, given = Lifecycle(), read_settings({})
    # Ray's proxy listens and Ray starts the replicas: what is the service's own server's is left out here.
    cpus = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
    own = {"workers": 1, "grpc_port": None, "admin_port": None, "threads": given.threads or max(1, cpus)}
    app = create_app(given.model_copy(update=own), life=life)
    app.state.life = life
    return app


@serve.deployment(name="albert", max_ongoing_requests=REQUESTS, health_check_period_s=5, health_check_timeout_s=30)
@serve.ingress(build)
class Replica:
    app: FastAPI  # as ``serve.ingress`` gives it

    def __init__(self) -> None:
        self._before = (time.monotonic(), 0.0)

    async def check_health(self) -> None:
        """Asked before the first request, and then now and again.  RuntimeError: this replica is to be replaced."""
        service, life = self.app.state.service, self.app.state.life
        await service.registry.wait()
        if life.exit_code or (service.device.down and life.ending):
            raise RuntimeError(service.device.down or "the device computes nothing")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        registry = self.app.state.service.metrics.registry
        now, busy = time.monotonic(), registry.get_sample_value("albert_device_busy_seconds_total") or 0.0
        (before, then), self._before = self._before, (now, busy)
        share = min(1.0, max(0.0, (busy - then) / max(now - before, 1e-3)))
        return {"queue_tokens": float(self.app.state.service.device.queue.tokens), "device_busy": share}


class ByQueueTokens:
    """As many replicas as the waiting tokens and the busy devices ask for; Ray keeps to its bounds and delays."""

    def __init__(self, queue_tokens: int) -> None:
        self.queue_tokens = queue_tokens

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        found = context.aggregated_metrics or {}
        tokens, busy = (sum(found.get(name, {}).values()) for name in ("queue_tokens", "device_busy"))
        return max(1, math.ceil(tokens / self.queue_tokens), math.ceil(busy / BUSY)), {}


def application(options: Options) -> serve.Application:
    scaling = {
        "min_replicas": options.min_replicas, "initial_replicas": options.min_replicas,
        "max_replicas": options.max_replicas,
        "upscale_delay_s": options.upscale_delay_s, "downscale_delay_s": options.downscale_delay_s,
        "metrics_interval_s": 1, "look_back_period_s": 10,
        "policy": {"policy_function": ByQueueTokens, "policy_kwargs": {"queue_tokens": options.queue_tokens}},
    }  # fmt: skip
    actor = {"num_cpus": options.cpus, "num_gpus": options.gpus}
    return Replica.options(autoscaling_config=scaling, ray_actor_options=actor).bind()

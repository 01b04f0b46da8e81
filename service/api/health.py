"""``GET /health/live``, ``GET /health/ready`` and ``GET /metrics``."""

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from service.api.service import Service

router = APIRouter(tags=["operations"])


@router.get("/health/live", summary="Is the process alive")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get("/health/ready", summary="Can it answer", responses={503: {"description": "not yet, or no more"}})
async def ready(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    problem = obstacle(service)
    service.metrics.ready.set(0 if problem else 1)
    models = [str(engine.ref) for engine in service.registry.engines()]
    body: dict[str, Any] = {"status": "not ready" if problem else "ready", "models": models}
    body |= {"reason": problem} if problem else {}
    body |= {"failures": {str(ref): why for ref, why in service.registry.failures.items()}}
    return JSONResponse(body, 503 if problem else 200, {"Retry-After": "1"} if problem else {})


def obstacle(service: Service) -> str:
    """Why the service cannot answer; empty where it can."""
    if not service.worker.healthy:
        return "the device is down"
    if not service.registry.synced:
        return "the models are being loaded"
    if not service.registry.engines():
        return f"no model could be loaded from {service.settings.model_repo}"
    return ""


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    service.metrics.ready.set(0 if obstacle(service) else 1)
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

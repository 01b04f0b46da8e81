"""``GET /health/live``, ``GET /health/ready`` and ``GET /metrics``."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from .schemas import Liveness, Readiness
from .service import Service

router = APIRouter(tags=["operations"])


@router.get("/health/live", response_model=Liveness, summary="Is the process alive")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get(
    "/health/ready", response_model=Readiness, summary="Can it answer",
    responses={503: {"model": Readiness, "description": "not yet, or no more"}},
)  # fmt: skip
async def ready(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    reason = service.not_ready_reason()
    service.metrics.ready.set(0 if reason else 1)
    models = [str(engine.ref) for engine in service.registry.engines()]
    body: dict[str, Any] = {"status": "not ready" if reason else "ready", "models": models}
    body |= {"reason": reason} if reason else {}
    body |= {"failures": {str(ref): why for ref, why in service.registry.failures.items()}}
    return JSONResponse(body, 503 if reason else 200, {"Retry-After": "1"} if reason else {})


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    service.metrics.ready.set(0 if service.not_ready_reason() else 1)
    page, kind = service.metrics.page(request.headers.get("accept", ""))
    return Response(page, media_type=kind)

"""``GET /models`` and ``GET /models/{name}``: what is loaded, and what its manifests say."""

from typing import Any

from fastapi import APIRouter, Request

from .schemas import ErrorBody, ModelList, ModelVersions
from .service import Service

router = APIRouter(tags=["models"])


BUSY: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in (401, 429)}
NO_MODEL: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in (404, 422)}


@router.get("/models", responses=BUSY, response_model=ModelList, summary="What is loaded, and what failed to load")
async def list_models(request: Request) -> dict[str, Any]:
    service: Service = request.app.state.service
    models = [
        {
            "name": e.ref.name,
            "version": e.ref.version,
            "task": e.manifest.task,
            "labels": e.manifest.labels,
            "precision": e.precision,
        }
        for e in service.registry.engines()
    ]
    failures = [
        {"name": ref.name, "version": ref.version, "reason": reason}
        for ref, reason in service.registry.failures.items()
    ]
    return {"models": models, "failures": failures}


@router.get(
    "/models/{name}", responses=BUSY | NO_MODEL, response_model=ModelVersions, summary="The manifests of one model"
)
async def show_model(name: str, request: Request) -> dict[str, Any]:
    service: Service = request.app.state.service
    engines = [engine for engine in service.registry.engines() if engine.ref.name == name]
    if not engines:
        raise service.registry.missing(name)
    versions = [
        engine.manifest.model_dump(mode="json")
        | {"device": str(engine.device), "token_budget": engine.budget, "served_precision": engine.precision}
        for engine in engines
    ]
    return {"name": name, "versions": versions}

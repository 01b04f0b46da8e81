"""Health, facts and the repository by the Open Inference Protocol, version 2."""

import time
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from pydantic import Field
from starlette.responses import JSONResponse

from .. import __version__
from ..errors import Unavailable
from ..serving.engine import Engine
from .body import parse_json, read_body
from .open_inference import VERSION, PlainError
from .route import validate
from .schemas import Body
from .service import Service

router = APIRouter(tags=["open inference protocol"], prefix="/v2")
EXTENSIONS = ["binary_tensor_data", "model_repository", "parameters"]
HTTP_EXTENSIONS = [*EXTENSIONS, "model_configuration"]
NOT_THERE: dict[int | str, dict[str, Any]] = {
    status: {"model": PlainError} for status in (401, 403, 404, 422, 429, 503)
}
Shape = tuple[str, str, list[int]]
# By task; others are not spoken here, and have routes of their own.
INPUTS: dict[str, list[Shape]] = {
    "text-classification": [("text", "BYTES", [-1]), ("text_pair", "BYTES", [-1])],
    "question-answering": [("question", "BYTES", [1]), ("context", "BYTES", [-1])],
    "feature-extraction": [("text", "BYTES", [-1])],
}
OUTPUTS: dict[str, list[Shape]] = {
    "text-classification": [("label", "BYTES", [-1, -1]), ("score", "FP32", [-1, -1])],
    "feature-extraction": [("embedding", "FP32", [-1, -1])],
    "question-answering": [
        ("answer", "BYTES", [-1]), ("score", "FP32", [-1]), ("start", "INT64", [-1]), ("end", "INT64", [-1]),
        ("document", "INT64", [-1]), ("no_answer_score", "FP32", [1]), ("unread", "INT64", [1]),
    ],
}  # fmt: skip
OPTIONAL = "text_pair"


class IndexRequest(Body):
    ready: bool = Field(False, description="Only versions that are loaded.")


def add_routes(app: FastAPI) -> None:
    app.include_router(router)


@router.get("", responses=NOT_THERE, summary="The server and its extensions")
async def server_metadata() -> dict[str, Any]:
    return server_facts(HTTP_EXTENSIONS)


@router.get("/health/live", summary="Is the process alive")
async def server_live() -> dict[str, bool]:
    return {"live": True}


@router.get("/health/ready", summary="Can it answer", responses={503: {"description": "not yet, or no more"}})
async def server_ready(request: Request) -> JSONResponse:
    reason = _service(request).not_ready_reason()
    return JSONResponse({"ready": not reason} | ({"reason": reason} if reason else {}), 503 if reason else 200)


@router.get("/models/{name}", responses=NOT_THERE, summary="A model's tensors")
async def model_metadata(name: str, request: Request) -> dict[str, Any]:
    return model_facts(_service(request), name, None)


@router.get(f"/models/{{name}}{VERSION}", responses=NOT_THERE, summary="A version's tensors")
async def version_metadata(name: str, version: int, request: Request) -> dict[str, Any]:
    return model_facts(_service(request), name, version)


@router.get("/models/{name}/ready", responses=NOT_THERE, summary="Is a model loaded")
async def model_ready(name: str, request: Request) -> dict[str, Any]:
    return readiness(_service(request), name, None)


@router.get(f"/models/{{name}}{VERSION}/ready", responses=NOT_THERE, summary="Is a version loaded")
async def version_ready(name: str, version: int, request: Request) -> dict[str, Any]:
    return readiness(_service(request), name, version)


@router.get("/models/{name}/config", responses=NOT_THERE, summary="A model's tensors as Triton configures them")
async def model_config(name: str, request: Request) -> dict[str, Any]:
    return configuration(_versions(_service(request), name, None)[-1])


@router.get(f"/models/{{name}}{VERSION}/config", responses=NOT_THERE, summary="The same of a version")
async def version_config(name: str, version: int, request: Request) -> dict[str, Any]:
    return configuration(_versions(_service(request), name, version)[-1])


@router.post("/repository/index", responses=NOT_THERE, summary="What is loaded, and what failed to load")
async def repository_index(request: Request) -> list[dict[str, str]]:
    """The body may be absent.  ``ready``: only what is loaded."""
    service, settings = _service(request), _service(request).settings
    body = await read_body(request, service.bodies, service.life, time.monotonic() + settings.body_seconds)
    asked = validate(IndexRequest, await parse_json(body), settings) if body else IndexRequest()
    return index(service, ready=asked.ready)


@router.post("/repository/models/{name}/load", responses=NOT_THERE, summary="Look for a model at once, and load it")
async def load_model(name: str, request: Request) -> dict[str, Any]:
    """The body is left alone: what is loaded is what the repository has."""
    service = _service(request)
    await service.registry.load(name)
    return {"name": name, "versions": [str(engine.ref.version) for engine in _versions(service, name, None)]}


@router.post("/repository/models/{name}/unload", responses=NOT_THERE, summary="Let a model go until it is loaded again")
async def unload_model(name: str, request: Request) -> dict[str, Any]:
    await _service(request).registry.unload(name)
    return {"name": name}


def server_facts(extensions: list[str]) -> dict[str, Any]:
    return {"name": "albert-serve", "version": __version__, "extensions": extensions}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _versions(service: Service, name: str, version: int | None) -> list[Engine]:
    """The loaded versions, oldest first.  ModelNotFound where there is none."""
    engines = service.registry.named(name)
    found = [one for one in engines if version is None or one.ref.version == version]
    if not found:
        raise service.registry.missing(name, version)
    return found


def readiness(service: Service, name: str, version: int | None) -> dict[str, Any]:
    """ModelNotFound where it is not loaded, Unavailable where nothing can answer."""
    engine = _versions(service, name, version)[-1]
    if service.device.down or service.life.ending or not engine.available:
        raise Unavailable(service.not_ready_reason() or f"{engine.ref} is being opened again; try again in a moment")
    return {"name": name, "version": str(engine.ref.version), "ready": True}


def model_facts(service: Service, name: str, version: int | None) -> dict[str, Any]:
    """Of the newest, or of ``version``.  ModelNotFound."""
    engines = _versions(service, name, version)
    return {"name": name, "versions": [str(one.ref.version) for one in engines]} | metadata(engines[-1])


def metadata(engine: Engine) -> dict[str, Any]:
    """The tensors of its task."""
    named = [
        [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, datatype, shape in table.get(engine.manifest.task, [])
        ]
        for table in (INPUTS, OUTPUTS)
    ]
    return {"platform": "onnxruntime_onnx", "inputs": named[0], "outputs": named[1]}


def configuration(engine: Engine) -> dict[str, Any]:
    """In the words of Triton's model configuration.  0: a client need not batch, the service does."""
    types = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}
    named = [
        [
            {"name": name, "data_type": types[datatype], "dims": shape}
            | ({"optional": True} if name == OPTIONAL else {})
            for name, datatype, shape in table.get(engine.manifest.task, [])
        ]
        for table in (INPUTS, OUTPUTS)
    ]
    facts = {"name": engine.ref.name, "platform": "onnxruntime_onnx", "backend": "albert-serve", "max_batch_size": 0}
    return facts | {"input": named[0], "output": named[1]}


def index(service: Service, *, ready: bool = False) -> list[dict[str, str]]:
    """Every version that is loaded or failed; ``ready``: those that are loaded."""
    loaded = [(engine.ref, "READY", "") for engine in service.registry.engines() if engine.available]
    failed = [(ref, "UNAVAILABLE", why) for ref, why in service.registry.failures.items()]
    gone = [{"name": name, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
            for name in service.registry.unloaded.names()]  # fmt: skip
    return [
        {"name": ref.name, "version": str(ref.version), "state": state, "reason": why}
        for ref, state, why in (loaded if ready else loaded + failed)
    ] + ([] if ready else gone)

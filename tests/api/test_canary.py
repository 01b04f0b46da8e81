"""What a request says stays in the request: no log line and no error repeats it, at the most talkative level."""

import json
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.serving.engine import Engine
from service.settings import Settings
from tests.conftest import serving

pytestmark = pytest.mark.anyio
CANARY = "canaryvogel"
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [CANARY]}
GOOD: dict[str, Any] = {
    "/classify": {"inputs": CANARY},
    "/qa": {"question": CANARY, "context": CANARY},
    "/explain": {"text": CANARY},
    "/predict": {"inputs": CANARY},
    "/": {"inputs": CANARY},
    "/models/sentiment": {"inputs": [CANARY]},
    "/v2/models/sentiment/infer": {"inputs": [TENSOR]},
}
WRONG: list[tuple[str, Any]] = [
    ("/classify", {"inputs": [{"text": CANARY, "text_pair": [CANARY]}]}),
    ("/classify", {"inputs": {"text": 1, CANARY: CANARY}}),
    ("/qa", {"question": [CANARY], "context": CANARY}),
    ("/qa", {"question": "q", "documents": [{"file": CANARY}]}),
    ("/predict", {"inputs": [[CANARY], CANARY]}),
    ("/", {"inputs": {"question": CANARY, "context": 1}}),
    ("/v2/models/sentiment/infer", {"inputs": [TENSOR | {"shape": [2]}]}),
    ("/classify", f'{{"inputs": "{CANARY}'),
]


async def test_no_log_line_has_the_text_of_a_request(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for name in ("httpcore", "httpx", "asyncio"):
        logging.getLogger(name).setLevel("WARNING")  # the test's own client
    update = {"access_log": True, "log_level": "debug", "max_text_chars": 5000}
    async with serving(settings.model_copy(update=update)) as client:
        for path, body in GOOD.items():
            assert (await client.post(path, json=body)).status_code == 200, path
        for path, body in WRONG:
            content = body if isinstance(body, str) else json.dumps(body)
            assert (await client.post(path, content=content)).status_code in (400, 422), body
        assert (await client.post("/classify", json={"inputs": CANARY * 600})).status_code == 413
    assert caplog.records
    told = [record.getMessage() + str(record.exc_text or "") for record in caplog.records]
    assert not [line for line in told if CANARY in line]


async def test_nor_where_inference_fails(
    client: httpx.AsyncClient, app: FastAPI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> Any:
        raise RuntimeError("the kernel is broken")

    monkeypatch.setattr(Engine, "step", fail)
    for path, body in GOOD.items():
        response = await client.post(path, json=body)
        assert response.status_code >= 400
        assert CANARY not in response.text
        assert "kernel" not in response.text
    assert not [one for one in caplog.records if CANARY in one.getMessage() + str(one.exc_text or "")]

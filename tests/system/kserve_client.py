"""KServe's client against a service, in an environment of its own: python kserve_client.py URL prints what it found."""

import asyncio
import json
import sys
from typing import Any

import kserve
import numpy as np

TEXTS = ["It was not good.", "größe 東京 😀"]


async def ask(url: str) -> dict[str, Any]:
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", retries=0))
    seen = [
        await client.is_server_live(url),
        await client.is_server_ready(url),
        await client.is_model_ready(url, "sentiment"),
    ]
    labels = []
    for binary in (False, True):
        given = kserve.InferInput("text", [2], "BYTES", None if binary else TEXTS)
        if binary:
            given.set_data_from_numpy(np.array(TEXTS, dtype=np.object_), binary_data=True)
        request = kserve.InferRequest("sentiment", [given], parameters={"top_k": 1})
        found = await client.infer(url, request, model_name="sentiment")
        (one,) = (output for output in found.outputs if output.name == "label")
        labels.append(np.ravel(one.as_numpy()).tolist())
    return {"seen": seen, "labels": labels}


print(json.dumps(asyncio.run(ask(sys.argv[1]))))

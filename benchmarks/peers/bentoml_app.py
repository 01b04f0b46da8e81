import bentoml
from padded import BATCH, Padded


@bentoml.service(traffic={"timeout": 120, "max_concurrency": 64}, workers=1)
class Classifier:
    def __init__(self) -> None:
        self.model = Padded()

    if BATCH > 1:

        @bentoml.api(route="/classify", batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
        def classify(self, inputs: list[str]) -> list[dict]:
            return self.model(inputs)

    else:

        @bentoml.api(route="/classify")
        def classify(self, inputs: str) -> dict:
            return self.model([inputs])[0]

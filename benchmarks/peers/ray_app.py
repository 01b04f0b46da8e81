import sys
import time

import ray
from padded import BATCH, MODEL, THREADS, WAIT, Padded
from ray import serve


@serve.deployment(max_ongoing_requests=64)
class Classifier:
    def __init__(self):
        self.model = Padded()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT if BATCH > 1 else 0)
    async def many(self, texts):
        return self.model(texts)

    async def __call__(self, request):
        return await self.many((await request.json())["inputs"])


environment = {"env_vars": {"MODEL": str(MODEL), "THREADS": str(THREADS), "BATCH": str(BATCH)}}
ray.init(include_dashboard=False, log_to_driver=False, runtime_env=environment)
serve.start(http_options={"port": int(sys.argv[1])})
serve.run(Classifier.bind(), route_prefix="/classify")
while True:
    time.sleep(60)

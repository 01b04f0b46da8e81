"""``POST /choose``"""

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..tasks.multiple_choice import MultipleChoice
from .each import leased
from .route import add_json_route
from .schemas import PRIORITIES
from .task_schemas import ChooseRequest, ChooseResponse
from .work import RequestWork


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/choose", choose, ChooseResponse, "Which of several texts goes on best from another")


async def choose(body: ChooseRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    texts = [body.prompt, *body.choices]
    for text in texts:
        work.service.check_text(text)
    async with leased(work, body, MultipleChoice) as (engine, task):
        encoded = await work.encode(
            sum(map(len, texts)), lambda: task.encode(body.prompt, body.choices, body.long_prompt)
        )
        priority = PRIORITIES[body.priority]
        logits = await work.run_whole(engine, encoded.sequences, priority, early_exit=body.early_exit)
        scores = await work.decode(len(logits), lambda: task.decode(encoded, logits))
        work.service.metrics.truncated.labels(engine.ref.name, engine.ref.version).inc(encoded.truncated)
        best = sorted(range(len(scores)), key=lambda index: -scores[index])
        choices = [{"index": index, "text": body.choices[index], "score": scores[index]} for index in best]
        return work.respond(engine, {"choices": choices, "tokens": encoded.tokens, "truncated": encoded.truncated})

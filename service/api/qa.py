"""``POST /qa``"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.classify import STATUSES
from service.api.route import JsonRoute
from service.api.schemas import PRIORITIES, ErrorBody, QaRequest, QaResponse
from service.api.service import Job, Service, while_connected
from service.errors import InvalidRequest, ServiceError, TooLarge
from service.tasks.question_answering import Answered, EncodedQuestion, QuestionAnswering
from service.types import Floats

router = APIRouter(tags=["tasks"], route_class=JsonRoute)


@router.post(
    "/qa",
    response_model=QaResponse,
    responses={status: {"model": ErrorBody} for status in STATUSES},
    summary="Answers to a question, as spans of the texts given",
)
async def answer_question(body: QaRequest, request: Request) -> Response:
    service: Service = request.app.state.service
    deadline = service.deadline(request)
    documents = _documents(body, service.settings.max_documents)
    texts = [text for _, text in documents]
    for text in (body.question, *texts):
        service.check_text(text)
    name = body.model or service.settings.qa_model
    async with service.registry.lease(name, body.version, QuestionAnswering) as engine, while_connected(request):
        job = Job(service, engine)
        task = engine.task
        assert isinstance(task, QuestionAnswering)
        with job.stage("encode"):
            encoded = await engine.text_work(sum(map(len, texts)), task.encode, body.question, texts)
        priority = PRIORITIES[body.priority]
        outcomes = await job.run(encoded.sequences, deadline, priority, early_exit=body.early_exit)
        logits: list[Floats] = []
        for outcome in outcomes:
            if isinstance(outcome, ServiceError):  # an answer without this window could be a wrong one
                raise outcome
            logits.append(outcome)
        with job.stage("decode"):
            done = await engine.text_work(encoded.tokens, _decode, task, body, encoded, logits)
        names = [given or index for index, (given, _) in enumerate(documents)]
        return job.respond(_shown(done, names))


def _documents(body: QaRequest, limit: int) -> list[tuple[str | None, str]]:
    """(id, text) of each document."""
    if (body.context is None) == (body.documents is None):
        raise InvalidRequest("give either context or documents, and not both")
    if body.context is not None:
        return [(None, body.context)]
    given = body.documents or []
    if not given:
        raise InvalidRequest("documents: the list is empty")
    if len(given) > limit:
        raise TooLarge(f"documents: {len(given)} in one request; at most {limit} are taken (max_documents)")
    return [(None, item) if isinstance(item, str) else (item.id, item.text) for item in given]


def _decode(task: QuestionAnswering, body: QaRequest, encoded: EncodedQuestion, logits: list[Floats]) -> Answered:
    return task.decode(
        encoded, logits, top_k=body.top_k, max_answer_tokens=body.max_answer_tokens, no_answer=body.no_answer
    )


def _shown(done: Answered, names: list[str | int]) -> dict[str, object]:
    answers = [
        {"text": a.text, "score": a.score, "start": a.start, "end": a.end, "document": names[a.document]}
        for a in done.answers
    ]
    return {
        "answers": answers,
        "no_answer_score": done.no_answer_score,
        "tokens": done.tokens,
        "windows": done.windows,
    }

"""The question answering pipeline of transformers 4, which transformers 5 dropped, over a service.

    from pipeline import pipeline
    qa = pipeline("question-answering", url="http://localhost:8000")
    qa(question="When was the bridge opened?", context="The bridge was opened in 1902.")
    # {'score': 0.97, 'start': 25, 'end': 29, 'answer': '1902'}

Arguments and answers have the form that they had there.  What differs, docs/pipelines.md says: scores are the chance of
being right, answers never overlap, and the windows are those that the model was converted with, so ``doc_stride``,
``max_seq_len`` and ``max_question_len`` are taken and change nothing.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from albert_client import Answers, Client

DECIDED = ("doc_stride", "max_seq_len", "max_question_len", "padding")  # at conversion
MOST_TOKENS = 100
Found = dict[str, Any]
Words = Literal["spaces", "letters"]
BEFORE = {"spaces": re.compile(r"\S+\Z"), "letters": re.compile(r"\w+\Z")}
AFTER = {"spaces": re.compile(r"\S+"), "letters": re.compile(r"\w+")}


def pipeline(task: str = "question-answering", model: str | None = None, *, url: str = "http://localhost:8000",
             api_key: str | None = None, words: Words = "spaces") -> "QuestionAnsweringPipeline":  # fmt: skip
    """``model`` is the name of one that the service has; its default where absent.

    ``words`` says where ``align_to_words`` lets a word end: at spaces, as with the SentencePiece vocabularies that
    ALBERT was published with, or at the last letter, as with word pieces (the shipped ``qa``, Chinese).
    """
    if task != "question-answering":
        raise ValueError(f"task: {task!r}; this stands in for 'question-answering' alone")
    return QuestionAnsweringPipeline(Client(url, api_key=api_key), model, words)


class QuestionAnsweringPipeline:
    def __init__(self, client: Client, model: str | None = None, words: Words = "spaces") -> None:
        self._client = client
        self._model = model
        self._words: Words = words

    def __call__(
        self, *inputs: Any, question: str | list[str] | None = None, context: str | list[str] | None = None,
        top_k: int | None = None, topk: int | None = None, max_answer_len: int = 15,
        handle_impossible_answer: bool = False, align_to_words: bool = True, **others: Any,
    ) -> Any:  # fmt: skip
        """One answer, or a list where ``top_k`` gave several; a list of either for several questions."""
        asked = list(examples(inputs, question, context))
        self._check(others)
        if max_answer_len < 1:
            raise ValueError(f"max_answer_len: {max_answer_len}; wanted 1 or more")
        wanted = top_k or topk or 1
        words = self._words if align_to_words else None
        options: dict[str, Any] = {
            "top_k": wanted, "max_answer_tokens": min(max_answer_len, MOST_TOKENS),
            "no_answer": handle_impossible_answer or None, "model": self._model,
        }  # fmt: skip
        answers = []
        for one, text in asked:
            given = self._client.ask(one, text, **options)
            found = ranked(given, text, words=words, impossible=handle_impossible_answer)[:wanted]
            answers.append(found[0] if len(found) == 1 else found)
        return answers[0] if len(answers) == 1 else answers

    def close(self) -> None:
        self._client.close()

    def _check(self, others: Mapping[str, Any]) -> None:
        if unknown := set(others) - set(DECIDED):
            raise TypeError(f"unexpected argument {sorted(unknown)[0]!r}")
        for name in sorted(others):
            warnings.warn(f"{name} changes nothing here: windows are decided when a model is converted", stacklevel=3)


def examples(inputs: tuple[Any, ...], question: Any, context: Any) -> Iterable[tuple[str, str]]:
    """(question, context) of each of the forms that the pipeline took."""
    if question is not None:
        questions = [question] if isinstance(question, str) else list(question)
        contexts = [context] * len(questions) if isinstance(context, str) else list(context or [])
        if len(questions) != len(contexts):
            raise ValueError("Questions and contexts don't have the same lengths")
        yield from zip(questions, contexts, strict=True)
    for item in inputs:
        for one in item if isinstance(item, list) else [item]:
            if not isinstance(one, Mapping) or {"question", "context"} - one.keys():
                raise KeyError("wanted a dictionary with the keys question and context")
            yield one["question"], one["context"]
    if question is None and not inputs:
        raise ValueError("wanted a question and a context")


def ranked(given: Answers, context: str, *, words: Words | None, impossible: bool) -> list[Found]:
    """Best first; with ``impossible`` no answer is one of them."""
    found = [shown(context, one.start, one.end, one.score, words=words) for one in given]
    if impossible:
        found.append({"score": given.no_answer_score, "start": 0, "end": 0, "answer": ""})
        if found[0]["answer"]:  # the service decides whether there is an answer; the rest goes by score
            return [found[0], *sorted(found[1:], key=lambda one: -one["score"])]
    return found


def shown(context: str, start: int, end: int, score: float, *, words: Words | None) -> Found:
    """``words`` extends the answer to the words that it begins or ends within."""
    if words:
        if AFTER[words].match(context, start) and (rest := BEFORE[words].search(context, 0, start)):
            start = rest.start()
        if BEFORE[words].search(context, 0, end) and (rest := AFTER[words].match(context, end)):
            end = rest.end()
    return {"score": score, "start": start, "end": end, "answer": context[start:end]}

"""Our answers against those of the pipeline that people had: the same weights, questions and texts, in float32.

The question answering pipeline is in transformers 4.57 only, so it runs in a process of its own (``pipeline_4.py``),
with an overlay: a folder with that version over this environment's torch.  Its rule, for one question:

1.  Windows of ``max_seq_len`` tokens that share ``doc_stride``.  Ours are the same where ours are as long.
2.  In each window, softmax of the first tokens' logits and of the last tokens', over the document and [CLS].  The
    probability of a span is the product.
3.  The best span of each window (with ``align_to_words`` the best twelve), of at most ``max_answer_len`` tokens.
4.  With ``align_to_words``, each is extended to the words that it touches, as far as they lie in the window.
5.  Of spans with the same words, in upper or lower case and at any place, the probabilities are added up.
6.  The largest sum wins.

``pipeline_rule`` is that rule on our logits.  Ours is: the span with the largest logit of all windows.  So the two
agree where ``differences`` finds none of: another window whose best span has more probability and less logit
("window"), a sum without which another span would have won ("summed"), a word that the window's end cuts ("edge"), a
span that ends with the space before the next word, which SentencePiece counts to that ("space"), and two spans that are
as good ("tie").
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from service.conversion.export import export_version
from service.conversion.pipeline import Options, convert
from service.conversion.precision import staged_engine
from service.conversion.texts import SENTENCES, inputs
from service.errors import InvalidRequest, TextTooLong
from service.repository.store import read_manifest
from service.tasks.classification import Doubles
from service.tasks.confidence import Confidence
from service.tasks.question_answering import EncodedQuestion, QuestionAnswering
from service.training.predictors import reader, run_each
from service.types import Floats
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT
from tests.test_shipped_models import FOLDERS

VARIABLE = "ALBERT_SERVE_TRANSFORMERS_4"
OVERLAY = Path(os.environ.get(VARIABLE) or ROOT / ".venv-transformers4")
PIPELINE = Path(__file__).with_name("pipeline_4.py")
SCORES = 1e-4  # how far a score may be off: float32 sums in another order
TIE = 1e-3  # the share of a score within which two spans are as good

PARAGRAPHS = (
    "The ferry Marguerite was built in Gdansk in 1931 and carried cars between the two islands until a bridge replaced "
    "it in 1974. Her last captain, Ebba Lindqvist, bought the ship's bell for 200 crowns. The hull lies in the harbour "
    "of Visby, where divers visit it in summer.",
    "Sourdough bread rises without baker's yeast. A starter of flour and water ferments for about five days at 25 °C; "
    "wild yeasts and lactic acid bacteria do the work. The acid gives the loaf its taste and keeps mould away.",
    "In 1887 the engineer Clara Ortega-Wrona moved from Wrocław to São Paulo. She designed the city's first pumping "
    "station, which supplied 40,000 people with clean water. Her notebooks, written in Polish, were found in 1996 by "
    "the historian João Prado.",
    "The comet passes the sun every 76 years. Its tail, made of dust and ionised gas, always points away from the sun. "
    "Chinese astronomers recorded the comet in 240 BC; the next return is expected in 2061.",
    "Mount Kellan is an extinct volcano of 2,914 m. Its crater holds a lake that freezes from November to April. "
    "The first ascent was made by two shepherds, Tomas and Ilse Brandt, who were looking for a lost goat.",
    "The library of Averton lends books, tools and musical instruments. It was founded in 1902 with a gift of $12,500 "
    "from a widow who wished to stay unnamed. On Sundays volunteers repair bicycles in its courtyard for free.",
    "Copper conducts electricity better than iron does, and silver better than copper. Because silver is expensive, "
    "power lines are made of aluminium, which is lighter than copper and costs about a third of it.",
    "The committee met on 14 March 2019 and approved a budget of 2.75 million euros for the new swimming pool. Mayor "
    "Helena Okafor voted against it: the roof of the school, she said, could not wait. The pool opened in May 2022.",
    "Octopuses have three hearts and blue blood. Two of the hearts pump blood through the gills, and the third through "
    "the rest of the body. An octopus can squeeze through any hole that is larger than its beak.",
    "The opera \"The Glass Orchard\" was first performed in Leipzig on 3 October 1911. Critics hated it; the audience "
    "called the composer, Friedrich Amsel, to the stage eleven times. The score was lost in a fire in 1943.",
)  # fmt: skip
# A question with the number of the paragraph that it is asked about, which need not have an answer to it.
QUESTIONS = (
    ("When was the ferry built?", 0),
    ("Who was the last captain of the ferry?", 0),
    ("What replaced the ferry?", 0),
    ("How long does the starter ferment?", 1),
    ("What keeps mould away?", 1),
    ("Where did Clara Ortega-Wrona move to?", 2),
    ("Who found the notebooks?", 2),
    ("How many people got clean water?", 2),
    ("How often does the comet pass the sun?", 3),
    ("What is the tail of the comet made of?", 3),
    ("When is the next return of the comet expected?", 3),
    ("How high is Mount Kellan?", 4),
    ("Who made the first ascent?", 4),
    ("What were the shepherds looking for?", 4),
    ("When was the library founded?", 5),
    ("What does the library lend?", 5),
    ("What happens on Sundays?", 5),
    ("What are power lines made of?", 6),
    ("Which metal conducts electricity better than copper?", 6),
    ("How large is the budget?", 7),
    ("Who voted against the pool?", 7),
    ("When did the pool open?", 7),
    ("How many hearts does an octopus have?", 8),
    ("What colour is the blood of an octopus?", 8),
    ("Where was the opera first performed?", 9),
    ("Who composed the opera?", 9),
    ("How was the score lost?", 9),
    ("How many moons has Jupiter?", 1),
    ("Who wrote the novel?", 6),
    ("When did the war end?", 8),
)  # fmt: skip
SHORT = [(question, PARAGRAPHS[number]) for question, number in QUESTIONS]
# Several windows, in another order each time.
LONG = [(text, "\n".join(PARAGRAPHS[n:] + PARAGRAPHS[:n])) for n, (text, _) in enumerate(QUESTIONS[:24:4])]

Span = tuple[int, int]
Printed = Any  # a line of pipeline_4.py: answers, or an error
# What the pipeline is asked with; all but the first without extending answers to whole words.
VARIANTS: dict[str, dict[str, Any]] = {
    "words": {},
    "tokens": {"align_to_words": False},
    "impossible": {"align_to_words": False, "handle_impossible_answer": True},
    "three": {"align_to_words": False, "top_k": 3},
}
LONGEST = 15  # max_answer_len unless told otherwise


@dataclasses.dataclass(frozen=True)
class Ranked:
    """An answer by the pipeline's rule.  ``single`` and ``logit`` are of the best of the spans that it sums."""

    text: str
    span: Span
    score: float
    single: float
    logit: float


@dataclasses.dataclass(frozen=True)
class Case:
    """One question: our logits, and what the pipeline answered to it, by variant."""

    task: QuestionAnswering
    words: tokenizers.Tokenizer
    context: str
    encoded: EncodedQuestion
    logits: Seq[Floats]
    theirs: Mapping[str, Printed]

    def ours(self, *, top_k: int = 1, no_answer: bool = False) -> list[tuple[Span, float]]:
        found = self.task.decode(self.encoded, self.logits, max_answer_tokens=LONGEST, top_k=top_k, no_answer=no_answer)
        return [((answer.start, answer.end), answer.score) for answer in found.answers]

    def whole_words(self, first: int, last: int, window: range) -> Span:
        """The span from token to token, extended to the words that it touches, as far as they lie in the window."""
        words = self.words.encode(self.context, add_special_tokens=False).word_ids
        while first > window.start and words[first - 1] == words[first]:
            first -= 1
        while last + 1 < window.stop and words[last + 1] == words[last]:
            last += 1
        return self.characters(first, last)

    def characters(self, first: int, last: int) -> Span:
        offsets = self.encoded.documents[0].offsets
        return int(offsets[first, 0]), int(offsets[last, 1])

    def our_words(self) -> Span:
        """Our answer, extended to whole words."""
        ((found, _),) = self.ours()
        return self.trimmed(self.extended(found))

    def extended(self, span: Span) -> Span:
        """The span extended to whole words of the document."""
        offsets = self.encoded.documents[0].offsets
        first = np.searchsorted(offsets[:, 1], span[0], side="right")
        last = np.searchsorted(offsets[:, 0], span[1]) - 1
        return self.whole_words(int(first), int(last), range(len(offsets)))

    def their_span(self, variant: str) -> Span:
        best = self.theirs[variant][0]
        return self.trimmed((best["start"], best["end"]))

    def trimmed(self, span: Span) -> Span:
        """Without the space before a word, which SentencePiece counts to the word; ours never gives it."""
        text = self.context[slice(*span)]
        return span[0] + len(text) - len(text.lstrip()), span[1] - len(text) + len(text.rstrip())


def pipeline_rule(case: Case, *, words: bool) -> list[Ranked]:
    """The answers by the rule in this module's docstring, best first."""
    found: dict[str, Ranked] = {}
    for window, logits in zip(case.encoded.windows, case.logits, strict=True):
        probabilities, sums = window_spans(window.sequence.second, window.length, logits)
        seen = range(window.start, window.start + window.length)
        for flat in np.argsort(-probabilities, axis=None, kind="stable")[: 12 if words else 1]:
            first, last = (int(index) for index in np.unravel_index(flat, probabilities.shape))
            tokens = window.start + first, window.start + last
            span = case.whole_words(*tokens, seen) if words else case.characters(*tokens)
            text = case.context[slice(*span)].lower()
            share, logit = float(probabilities[first, last]), float(sums[first, last])
            before = found.get(text, Ranked(text, span, 0.0, 0.0, -np.inf))
            single, logit = max((before.single, before.logit), (share, logit))
            found[text] = Ranked(text, before.span, before.score + share, single, logit)
    return sorted(found.values(), key=lambda answer: answer.score, reverse=True)


def window_spans(second: int, length: int, logits: Floats) -> tuple[Doubles, Doubles]:
    """Of one window the probabilities and the logits of its spans, (first token, last token) of the document's part."""
    kept = np.concatenate((logits[:1], logits[second : second + length])).astype(np.float64)  # [CLS] and the document
    shares = np.exp(kept - kept.max(axis=0))
    start, end = (shares / shares.sum(axis=0))[1:].T
    first, last = np.ogrid[:length, :length]
    possible = (first <= last) & (last < first + LONGEST)
    sums = kept[1:, :1] + kept[1:, 1]
    return np.where(possible, start[:, None] * end, 0.0), np.where(possible, sums, -np.inf)


def differences(case: Case, *, words: bool) -> set[str]:
    """Why the pipeline may give another span than we do."""
    ranked = pipeline_rule(case, words=words)
    found = set()
    if max(ranked, key=lambda one: one.single) is not ranked[0]:
        found.add("summed")
    if max(ranked, key=lambda one: one.single) is not max(ranked, key=lambda one: one.logit):
        found.add("window")
    if words and case.extended(ranked[0].span) != ranked[0].span:
        found.add("edge")
    bare = pipeline_rule(case, words=False)[0].span
    if case.trimmed(bare)[1] < bare[1]:
        found.add("space")
    if len(ranked) > 1 and ranked[0].score - ranked[1].score < TIE * ranked[0].score:
        found.add("tie")
    return found


def ask(checkpoint: Path, lines: Seq[Mapping[str, Any]], options: Mapping[str, Any], folder: Path) -> list[Printed]:
    """What the pipeline prints to each of ``lines``."""
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(OVERLAY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(PIPELINE), str(checkpoint), str(file), "--options", json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def cases(
    version: Path, checkpoint: Path, asked: Seq[tuple[str, str]], folder: Path, *, window: int, overlap: int
) -> list[Case]:
    """Each question, answered by both with windows of the same tokens and the same longest answer."""
    if not (OVERLAY / "transformers").is_dir():
        pytest.skip(f"no transformers 4.57 in {OVERLAY}: make .venv-transformers4/.done, or set {VARIABLE}")
    engine = staged_engine(version, read_manifest(version), exact=True)
    task = dataclasses.replace(reader(engine), window=window, overlap=overlap, confidence=Confidence())
    ours = run_each(engine, [task.encode(question, [context]) for question, context in asked])
    lines = [
        {"question": question, "context": context} | arguments
        for arguments in VARIANTS.values()
        for question, context in asked
    ]
    printed = ask(checkpoint, lines, {"max_seq_len": window, "doc_stride": overlap}, folder)
    words = tokenizers.Tokenizer.from_file(str(version / "tokenizer.json"))
    return [
        Case(task, words, context, encoded, logits, dict(zip(VARIANTS, printed[number :: len(asked)], strict=True)))
        for number, ((_, context), (encoded, logits)) in enumerate(zip(asked, ours, strict=True))
    ]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """The shipped reader on real questions, with the pipeline's windows."""
    folder = tmp_path_factory.mktemp("shipped")
    export_version(FOLDERS["qa"], folder / "checkpoint")
    return cases(FOLDERS["qa"], folder / "checkpoint", SHORT + LONG, folder, window=384, overlap=128)


@pytest.fixture(scope="module")
def random_reader(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """A reader of random weights, which is never sure, on many windows."""
    folder = tmp_path_factory.mktemp("random")
    checkpoint = save_checkpoint(folder / "checkpoint", "AlbertForQuestionAnswering", seed=1)
    version = convert(str(checkpoint), folder / "repository", Options("qa"))
    texts = list(inputs(7))
    asked = [("Who repaired the clock?", text) for text in texts]
    asked += [(question, text) for question in ("ok?", "It was not good.", "Nobody knew?") for text in texts[-4:]]
    return cases(version, checkpoint, asked, folder, window=48, overlap=16)


@pytest.fixture(scope="module")
def sentencepiece_reader(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """The same with SentencePiece's kind of tokenizer, which most ALBERTs have."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    pieces = unigrams()
    size = pieces.get_vocab_size()
    checkpoint = save_checkpoint(
        folder / "checkpoint", "AlbertForQuestionAnswering", seed=1, tokenizer=False, vocab_size=size
    )
    pieces.save(str(checkpoint / "tokenizer.json"))
    version = convert(str(checkpoint), folder / "repository", Options("qa"))
    asked = [("Who repaired the clock?", text) for text in inputs(4)]
    return cases(version, checkpoint, asked, folder, window=48, overlap=16)


def unigrams() -> tokenizers.Tokenizer:
    """As transformers 4.57 makes it of a ``spiece.model``, trained on our own sentences."""
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=345, show_progress=False, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([*SENTENCES, *PARAGRAPHS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


@pytest.fixture(params=["shipped", "random_reader", "sentencepiece_reader"])
def answered(request: pytest.FixtureRequest) -> list[Case]:
    found: list[Case] = request.getfixturevalue(request.param)
    return found


def one_window(found: Seq[Case]) -> list[Case]:
    return [case for case in found if len(case.encoded.windows) == 1]


def several_windows(found: Seq[Case]) -> list[Case]:
    return [case for case in found if len(case.encoded.windows) > 1]


@pytest.mark.parametrize("words", [True, False])
def test_the_rule_is_the_pipelines(answered: list[Case], words: bool) -> None:
    for case in answered:
        ranked, printed = pipeline_rule(case, words=words), case.theirs["words" if words else "tokens"][0]

        assert printed["score"] == pytest.approx(ranked[0].score, abs=SCORES)
        assert (printed["start"], printed["end"]) == ranked[0].span or "tie" in differences(case, words=words)


def test_in_one_window_every_span_is_the_same(answered: list[Case]) -> None:
    """Without the step to whole words no condition is needed but one window and the same longest answer."""
    assert len(one_window(answered)) >= 12
    for case in one_window(answered):
        ((found, score),) = case.ours()

        assert found == case.their_span("tokens")
        # Ours leaves the spans out of the sum that are no answer: the end before the start, or too far behind it.
        assert score >= case.theirs["tokens"][0]["score"] - SCORES


def test_in_one_window_whole_words_are_the_same_where_nothing_is_summed(answered: list[Case]) -> None:
    alike = [case for case in one_window(answered) if not differences(case, words=True)]

    # Enough to mean something: which pieces a Unigram model is trained to, and so which cases there are, varies by run.
    assert len(alike) >= 3
    for case in alike:
        assert case.our_words() == case.their_span("words")


@pytest.mark.parametrize("words", [True, False])
def test_across_windows_texts_are_the_same_where_the_rule_says_so(shipped: list[Case], words: bool) -> None:
    """The pipeline gives the first place of a text, ours the best."""
    alike = [case for case in several_windows(shipped) if not differences(case, words=words)]

    assert len(alike) >= 2
    for case in alike:
        ours, theirs = (case.our_words(), "words") if words else (case.ours()[0][0], "tokens")

        assert case.context[slice(*ours)].lower() == case.theirs[theirs][0]["answer"].lower()


def test_across_windows_ours_has_the_larger_logit(random_reader: list[Case]) -> None:
    """A window without the answer can be sure of a span, too: its probabilities do not compare with another's."""
    apart = [case for case in several_windows(random_reader) if "window" in differences(case, words=False)]

    assert len(apart) >= 3
    for case in apart:
        ranked = pipeline_rule(case, words=False)
        best = max(ranked, key=lambda one: one.logit)
        assert case.ours()[0][0] == best.span
        assert best.logit > max(ranked, key=lambda one: one.single).logit


def test_no_answer_is_the_same_in_one_window_with_the_same_threshold(shipped: list[Case]) -> None:
    outcomes = set()
    for case in one_window(shipped):
        nothing = case.theirs["impossible"][0]["answer"] == ""
        outcomes.add(nothing)

        assert (case.ours(no_answer=True) == []) == nothing
    assert outcomes == {True, False}


def test_several_answers_begin_alike_and_ours_never_overlap(answered: list[Case]) -> None:
    overlapping = 0
    for case in one_window(answered):
        ours, theirs = case.ours(top_k=3), case.theirs["three"]
        spans = sorted(found for found, _ in ours)

        assert ours[0][0] == case.their_span("three")
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
        assert sum(score for _, score in ours) <= 1
        ends = sorted((one["start"], one["end"]) for one in theirs)
        overlapping += any(before[1] > after[0] for before, after in itertools.pairwise(ends))
    assert overlapping > 5


def test_what_the_pipeline_cannot_read_is_answered_or_refused_with_a_reason(
    shipped: list[Case], tmp_path: Path
) -> None:
    context, task = PARAGRAPHS[0] * 5, shipped[0].task
    empty = [("", context), ("When?", ""), (" ", context), ("When?", " ")]
    long, too_long = ("why " * 260, context), ("why " * 500, context)
    lines = [{"question": question, "context": text} for question, text in (*empty, long, too_long)]
    export_version(FOLDERS["qa"], tmp_path / "checkpoint")
    printed = ask(tmp_path / "checkpoint", lines, {}, tmp_path)

    assert "cannot be empty" in printed[0]["error"]
    assert "cannot be empty" in printed[1]["error"]
    assert printed[2][0]["answer"] != ""  # an answer to nothing
    assert printed[3] == [{"answer": "", "start": 0, "end": 0, "score": 0.0}]
    assert "stride" in printed[4]["error"]
    assert "error" in printed[5]
    for question, text in empty:
        with pytest.raises(InvalidRequest, match="empty"):
            task.encode(question, [text])
    assert len(task.encode(long[0], [context]).windows) > 1
    with pytest.raises(TextTooLong, match="shorten it"):
        task.encode(too_long[0], [context])

"""Questions without an answer, made out of questions that have one.

SQuAD 2.0's own were written by people to mislead (Rajpurkar et al. 2018, table 2: negation, antonyms, names swapped).
Two kinds are made here: the same question on the paragraph of its article that is nearest to it, and the question
changed on its own paragraph, so that the paragraph no longer answers it.
"""

import dataclasses
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from .datasets import Question

WORD = re.compile(r"\w+")
NAME = re.compile(r"(?<=[a-z,] )(?:[A-Z][\w'-]+)(?: (?:of |the |de )?[A-Z][\w'-]+)*")
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
AUXILIARY = re.compile(r"\b(is|are|was|were|did|does|do|can|could|will|would|should|has|have|had)\b")
OPPOSITES = (
    "first last", "largest smallest", "largest least", "highest lowest", "most least", "more less", "before after",
    "oldest newest", "north south", "northern southern", "east west", "eastern western", "early late",
    "earliest latest", "begin end", "began ended", "start stop", "started stopped", "increase decrease",
    "increased decreased", "win lose", "won lost", "high low", "higher lower", "large small", "larger smaller",
    "long short", "longest shortest", "male female", "men women", "best worst", "open close", "opened closed",
    "maximum minimum", "upper lower", "positive negative", "support oppose", "supported opposed", "with without",
    "always never", "allowed forbidden", "major minor", "majority minority", "primary secondary", "strong weak",
    "public private", "import export", "friend enemy", "born buried", "birth death", "gain loss", "new old",
)  # fmt: skip


def _opposites() -> dict[str, str]:
    pairs = [pair.split() for pair in OPPOSITES]
    return {two: one for one, two in pairs} | {pair[0]: pair[1] for pair in pairs}


OPPOSITE = _opposites()


def unanswerable(found: Sequence[Question], share: float, seed: int) -> list[Question]:
    """``share`` times as many questions again, half of each kind; an article of one paragraph has none of the first.

    No made question stands on a paragraph that holds one of its answers, unless the question itself was changed.
    """
    draw = random.Random(seed)
    articles: dict[str, Article] = {}
    for title, group in _by_title(found).items():
        articles[title] = Article(list(dict.fromkeys(question.context for question in group)))
    made = []
    for question in found:
        if draw.random() >= share:
            continue
        article = articles[question.title]
        kinds = [_elsewhere, _changed] if draw.random() < 0.5 else [_changed, _elsewhere]
        made += [one for kind in kinds if (one := kind(question, article, draw))][:1]
    return made


def _by_title(found: Sequence[Question]) -> dict[str, list[Question]]:
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in found:
        groups[question.title].append(question)
    return groups


class Article:
    """The paragraphs of one article, ranked for a question by TF-IDF (cosine)."""

    def __init__(self, paragraphs: Sequence[str]) -> None:
        self.paragraphs = paragraphs
        self._counts = [Counter(_words(text)) for text in paragraphs]
        documents = Counter(word for counts in self._counts for word in counts)
        self._idf = {word: math.log((1 + len(paragraphs)) / (1 + n)) + 1 for word, n in documents.items()}
        self._norms = [math.sqrt(sum((n * self._idf[w]) ** 2 for w, n in counts.items())) for counts in self._counts]

    def nearest(self, question: str) -> Iterator[str]:
        """The paragraphs, that most like ``question`` first."""
        words = [(word, self._idf[word]) for word in set(_words(question)) if word in self._idf]

        def likeness(index: int) -> float:
            counts = self._counts[index]
            return sum(counts[word] * idf * idf for word, idf in words) / (self._norms[index] or 1.0)

        for index in sorted(range(len(self.paragraphs)), key=likeness, reverse=True):
            yield self.paragraphs[index]

    def others(self, pattern: re.Pattern[str], context: str) -> list[str]:
        """What ``pattern`` finds in the article and ``context`` does not hold."""
        found = dict.fromkeys(match for text in self.paragraphs if text != context for match in pattern.findall(text))
        return [match for match in found if match not in context]


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _elsewhere(question: Question, article: Article, draw: random.Random) -> Question | None:
    """On the nearest paragraph without its answer."""
    answers = [text.lower() for text, _ in question.answers]
    for context in article.nearest(question.question):
        if context != question.context and not any(answer in context.lower() for answer in answers):
            return dataclasses.replace(question, id=f"{question.id}-other", context=context, answers=())
    return None


def _changed(question: Question, article: Article, draw: random.Random) -> Question | None:
    """With a name, a number, a word or the sense turned; None where nothing in it can be."""
    changes = [_renamed, _renumbered, _opposed, _negated]
    draw.shuffle(changes)
    for change in changes:
        asked = change(question, article, draw)
        if asked and asked != question.question:
            return dataclasses.replace(question, id=f"{question.id}-changed", question=asked, answers=())
    return None


def _swapped(
    question: Question, article: Article, draw: random.Random, pattern: re.Pattern[str], *, digits: bool
) -> str | None:
    places = list(pattern.finditer(question.question))
    if not places:
        return None
    place = draw.choice(places)
    rivals = [
        other for other in article.others(pattern, question.context) if not digits or len(other) == len(place.group())
    ]
    if not rivals:
        return None
    return question.question[: place.start()] + draw.choice(rivals) + question.question[place.end() :]


def _renamed(question: Question, article: Article, draw: random.Random) -> str | None:
    return _swapped(question, article, draw, NAME, digits=False)


def _renumbered(question: Question, article: Article, draw: random.Random) -> str | None:
    return _swapped(question, article, draw, NUMBER, digits=True)


def _opposed(question: Question, article: Article, draw: random.Random) -> str | None:
    places = [match for match in WORD.finditer(question.question) if match.group() in OPPOSITE]
    if not places:
        return None
    place = draw.choice(places)
    return question.question[: place.start()] + OPPOSITE[place.group()] + question.question[place.end() :]


def _negated(question: Question, article: Article, draw: random.Random) -> str | None:
    """Seldom: a model that sees it often takes "not" alone for a reason to say nothing."""
    if draw.random() < 0.7:
        return None
    return AUXILIARY.sub(lambda match: f"{match.group()} not", question.question, count=1)

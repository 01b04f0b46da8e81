"""Questions that have no answer: near enough to mislead, and never answered by their paragraph."""

from service.training.datasets import Question
from service.training.unanswerable import Article, unanswerable

CELLS = "Muscle cells of the heart hold many mitochondria, some 5000 in each."
PLANTS = "Plant cells have chloroplasts; Robert Hooke saw cells in 1665."
WEATHER = "Rain fell on the coast all through the winter of 1998 near Saint Malo."


def question(asked: str, context: str, answer: str, key: str = "q") -> Question:
    return Question(key, asked, context, ((answer, context.index(answer)),), "Cells")


def article() -> list[Question]:
    return [
        question("How many mitochondria do the cells of the heart hold?", CELLS, "5000", "a"),
        question("When did Robert Hooke see the first cells of plants?", PLANTS, "1665", "b"),
        question("Where did rain fall in 1998?", WEATHER, "the coast", "c"),
    ]


def test_the_nearest_paragraph_shares_the_rare_words_of_the_question() -> None:
    nearest = list(Article([WEATHER, PLANTS, CELLS]).nearest("Which plant cells have chloroplasts?"))

    assert nearest == [PLANTS, CELLS, WEATHER]


def test_no_paragraph_answers_a_question_that_was_put_to_it() -> None:
    found = article()
    for seed in range(30):
        for made in unanswerable(found, 1.0, seed):
            origin = next(one for one in found if made.id.startswith(one.id))
            assert made.answers == ()
            if made.question == origin.question:
                assert origin.answers[0][0] not in made.context
            else:
                assert made.context == origin.context


def test_a_changed_question_has_another_name_number_or_sense() -> None:
    asked = {one.question for seed in range(60) for one in unanswerable(article(), 1.0, seed)}

    assert "When did Robert Hooke see the last cells of plants?" in asked
    assert "When did Saint Malo see the first cells of plants?" in asked
    assert "Where did rain fall in 1665?" in asked
    assert "Where did not rain fall in 1998?" in asked


def test_the_share_is_kept_and_a_seed_gives_the_same_again() -> None:
    found = [question("When did Robert Hooke see cells first?", PLANTS, "1665", f"q{i}") for i in range(400)]
    found += article()
    made = unanswerable(found, 0.25, 3)

    assert 60 < len(made) < 140
    assert made == unanswerable(found, 0.25, 3)
    assert unanswerable(found, 0.0, 3) == []


def test_an_article_of_one_paragraph_gives_changed_questions_only() -> None:
    alone = [question("When did Robert Hooke see the first cells?", PLANTS, "1665")]
    made = [one for seed in range(20) for one in unanswerable(alone, 1.0, seed)]

    assert made
    assert all(one.context == PLANTS and one.question != alone[0].question for one in made)

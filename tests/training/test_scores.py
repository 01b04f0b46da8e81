"""Scores against examples worked by hand, and against SQuAD's measures written anew from their definition."""

import string
from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

from service.training.scores import accuracy, exact_match, macro_f1, normalized, token_f1

PARTS = ("the", "a", "an", "The", "cat", "cats", "sat", "U.S.", "1,000", "--", "!", "theatre", "naïve", "猫", " ", "\n")
answers = st.lists(st.sampled_from(PARTS), max_size=7).map(" ".join)


def words_of(answer: str) -> list[str]:
    """SQuAD: lower case; without ASCII punctuation; without articles; split at white space."""
    kept = "".join(character for character in answer.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def judge(answer: str, golds: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 as version 2.0 defines them: golds that hold no word are dropped; none left means none."""
    candidates = [words_of(gold) for gold in golds if words_of(gold)] or [[]]
    said = words_of(answer)
    values = []
    for gold in candidates:
        left, shared = list(gold), 0
        for word in said:
            if word in left:
                left.remove(word)
                shared += 1
        if not gold or not said:
            values.append(float(gold == said))
        elif shared == 0:
            values.append(0.0)
        else:
            precision, recall = shared / len(said), shared / len(gold)
            values.append(2 * precision * recall / (precision + recall))
    return float(said in candidates), max(values)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The  Cat", "cat"),
        ("an apple, a day", "apple day"),
        ("the theatre", "theatre"),
        ("U.S. Navy", "us navy"),
        ("1,000", "1000"),
        ("the-cat", "thecat"),  # punctuation goes first, and what is left is no article
        ("a.", ""),
        (" \n\t", ""),
        ("Café", "café"),  # accents count
        ("“cat”", "“cat”"),  # only ASCII's punctuation goes
        ("a the an", ""),
    ],
)
def test_an_answer_is_compared_without_case_punctuation_articles_and_spaces(answer: str, normal: str) -> None:
    assert normalized(answer) == normal


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos", "The Denver Broncos!"], 1, 1),
        ("the denver broncos.", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),  # precision 1, recall 1/2
        ("the Denver Broncos of Colorado", ["Denver Broncos"], 0, 2 / 3),  # precision 1/2, recall 1
        ("Denver Nuggets", ["Denver Broncos"], 0, 1 / 2),
        ("Carolina", ["Denver Broncos"], 0, 0),
        ("Broncos Denver", ["Denver Broncos"], 0, 1),  # F1 knows no order
        ("cat cat cat", ["cat dog"], 0, 2 / 5),  # a word counts as often as both have it: 1/3 and 1/2
        ("gold", ["silver gold", "gold medal won", "GOLD"], 1, 1),  # the best of the gold answers
        ("gold", ["silver gold", "gold medal won"], 0, 2 / 3),
        ("", [], 1, 1),  # rightly found unanswerable
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("the", [], 1, 1),  # holds no word once normalised
    ],
)
def test_squad_scores_of_examples_worked_by_hand(answer: str, golds: list[str], exact: float, f1: float) -> None:
    assert exact_match(answer, golds) == exact
    assert token_f1(answer, golds) == pytest.approx(f1)


@settings(deadline=None, max_examples=150)
@given(answer=answers, golds=st.lists(answers.filter(words_of), max_size=4))
def test_squad_scores_follow_the_published_definition(answer: str, golds: list[str]) -> None:
    exact, f1 = judge(answer, golds)

    assert exact_match(answer, golds) == exact
    assert token_f1(answer, golds) == pytest.approx(f1)


@pytest.mark.parametrize("answer", ["", "the", "."])
def test_a_gold_answer_that_holds_no_word_is_no_gold_answer(answer: str) -> None:
    golds = ["the", "tower"]

    assert judge(answer, golds) == (0, 0)
    assert (exact_match(answer, golds), token_f1(answer, golds)) == (0, 0)


@settings(deadline=None, max_examples=50)
@given(answer=answers, golds=st.lists(answers, min_size=1, max_size=3))
def test_an_exact_match_is_a_whole_f1(answer: str, golds: list[str]) -> None:
    assert 0 <= exact_match(answer, golds) <= token_f1(answer, golds) <= 1


def test_accuracy_is_the_share_that_is_right() -> None:
    assert accuracy(["a", "b", "b", "c"], ["a", "b", "c", "c"]) == 0.75
    assert accuracy(["x"], ["y"]) == 0


def test_macro_f1_by_hand() -> None:
    given_, gold = list("aaabbc"), list("aabbcc")
    # a: 2 right of 3 given and 2 gold, 4/5.  b: 1 right of 2 and 2, 1/2.  c: 1 right of 1 and 2, 2/3.
    assert macro_f1(given_, gold) == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_in_macro_f1_a_rare_label_counts_as_much_as_a_frequent_one() -> None:
    gold = ["often"] * 99 + ["rare"]

    assert accuracy(["often"] * 100, gold) == 0.99
    assert macro_f1(["often"] * 100, gold) == pytest.approx((2 * 99 / 199 + 0) / 2)


def test_a_label_that_is_never_right_has_an_f1_of_zero() -> None:
    assert macro_f1(["b", "a"], ["a", "b"]) == 0
    assert macro_f1(["a", "b"], ["a", "b"]) == 1


def test_a_label_that_is_only_given_costs_the_others_and_is_not_averaged() -> None:
    assert macro_f1(["a", "z"], ["a", "a"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("score", [accuracy, macro_f1])
def test_lists_of_different_length_are_an_error(score: object) -> None:
    assert callable(score)
    with pytest.raises(ValueError, match="zip"):
        score(["a"], ["a", "b"])


def test_chinese_is_scored_by_characters() -> None:
    """By spaces a right answer with one character more would have no word in common with the gold one."""
    assert token_f1("图书馆门口", ["图书馆"]) == pytest.approx(2 * 3 / (5 + 3))
    assert token_f1("1998年 the Tower", ["1998年"]) == pytest.approx(2 * 2 / (3 + 2))

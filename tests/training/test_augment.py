"""Augmentation changes words and nothing else."""

import random

from hypothesis import given, strategies as st

from service.training.augment import Augmentation, with_typos

words = st.lists(st.text(alphabet="abcdefgh", min_size=1, max_size=9), min_size=1, max_size=30)


@given(words, st.integers())
def test_swaps_lose_nothing(given_words: list[str], seed: int) -> None:
    found = Augmentation(swap=0.5).apply(" ".join(given_words), random.Random(seed)).split()

    assert sorted(found) == sorted(given_words)


@given(words, st.floats(0, 1), st.integers())
def test_dropping_keeps_order_and_at_least_a_word(given_words: list[str], drop: float, seed: int) -> None:
    found = Augmentation(drop=drop).apply(" ".join(given_words), random.Random(seed)).split()
    left = iter(given_words)

    assert found
    assert all(word in left for word in found)


def test_off_by_default() -> None:
    assert not Augmentation()
    assert Augmentation().apply("as it was", random.Random(0)) == "as it was"


def test_a_share_of_the_longer_words_is_mistyped() -> None:
    text = "unbelievably wonderful and a bit sad " * 100
    pairs = list(zip(text.split(), with_typos(text, 0.3, random.Random(0)).split(), strict=True))
    changed = [old for old, new in pairs if old != new]

    assert all(len(word) >= 4 for word in changed)
    assert 30 < len(changed) < 90
    assert with_typos(text, 0.0, random.Random(0)) == text
    assert all(old[0] == new[0] and old[-1] == new[-1] for old, new in pairs)

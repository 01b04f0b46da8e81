"""Attention of chosen layers and heads, rollout, and what of it falls to each word."""

import numpy as np
import pytest

from service.errors import InvalidRequest
from service.tasks.attention import chosen, collect, words_of
from service.tasks.occlusion import Part
from service.types import Floats


def layers(count: int = 4, heads: int = 3, tokens: int = 5) -> list[Floats]:
    logits = np.random.default_rng(0).normal(size=(count, heads, tokens, tokens)) * 2
    weights = np.exp(logits)
    return list((weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32))


def test_rollout_hands_on_half_of_each_token_a_layer() -> None:
    given = layers(2)
    first, second = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(5) for layer in given)

    np.testing.assert_allclose(collect(given, None, None).rollout, second @ first, atol=1e-6)


def test_nothing_is_lost_on_the_way() -> None:
    rollout = collect(layers(12), [], None).rollout

    np.testing.assert_allclose(rollout.sum(axis=-1), 1, atol=1e-5)
    assert (rollout >= 0).all()


def test_layers_that_look_at_themselves_alone_mix_nothing() -> None:
    alone = [np.stack([np.eye(5, dtype=np.float32)] * 3)] * 4

    np.testing.assert_array_equal(collect(alone, [], None).rollout, np.eye(5))


def test_only_what_is_chosen_is_kept() -> None:
    given = layers()
    found = collect(given, [2, 4], [3])

    assert [weights.shape for weights in found.weights] == [(1, 5, 5)] * 2
    np.testing.assert_array_equal(found.weights[1][0], given[3][2])
    assert collect(given, [], None).weights == []
    np.testing.assert_array_equal(np.stack(collect(given, None, None).weights), np.stack(given))
    np.testing.assert_array_equal(found.rollout, collect(given, None, None).rollout)


def test_a_layer_that_is_not_there_is_named() -> None:
    assert chosen("layers", None, 6) is None
    assert chosen("layers", [3, 1, 3], 6) == [1, 3]
    with pytest.raises(InvalidRequest, match="heads: there is no 7; the model has 1 to 6"):
        chosen("heads", [1, 7], 6)


def test_a_token_counts_for_one_word_of_its_own_field() -> None:
    parts = [Part("text", 0, 3), Part("text", 4, 8), Part("text_pair", 0, 3)]
    places = [None, Part("text", 0, 2), Part("text", 2, 5), Part("text", 5, 8), None, Part("text_pair", 1, 2), None]
    scores = np.array([0.5, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8], dtype=np.float32)

    assert words_of(parts, places, scores) == pytest.approx([0.3, 0.3, 0.7])

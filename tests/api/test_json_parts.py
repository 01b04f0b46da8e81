"""Long answers are written part by part, as they would be in one."""

import json
import random
from typing import Any

from pydantic_core import to_json

from service.api import json_parts
from service.api.json_parts import AT_ONCE, json_of


def some(draw: random.Random, depth: int = 4) -> Any:
    """Anything that an answer may hold, with lists about as long as a part."""
    kind = draw.randrange(8 if depth else 6)
    if kind == 6:
        return {
            draw.choice(["label", 'a "quoted" one', "\u6c34", ""]): some(draw, depth - 1)
            for _ in range(draw.randrange(4))
        }
    if kind == 7:
        inner = some(draw, depth - 1)
        return [inner] * draw.choice([0, 1, 2, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
    return [
        None,
        True,
        draw.randrange(-9, 9),
        draw.random(),
        draw.choice([float("nan"), float("inf")]),
        "caf\u00e9 \n",
    ][kind]


def test_it_is_the_same_json(monkeypatch: Any) -> None:
    monkeypatch.setattr(json_parts, "FEW", 0)
    draw = random.Random(0)
    for _ in range(2_000):
        content = some(draw)
        assert json_of(content) == to_json(content, inf_nan_mode="null"), content


def test_a_short_answer_is_written_at_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(json_parts, "_parts", None)
    result = {"labels": [{"label": "positive", "score": 0.9}, {"label": "negative", "score": 0.1}], "tokens": 9}

    contents: list[Any] = [{"results": [result] * 64}, {}, [], None, "text", {"embedding": [0.5] * 1024}]
    for content in contents:
        assert json.loads(json_of(content)) == content


def test_no_part_of_a_long_answer_is_long(monkeypatch: Any) -> None:
    parts: list[int] = []

    def counted(value: object, **mode: Any) -> bytes:
        parts.append(len(to_json(value, **mode)))
        return to_json(value, **mode)

    monkeypatch.setattr(json_parts, "to_json", counted)
    span = {"label": "PER", "text": "Clara", "start": 0, "end": 5, "score": 0.9}
    vector = [0.1] * 768
    content = {"results": [{"spans": [span] * 50_000}, {"spans": []}], "vectors": [vector] * 1_000}

    assert json.loads(json_of(content)) == content
    assert max(parts) < 500_000 < sum(parts)

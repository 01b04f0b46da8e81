"""JSON of answers that may be long, written part by part."""

from collections.abc import Iterator

from pydantic_core import to_json

FEW = 5_000  # values, which take some tenths of a millisecond
AT_ONCE = 100  # elements of a list


def json_of(content: object) -> bytes:
    """``content`` as ``to_json`` writes it; what is no number is null.

    Of a list of spans or vectors only some are written at a time: one call for megabytes keeps the interpreter from
    all other threads until its end, for half a second and more.
    """
    return to_json(content, inf_nan_mode="null") if _few(content) else b"".join(_parts(content))


def _few(content: object) -> bool:
    left, within = FEW, [content]
    while within and left >= 0:
        inner = within.pop()
        values = list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, list) else []
        left -= len(values)
        if left >= 0:
            within += [value for value in values if isinstance(value, dict | list)]
    return left >= 0


def _parts(value: object) -> Iterator[bytes]:
    if isinstance(value, dict):
        before = b"{"
        for name, inner in value.items():
            yield before + to_json(name) + b":"
            yield from _parts(inner)
            before = b","
        yield b"}" if value else b"{}"
    elif isinstance(value, list) and len(value) > AT_ONCE:
        before = b"["
        for start in range(0, len(value), AT_ONCE):
            yield before + to_json(value[start : start + AT_ONCE], inf_nan_mode="null")[1:-1]
            before = b","
        yield b"]"
    elif isinstance(value, list) and value and isinstance(value[0], dict | list):
        before = b"["
        for inner in value:
            yield before
            yield from _parts(inner)
            before = b","
        yield b"]"
    else:
        yield to_json(value, inf_nan_mode="null")

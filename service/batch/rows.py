"""Files of rows, read and written: JSONL, CSV, TSV, and Parquet where pyarrow is installed."""

import csv
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from ..errors import DataError, UsageError
from ..training.datasets import dialect  # and its limit of a field

KINDS = (".jsonl", ".csv", ".tsv", ".parquet")
CHUNK = 256  # rows that are answered together, and written at once
Row = dict[str, Any]


def check_kind(path: Path) -> None:
    """By the end of its name.  UsageError where rows of that kind are not known, or take what is not installed."""
    if path.suffix not in KINDS:
        raise UsageError(f"{path}: the end of its name is none of {', '.join(KINDS)}")
    if path.suffix == ".parquet":
        _arrow("pyarrow")


def read_chunks(path: Path, skip: int = 0, size: int = CHUNK) -> Iterator[list[Row]]:
    """Rows from the one after the first ``skip``, ``size`` at a time.  DataError names file and line."""
    chunk: list[Row] = []
    for number, row in enumerate(_read(path)):
        if number < skip:
            continue
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def survey(path: Path) -> tuple[int, set[str]]:
    """How many rows a file has, for a bar, and the names of all their columns."""
    if path.suffix == ".parquet":
        facts = _arrow("pyarrow.parquet").ParquetFile(path)
        return facts.metadata.num_rows, set(facts.schema_arrow.names)
    names: set[str] = set()
    count = 0
    for row in _read(path):
        count += 1
        names.update(row)
    return count, names


def convert(lines: Path, out: Path) -> None:
    """JSONL, as rows are kept while they are made, to the kind that ``out`` is; ``out`` is whole or not there."""
    beside = out.with_name(f"{out.name}.new")
    if out.suffix == ".jsonl":
        lines.replace(out)
        return
    columns: dict[str, None] = {}
    for row in _read(lines):
        columns |= dict.fromkeys(row)
    if out.suffix == ".parquet":
        # Not by Arrow's own reader of JSON: it takes texts that look like times for times.
        rows = list(_read(lines))
        values = {name: [row.get(name) for row in rows] for name in columns}
        _arrow("pyarrow.parquet").write_table(_arrow("pyarrow").table(values), beside)
    else:
        with beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(columns), **dialect(out.name))
            writer.writeheader()
            flat = map(_flat, _read(lines))
            writer.writerows(map(_on_one_line, flat) if out.suffix == ".tsv" else flat)
    beside.replace(out)
    lines.unlink()


def _flat(row: Row) -> Row:
    """Spans and vectors as JSON: a cell holds a text."""
    return {
        name: json.dumps(one, ensure_ascii=False) if isinstance(one, list | dict) else one for name, one in row.items()
    }


def _on_one_line(row: Row) -> Row:
    """A TSV has no way to say a tab or the end of a line: they are spaces there."""
    return {name: re.sub(r"[\t\r\n]+", " ", one) if isinstance(one, str) else one for name, one in row.items()}


def _read(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        for batch in _arrow("pyarrow.parquet").ParquetFile(path).iter_batches(CHUNK):
            yield from map(_as_json, batch.to_pylist())
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            if path.suffix in (".csv", ".tsv"):
                yield from csv.DictReader(file, **dialect(path.name))
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _row(path, number, line)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error


def _as_json(row: Row) -> Row:
    """What JSON has no type for: dates and decimals as text, bytes in base64, no number as null."""
    plain: Row = to_jsonable_python(row, bytes_mode="base64", inf_nan_mode="null")
    return plain


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: no JSON: {str(error)[:100]}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: wanted an object")
    return row


def _arrow(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UsageError("Parquet takes the extra 'batch' of this package, which is not installed") from None

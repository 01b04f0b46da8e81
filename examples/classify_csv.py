"""Labels for the rows of a CSV file.

    python examples/classify_csv.py reviews.csv --column text --out labelled.csv [--model sentiment] [--url URL]

The output has the input's columns and three more: ``label``, ``score``, and ``error`` for a row that cannot be read.
"""

import argparse
import csv
import sys
from pathlib import Path

from albert_client import AlbertError, Classification, Client

ADDED = ("label", "score", "error")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Label the rows of a CSV file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--column", default="text", help="the column with the texts [text]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="sentiment", help="[sentiment]")
    parser.add_argument("--url", default="http://localhost:8000", help="[http://localhost:8000]")
    options = parser.parse_args(arguments)
    try:
        label(options.file, options.column, options.out, options.model, options.url)
    except (AlbertError, OSError, ValueError, csv.Error) as error:
        print(
            f"{options.file}: {error}" if isinstance(error, UnicodeDecodeError | csv.Error) else error, file=sys.stderr
        )
        return 1
    return 0


def label(file: Path, column: str, out: Path, model: str, url: str) -> None:
    columns, rows = read(file)
    if column not in columns:
        raise ValueError(f"{file}: no column {column!r}; it has {', '.join(columns)}")
    if taken := sorted({*ADDED} & {*columns}):
        raise ValueError(f"{file}: has a column {taken[0]!r} already, which would be written over; rename it")
    if not out.parent.is_dir():  # known before the work
        raise OSError(f"{out.parent} is no folder")
    with Client(url, deadline=300) as albert:
        texts = [row[column] or "" for row in rows]
        results = albert.classify_many(texts, model=model, top_k=1, long_text="windows", progress=True)
    with out.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, [*columns, *ADDED])
        writer.writeheader()
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Classification):
                writer.writerow(row | {"label": result.label, "score": f"{result.score:.4f}", "error": ""})
            else:
                writer.writerow(row | {"label": "", "score": "", "error": result.message})


def read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows.  ValueError names the line that has more fields than the header."""
    before = csv.field_size_limit(sys.maxsize)  # the library's own limit is for all that reads CSV in this process
    try:
        with file.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source)
            rows = list(reader)
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"{file}: row {number} has more fields than the header")
    return list(reader.fieldnames or []), rows


if __name__ == "__main__":
    sys.exit(main())

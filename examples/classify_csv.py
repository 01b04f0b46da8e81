"""Labels for the rows of a CSV file.

    python examples/classify_csv.py reviews.csv --column text --out labelled.csv [--model sentiment] [--url URL]

The output has the input's columns and three more: ``label``, ``score``, and ``error`` for a row that cannot be read.
"""

import argparse
import csv
import sys
from pathlib import Path

from albert_client import AlbertError, Classification, Client


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
    except (AlbertError, OSError, KeyError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        return 1
    return 0


def label(file: Path, column: str, out: Path, model: str, url: str) -> None:
    with file.open(newline="", encoding="utf-8-sig") as source:
        reader = csv.DictReader(source)
        columns, rows = list(reader.fieldnames or []), list(reader)
    if column not in columns:
        raise KeyError(f"{file}: no column {column!r}; it has {', '.join(columns)}")
    with Client(url, deadline=300) as albert:
        texts = [row[column] or "" for row in rows]
        results = albert.classify_many(texts, model=model, top_k=1, long_text="windows", progress=True)
    with out.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, [*columns, "label", "score", "error"])
        writer.writeheader()
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Classification):
                writer.writerow(row | {"label": result.label, "score": f"{result.score:.4f}", "error": ""})
            else:
                writer.writerow(row | {"label": "", "score": "", "error": result.message})


if __name__ == "__main__":
    sys.exit(main())

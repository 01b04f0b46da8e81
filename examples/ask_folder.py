"""One question to all text files of a folder.

    python examples/ask_folder.py FOLDER "When was the bridge opened?" [--top 3] [--url URL]

All files go into one request, so the scores of their answers compare; the service reads them in windows.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from albert_client import AlbertError, Answer, Client

SUFFIXES = {".txt", ".md", ".rst"}
MOST = 512  # documents of one request, unless the service has another max_documents
MARK = "\033[1m{}\033[0m"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask a question of all text files of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--top", type=int, default=3, help="answers, best first [3]")
    parser.add_argument("--url", default="http://localhost:8000", help="[http://localhost:8000]")
    options = parser.parse_args(arguments)
    documents = dict(read(options.folder))
    if not documents:
        print(f"{options.folder} has no file of {', '.join(sorted(SUFFIXES))}", file=sys.stderr)
        return 1
    if len(documents) > MOST:
        print(f"{options.folder} has {len(documents)} files; a request takes {MOST}: ask a part of it", file=sys.stderr)
        return 1
    try:
        with Client(options.url, deadline=300) as albert:
            answers = albert.ask(options.question, documents, top_k=options.top, no_answer=True)
    except AlbertError as error:
        print(error, file=sys.stderr)
        return 1
    if not answers:
        print(f"No answer there, most likely ({answers.no_answer_score:.0%}).")
    for answer in answers:
        print(shown(answer, documents[str(answer.document)]))
    return 0


def read(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if text.strip():
                # A name that is no UTF-8 cannot be sent as it is.
                yield str(path.relative_to(folder)).encode(errors="replace").decode(), text


def shown(answer: Answer, text: str) -> str:
    """``file:line: its line`` with the answer marked; offsets are Python's own."""
    begin = text.rfind("\n", 0, answer.start) + 1
    end = text.find("\n", answer.end)
    line = text[begin : answer.start] + MARK.format(answer.text) + text[answer.end : None if end < 0 else end]
    return f"{answer.score:4.0%}  {answer.document}:{text.count(chr(10), 0, answer.start) + 1}: {line}"


if __name__ == "__main__":
    sys.exit(main())

"""The question answering pipeline of transformers 4.57, which transformers 5 dropped.  Runs in a process of its own.

    PYTHONPATH=OVERLAY python tests/conversion/pipeline_4.py CHECKPOINT QUESTIONS [--options JSON]

OVERLAY is a folder that holds transformers 4.57 (``make .venv-transformers4/.done``).  Each line of the file QUESTIONS
is a JSON object with ``question`` and ``context``; what else it holds are arguments of the pipeline for that line, such
as ``top_k``, and go before those of ``--options``.  One line of JSON is printed for each: the list of answers, or
``{"error": ...}``.
"""

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description="Answer questions with the pipeline of transformers 4.57.")
    parser.add_argument("checkpoint")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="arguments of the pipeline, as JSON")
    args = parser.parse_args()
    import transformers

    if not transformers.__version__.startswith("4."):
        print(f"transformers {transformers.__version__} has no such pipeline: wanted 4.57", file=sys.stderr)
        return 1
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # In float32, for the pipeline would otherwise compute in what the checkpoint is stored in, which may be float16.
    answer = transformers.pipeline("question-answering", model=args.checkpoint, device="cpu", dtype="float32")
    for line in args.questions.read_text(encoding="utf-8").splitlines():
        print(json.dumps(answers(answer, args.options | json.loads(line))), flush=True)
    return 0


def answers(pipeline: Any, arguments: dict[str, Any]) -> Any:
    """What the pipeline says to one question, always as a list, or why it says nothing."""
    try:
        found = pipeline(**arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        return {"error": f"{type(error).__name__}: {error}"}
    return found if isinstance(found, list) else [found]


if __name__ == "__main__":
    sys.exit(main())

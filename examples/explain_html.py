"""Why a text got its label, as a page of HTML that needs nothing else.

python examples/explain_html.py "It was not good." --out why.html [--model sentiment] [--url URL]
"""

import argparse
import html
import sys
from pathlib import Path

from albert_client import AlbertError, Client, Explanation

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 18px/1.8 system-ui; max-width: 45rem; margin: 2rem auto }} td {{ padding-right: 1rem }}</style>
<h1>{title}</h1>
<p>{words}</p>
<p>Green words speak for it, red ones against it: a word's score is what the label loses without the word.</p>
<table><tr><th>turn of the shared layer<th>{label}</tr>{turns}</table>
</html>
"""
FOR, AGAINST = "16, 122, 87", "190, 58, 42"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Explain a label as a page of HTML.")
    parser.add_argument("text")
    parser.add_argument("--out", type=Path, default=Path("why.html"), help="[why.html]")
    parser.add_argument("--model", default="sentiment", help="[sentiment]")
    parser.add_argument("--url", default="http://localhost:8000", help="[http://localhost:8000]")
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir():  # known before the work
            raise OSError(f"{options.out.parent} is no folder")
        with Client(options.url) as albert:
            words = albert.explain(options.text, model=options.model)
            turns = albert.explain(options.text, model=options.model, method="depth")
    except (AlbertError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    options.out.write_text(page(options.text, words, turns), encoding="utf-8")
    print(options.out)
    return 0


def page(text: str, words: Explanation, turns: Explanation) -> str:
    label = words.label or ""
    rows = "".join(
        f"<tr><td>{one.depth}<td>{score:.1%}</tr>"
        for one in turns.depths
        for score in [next(found.score for found in one.labels if found.label == label)]
    )
    title = html.escape(f"{label}: {words.score:.1%}")
    return PAGE.format(title=title, words=shaded(text, words), label=html.escape(label), turns=rows)


def shaded(text: str, explanation: Explanation) -> str:
    most = max([abs(word.score or 0.0) for word in explanation.words] + [1e-9])
    parts, at = [], 0
    for word in explanation.words:
        score = word.score or 0.0
        style = f"background: rgba({FOR if score > 0 else AGAINST}, {0.6 * abs(score) / most:.2f})"
        parts += [html.escape(text[at : word.start]), f'<span style="{style}" title="{score:+.3f}">']
        parts += [html.escape(word.text), "</span>"]
        at = word.end
    return "".join(parts) + html.escape(text[at:])


if __name__ == "__main__":
    sys.exit(main())

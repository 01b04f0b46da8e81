"""The drawings of docs/architecture.md, as SVG: the three graphs, packing, stepping and early exit.

python docs/drawings.py
"""

from pathlib import Path

FOLDER = Path(__file__).with_name("images")
INK, DIM, PAPER = "#1a1d21", "#535b66", "#ffffff"
COLOURS = ("#7fc8a9", "#8ab8e6", "#f2b880", "#c9a6e4")
EMPTY = "#eceff3"


class Drawing:
    """Shapes on white, so that it reads in the dark, too.  Lengths in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{title}" font-family="system-ui, sans-serif" font-size="14">',
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{DIM}"/></marker></defs>',
        ]

    def box(self, x: float, y: float, width: float, height: float, text: str = "", fill: str = EMPTY) -> None:
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" stroke="{PAPER}" rx="2"/>'
        )
        if text:
            self.text(x + width / 2, y + height / 2 + 5, text)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", colour: str = INK, size: int = 14) -> None:
        self._parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{text}</text>'
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        path = " ".join(f"{x},{y}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{DIM}" stroke-width="1.5" marker-end="url(#tip)"/>'
        )

    def save(self, name: str) -> None:
        (FOLDER / name).write_text("\n".join([*self._parts, "</svg>\n"]), encoding="utf-8")


def graphs() -> Drawing:
    drawn = Drawing(760, 210, "embed, then the shared layer k times, then the head")
    drawn.box(40, 80, 130, 56, "embed", COLOURS[1])
    drawn.box(300, 80, 150, 56, "layers", COLOURS[0])
    drawn.box(580, 80, 130, 56, "head", COLOURS[2])
    drawn.arrow((170, 108), (296, 108))
    drawn.arrow((450, 108), (576, 108))
    drawn.arrow((430, 80), (430, 40), (320, 40), (320, 76))
    drawn.text(375, 30, "k times, from any depth", colour=DIM)
    drawn.text(233, 98, "hidden", colour=DIM, size=12)
    drawn.text(513, 98, "hidden", colour=DIM, size=12)
    drawn.text(105, 160, "ids of all texts (tokens)", colour=DIM, size=12)
    drawn.text(375, 160, "one copy of the weights", colour=DIM, size=12)
    drawn.text(645, 160, "logits, at any depth", colour=DIM, size=12)
    drawn.text(380, 195, "three small graphs over one weights.bin", colour=INK, size=13)
    return drawn


LENGTHS = (5, 12, 3, 7)


def packing() -> Drawing:
    drawn = Drawing(760, 230, "a padded batch computes empty places, a packed one only tokens")
    cell = 18
    drawn.text(20, 24, "padded: rows times the longest, 48 places for 27 tokens", anchor="start", colour=DIM)
    for row, length in enumerate(LENGTHS):
        for column in range(max(LENGTHS)):
            fill = COLOURS[row] if column < length else EMPTY
            drawn.box(20 + cell * column, 36 + cell * row, cell, cell, fill=fill)
    drawn.text(
        20, 150, "packed: 27 tokens end to end; only attention knows where a text begins", anchor="start", colour=DIM
    )
    column = 0
    for row, length in enumerate(LENGTHS):
        for _ in range(length):
            drawn.box(20 + cell * column, 162, cell, cell, fill=COLOURS[row])
            column += 1
    for row, length in enumerate(LENGTHS):
        start = 20 + cell * sum(LENGTHS[:row])
        drawn.text(start + cell * length / 2, 205, f"text {row + 1}", size=12, colour=DIM)
    return drawn


def lanes(title: str, note: str, lines: list[tuple[str, list[tuple[int, int, int]]]], ticks: int) -> Drawing:
    """Each line is a text: (first turn, turns, colour); a column is a turn of the shared layer."""
    cell, left = 40, 150
    drawn = Drawing(left + cell * ticks + 40, 80 + 40 * len(lines), title)
    for turn in range(ticks):
        drawn.text(left + cell * (turn + 0.5), 24, str(turn + 1), colour=DIM, size=12)
    drawn.text(left - 10, 24, "turn of the layer", anchor="end", colour=DIM, size=12)
    for number, (name, runs) in enumerate(lines):
        drawn.text(left - 10, 60 + 40 * number, name, anchor="end")
        for first, turns, colour in runs:
            drawn.box(left + cell * first, 40 + 40 * number, cell * turns, 30, fill=COLOURS[colour])
    drawn.text(20, 66 + 40 * len(lines), note, anchor="start", colour=DIM, size=13)
    return drawn


def stepping() -> Drawing:
    lines = [
        ("long text", [(0, 3, 1), (7, 3, 1)]),
        ("short text", [(3, 4, 0)]),
        ("second short one", [(4, 3, 0)]),
    ]
    note = "A short text comes in turn 3: the long one waits with its hidden state, and goes on."
    return lanes("a short text passes a long one between two layers", note, lines, 13)


def exits() -> Drawing:
    lines = [
        ("sure at once", [(0, 1, 0)]),
        ("unsure", [(0, 6, 1)]),
        ("takes the place", [(1, 2, 0)]),
        ("and the next", [(3, 4, 0)]),
    ]
    note = "Whoever is sure leaves after a turn, and another takes the place at once."
    return lanes("a text that is sure leaves, and another takes its place", note, lines, 10)


def main() -> None:
    for name, make in {"graphs": graphs, "packing": packing, "stepping": stepping, "exits": exits}.items():
        make().save(f"{name}.svg")


if __name__ == "__main__":
    main()

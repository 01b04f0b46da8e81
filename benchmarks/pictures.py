"""Pictures of the figures: points with names, and what grows with what."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is wanted
from matplotlib import pyplot as plt

from service.training.pictures import ACCENT, INK, PALE


def draw_points(
    series: Mapping[str, Sequence[tuple[float, float, str]]], title: str, x: str, y: str, path: Path
) -> None:
    """Named points, joined in their order; a line a series."""
    figure, axes = plt.subplots(figsize=(6.5, 4))
    for color, (name, points) in zip((ACCENT, INK, PALE), series.items(), strict=False):
        axes.plot(*zip(*[point[:2] for point in points], strict=True), color=color, marker="o", label=name)
        for across, up, said in points:
            axes.annotate(said, (across, up), textcoords="offset points", xytext=(5, 5), fontsize=7, color=INK)
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_growth(panels: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """By what is counted: seconds against it, both in powers; dashed is what grows as fast as its count."""
    figure, grid = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.4))
    for axes, (name, points) in zip(grid, panels.items(), strict=True):
        count, seconds = zip(*points, strict=True)
        axes.loglog(count, seconds, color=ACCENT, marker="o", markersize=3)
        axes.loglog(count, [seconds[-1] * n / count[-1] for n in count], color=PALE, linestyle="--")
        axes.set_title(name, color=INK, fontsize=10)
        axes.set_ylabel("seconds")
        axes.grid(alpha=0.25, which="both")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)

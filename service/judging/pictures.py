"""Pictures of what was judged."""

from collections.abc import Sequence as Seq
from pathlib import Path

from matplotlib import pyplot as plt

from ..training.pictures import ACCENT, INK, PALE, label, save
from .bias import Difference
from .compare import Compared
from .robustness import Effect


def draw_compared(found: Seq[Compared], path: Path) -> None:
    """Score with its interval against rows a second; the larger the dot the larger the model."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for one in found:
        low, high = one.interval
        axes.errorbar(
            one.rows_per_second,
            one.score,
            yerr=[[one.score - low], [high - one.score]],
            color=PALE,
            capsize=3,
            zorder=1,
        )
        axes.scatter(one.rows_per_second, one.score, s=12 + one.size / 1e5, color=ACCENT, zorder=2)
        axes.annotate(
            one.model, (one.rows_per_second, one.score), xytext=(6, 4), textcoords="offset points", fontsize=8
        )
    label(axes, "which model", "rows a second on this device", "score, 95 %")
    save(figure, path)


def draw_effects(effects: Seq[Effect], model: str, path: Path) -> None:
    """The score before and after each change."""
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.4 * len(effects)))
    places = range(len(effects))
    axes.hlines(places, [one.after for one in effects], [one.before for one in effects], color=PALE, linewidth=2)
    axes.scatter([one.before for one in effects], places, color=INK, label="before", zorder=2, s=20)
    axes.scatter([one.after for one in effects], places, color=ACCENT, label="after", zorder=3, s=20)
    axes.set_yticks(places, [one.change for one in effects], fontsize=8)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    label(axes, f"{model}: changed texts", "score", "")
    save(figure, path)


def draw_differences(found: Seq[Difference], model: str, path: Path) -> None:
    """The mean difference of each pair of groups, and the largest of single texts."""
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.45 * len(found)))
    places = range(len(found))
    axes.barh(places, [one.largest for one in found], color=PALE, height=0.5, label="largest")
    axes.barh(places, [one.mean for one in found], color=ACCENT, height=0.3, label="mean")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, [f"{one.groups[0]} - {one.groups[1]}" for one in found], fontsize=8)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    label(axes, f"{model}: one word changed", "difference of scores", "")
    save(figure, path)

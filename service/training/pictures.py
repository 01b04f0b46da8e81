"""Pictures, where looking beats reading: curves of a run, confusion, reliability, quality against depth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.use("Agg")  # no screen is wanted
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .scores import Bin

INK, ACCENT, PALE = "#1b2a41", "#d1495b", "#8d99ae"


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and dev score by step."""
    steps = [entry["step"] for entry in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    left.plot(steps, [entry["loss"] for entry in history], color=INK, marker="o", markersize=3)
    label(left, "training loss", "step", "loss")
    for name, color in (("score", ACCENT), ("mlm_loss", INK), ("sop_loss", PALE)):
        if history and name in history[0]:
            right.plot(steps, [entry[name] for entry in history], color=color, marker="o", markersize=3, label=name)
    if len(right.lines) > 1:
        right.legend(frameon=False)
    label(right, "on held-out data", "step", "dev score" if len(right.lines) < 2 else "")
    save(figure, path)


def draw_confusion(table: npt.NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """``table`` (gold, given) as shares of each gold label, with the counts written in."""
    shares = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    size = 2.2 + 0.8 * len(labels)
    figure, axes = plt.subplots(figsize=(size, size))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for gold, given in np.ndindex(table.shape):
        color = "white" if shares[gold, given] > 0.5 else INK
        axes.text(given, gold, str(table[gold, given]), ha="center", va="center", color=color)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    label(axes, "confusion", "given", "right")
    axes.grid(visible=False)
    save(figure, path)


def draw_reliability(bins: Sequence[Bin], error: float, path: Path) -> None:
    """How often an answer with a score of x is right; on the diagonal a score is a probability."""
    figure, axes = plt.subplots(figsize=(4.2, 4))
    axes.plot([0, 1], [0, 1], color=PALE, linestyle="--", linewidth=1)
    filled = [one for one in bins if one.count]
    largest = max((one.count for one in filled), default=1)
    axes.bar(
        [one.confidence for one in filled], [one.accuracy for one in filled], width=0.04, color=ACCENT,
        alpha=0.85, zorder=2,
    )  # fmt: skip
    axes.bar([one.confidence for one in filled], [0.15 * one.count / largest for one in filled], width=0.02, color=PALE)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    label(axes, f"reliability, calibration error {error:.3f}", "score (grey: how many)", "share that is right")
    save(figure, path)


def draw_exits(points: Sequence[Mapping[str, Any]], full: float, gate: float, path: Path) -> None:
    """Quality against mean depth, a line a policy; the dashed line is what the gate allows."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for kind, color in (("confidence", ACCENT), ("window", INK), ("depth", PALE)):
        line = sorted((point["mean_depth"], point["score"]) for point in points if point["kind"] == kind)
        if line:
            axes.plot(*zip(*line, strict=True), color=color, marker="o", markersize=3, label=kind)
    axes.axhline(full, color=INK, linewidth=0.8)
    axes.axhline(full - gate, color=INK, linewidth=0.8, linestyle="--")
    axes.legend(frameon=False)
    label(axes, "early exit", "mean depth (layers run)", "score")
    save(figure, path)


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_load(series: Mapping[str, Sequence[tuple[float, float, float]]], unit: str, path: Path) -> None:
    """By kind of request: load, median and 99th percentile in ms."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for color, (kind, points) in zip((INK, ACCENT, PALE, "#3a7d44"), series.items(), strict=False):
        load, middle, high = zip(*points, strict=True)
        axes.plot(load, middle, color=color, marker="o", markersize=3, label=f"{kind}, p50")
        axes.plot(load, high, color=color, marker="o", markersize=3, linestyle="--", label=f"{kind}, p99")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)
    label(axes, "latency against load", unit, "ms")
    save(figure, path)

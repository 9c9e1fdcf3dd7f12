"""Figures that the chapters share, and the one way in which a chapter shows a figure.

Each function returns a matplotlib `Figure` and displays nothing. `show(figure, alt)` does that: a
PNG whose text for readers who cannot see it travels in the output's metadata.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

if TYPE_CHECKING:  # a figure needs neither PyTorch nor transformers
    from electra_tutorial.breakdowns import Calibration

# Okabe and Ito's palette, distinct under the common colour blindnesses, without its yellow, which
# vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
PIXELS_PER_INCH = 96  # of the displayed picture; the PNG holds more, for sharp screens
DOTS_PER_INCH = 160

STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "figure.figsize": (6.4, 3.8),
    # White, never transparent: black text on a transparent figure is unreadable on a dark page.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 2.0,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}


def use_style() -> None:
    """Give the figures that a chapter draws itself the look of the shared ones."""
    matplotlib.rcParams.update(STYLE)


def show(figure: Figure, alt: str) -> None:
    """Display `figure` as a PNG with the text alternative `alt`, and close it.

    The file holds no date, path or version, so the same figure gives the same bytes.

    Raises:
        TypeError: if `figure` is not a figure.
        ValueError: if `alt` is empty.
    """
    from IPython.display import Image, display

    if not hasattr(figure, "savefig"):
        kind = type(figure).__name__
        raise TypeError(f"show() needs a matplotlib Figure, not {kind}; pass the whole figure.")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("show() needs alt text; say in a sentence what the figure shows.")
    buffer = io.BytesIO()
    width = round(figure.get_figwidth() * PIXELS_PER_INCH)
    save(figure, buffer)
    display(Image(data=buffer.getvalue(), format="png", width=width, alt=" ".join(alt.split())))


def save(figure: Figure, file: str | Path | io.BytesIO) -> None:
    """Write `figure` as the PNG that `show()` displays, and close it."""
    figure.savefig(
        file, format="png", dpi=DOTS_PER_INCH, facecolor="white", metadata={"Software": None}
    )
    plt.close(figure)


def curves(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
) -> Figure:
    """One line for each name in `lines`: name -> (x, y).

    x has shape (points,). y has shape (points,), or (runs, points): then the line is the mean over
    the runs, and a band reaches from the lowest to the highest. `levels` adds named dashed
    horizontal lines.

    Raises:
        ValueError: if a curve has another number of x than of y.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        for name, (x, y) in lines.items():
            runs = np.atleast_2d(np.asarray(y, dtype=float))
            steps = np.asarray(x, dtype=float)
            if steps.shape != runs.shape[1:]:
                raise ValueError(
                    f"The curve {name!r} has {steps.size} x values but {runs.shape[1]} y values; "
                    "give one y for each x."
                )
            (line,) = axes.plot(steps, runs.mean(axis=0), label=name)
            if len(runs) > 1:
                low, high = runs.min(axis=0), runs.max(axis=0)
                axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        for number, (name, level) in enumerate((levels or {}).items()):
            dashes = ("--", ":", "-.")[number % 3]
            axes.axhline(level, linestyle=dashes, color="#555555", linewidth=1.5, label=name)
        if log_x:
            axes.set_xscale("log")
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if len(lines) + len(levels or {}) > 1:
            axes.legend()
    return figure


def bars(
    names: Sequence[str],
    series: Mapping[str, ArrayLike],
    *,
    ylabel: str,
    errors: Mapping[str, ArrayLike] | None = None,
    title: str = "",
    digits: int = 2,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Grouped bars: one group for each of `names`, in it one bar for each entry of `series`.

    Each series has shape (names,). `errors` holds, for the same keys, half-widths of shape (names,)
    or distances below and above of shape (2, names). Every bar carries its value with `digits`
    digits.

    Raises:
        ValueError: if a series has another number of values than there are names.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        width = 0.8 / len(series)
        for number, (label, values) in enumerate(series.items()):
            heights = np.asarray(values, dtype=float)
            if heights.shape != (len(names),):
                raise ValueError(
                    f"The series {label!r} has shape {heights.shape}; give one value for each of "
                    f"the {len(names)} names."
                )
            centres = np.arange(len(names)) + (number - (len(series) - 1) / 2) * width
            error = None if errors is None or label not in errors else np.asarray(errors[label])
            drawn = axes.bar(centres, heights, width * 0.92, label=label, yerr=error, capsize=4)
            axes.bar_label(drawn, fmt=f"%.{digits}f", padding=3, fontsize=10)
        axes.set_xticks(np.arange(len(names)), names)
        axes.tick_params(axis="x", rotation=20 if max(map(len, names)) * len(names) > 48 else 0)
        axes.grid(visible=False, axis="x")
        axes.set(ylabel=ylabel, title=title, ylim=limits)
        axes.margins(y=0.12)
        if len(series) > 1:
            figure.legend(loc="outside upper right", ncols=len(series))
    return figure


def matrix(
    values: ArrayLike,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    digits: int = 2,
    annotate: bool | None = None,
) -> Figure:
    """A matrix of shape (rows, columns) as colours: attention weights, a confusion matrix.

    Cells carry their value, with `digits` digits, when there are at most 12 columns or when
    `annotate` says so.

    Raises:
        ValueError: if the names do not fit the shape.
    """
    grid = np.asarray(values, dtype=float)
    if grid.shape != (len(row_names), len(column_names)):
        raise ValueError(
            f"The matrix has shape {grid.shape}, but there are {len(row_names)} row names and "
            f"{len(column_names)} column names; give one name for each row and column."
        )
    with matplotlib.rc_context(STYLE):
        cell = 6.4 / (len(column_names) + 3)
        figure = Figure(figsize=(6.4, min(7.0, max(2.2, cell * len(row_names) + 1.6))))
        axes = figure.subplots()
        few = grid.shape[1] <= 12
        shown = _colour_cells(axes, grid, digits, few if annotate is None else annotate)
        figure.colorbar(shown, ax=axes, shrink=0.85)
        turned = max(map(len, column_names)) * len(column_names) > 30
        axes.set_xticks(range(len(column_names)), column_names, rotation=60 if turned else 0)
        axes.set_yticks(range(len(row_names)), row_names)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def reliability(calibration: Calibration) -> Figure:
    """How often a classifier is right over how sure it was; on the diagonal it can be believed.

    One point for each bin of `breakdowns.calibration()`; beside it the number of its items, which
    its area follows.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "--", color="#555555", linewidth=1.5, label="as right as sure")
        error = f"bins, expected calibration error {calibration.expected_error:.3f}"
        axes.plot(calibration.confidence, calibration.accuracy, color=PALETTE[0], linewidth=1)
        area = 30 + 300 * calibration.count / calibration.count.sum()
        axes.scatter(calibration.confidence, calibration.accuracy, area, PALETTE[0], label=error)
        for sure, right, count in zip(
            calibration.confidence, calibration.accuracy, calibration.count, strict=True
        ):
            # Below the diagonal there is room on the right, above it on the left.
            left = right > sure
            axes.annotate(
                f"{count:,}",
                (sure, right),
                xytext=(-10 if left else 10, 4 if left else -10),
                textcoords="offset points",
                ha="right" if left else "left",
            )
        axes.set(
            xlabel="probability of the class that was called",
            ylabel="share that was right",
            xlim=(0, 1.05),
            ylim=(-0.03, 1.05),
        )
        axes.legend(loc="upper left", markerscale=0.5)
    return figure


def token_heatmap(
    tokens: Sequence[str],
    rows: ArrayLike,
    row_names: Sequence[str],
    *,
    marked: Sequence[int] = (),
    title: str = "",
    tokens_per_line: int = 10,
) -> Figure:
    """Probabilities between 0 and 1 for the tokens of a sentence: of having been replaced, say.

    `rows` has shape (rows, tokens), one row for each name (before, after). Positions in `marked`
    are printed bold and orange. A long sentence continues on the next line of the figure, so that
    it stays legible on a phone.

    Raises:
        ValueError: if there is no token, or names and tokens do not fit the shape.
    """
    grid = np.atleast_2d(np.asarray(rows, dtype=float))
    if grid.shape != (len(row_names), len(tokens)) or not tokens:
        raise ValueError(
            f"The probabilities have shape {grid.shape}, but there are {len(row_names)} row names "
            f"and {len(tokens)} tokens; give one probability for each row and token."
        )
    lines = -(-len(tokens) // tokens_per_line)
    columns = min(len(tokens), tokens_per_line)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, lines * (0.9 + 0.42 * len(row_names)) + 0.5))
        all_axes = figure.subplots(lines, 1, squeeze=False)[:, 0]
        for line, axes in enumerate(all_axes):
            start = line * tokens_per_line
            part = grid[:, start : start + tokens_per_line]
            shown = _colour_cells(axes, part, 2, True, limits=(0.0, 1.0))
            names = tokens[start : start + tokens_per_line]
            axes.set_xlim(-0.5, columns - 0.5)
            axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
            for position, label in enumerate(axes.get_xticklabels(), start=start):
                if position in marked:
                    label.set(color=PALETTE[1], fontweight="bold")
            axes.set_yticks(range(len(row_names)), row_names)
        figure.colorbar(shown, ax=list(all_axes), shrink=0.9, label="probability")
        if title:
            figure.suptitle(title, fontsize=13)
    return figure


def roofline(machines: Mapping[str, tuple[float, float, float, float]]) -> Figure:
    """What a program reaches on a machine, under the two limits of the machine.

    `machines` maps a name to (peak in operations a second, bandwidth in bytes a second, operations
    that the program computes for each byte that it moves, operations a second that it reaches). The
    limit is min(peak, bandwidth x operations per byte): memory limits on the left, computing on the
    right (Williams, Waterman and Patterson, 2009).

    Raises:
        ValueError: if there is no machine, or a number is not positive.
    """
    if not machines:
        raise ValueError("A roofline needs at least one machine; give its peak and bandwidth.")
    for name, numbers in machines.items():
        if not all(number > 0 for number in numbers):
            raise ValueError(f"The numbers of {name!r} must be positive, not {numbers}.")
    places = [m[2] for m in machines.values()] + [m[0] / m[1] for m in machines.values()]
    x = np.geomspace(min(places) / 4, max(places) * 4, 200)
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        for name, (peak, bandwidth, intensity, reached) in machines.items():
            (line,) = axes.plot(x, np.minimum(peak, bandwidth * x) / 1e9, label=f"{name}: limit")
            axes.plot(
                intensity, reached / 1e9, "o", color=line.get_color(), markersize=9, label=name
            )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="operations for each byte moved",
            ylabel="GFLOP/s",
        )
        axes.legend()
    return figure


def _colour_cells(
    axes: Axes,
    grid: np.ndarray,
    digits: int,
    annotate: bool,
    limits: tuple[float, float] | None = None,
) -> AxesImage:
    """Draw `grid` (rows, columns) on `axes`; write each value in the tone that contrasts."""
    low, high = limits or (min(0.0, float(grid.min())), float(grid.max()))
    shown = axes.imshow(grid, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for edge in np.arange(grid.shape[0] + 1) - 0.5:
        axes.axhline(edge, color="white", linewidth=2)
    for edge in np.arange(grid.shape[1] + 1) - 0.5:
        axes.axvline(edge, color="white", linewidth=2)
    if annotate:
        size = 11 if grid.shape[1] <= 10 else 8
        for (row, column), value in np.ndenumerate(grid):
            tone = "white" if (value - low) > 0.6 * (high - low) else "black"
            text = f"{value:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", color=tone, fontsize=size)
    return shown

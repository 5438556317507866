"""Curves, bars and scatter plots as inline SVG with the colours of the page, light or dark.

Matplotlib draws with placeholder colours, which are replaced by CSS variables. Text stays text.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from hnc_ds.records import Result

RUN_COLOURS = 6
"""Further runs repeat the colours."""

_MUTED, _RULE, _CHANCE, _INK = "#000001", "#000002", "#000003", "#000004"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _RULE: "--rule", _CHANCE: "--chance"} | {
    f"#0000{16 + run:02x}": f"--run-{run}" for run in range(RUN_COLOURS)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hnc-ds",
    "text.parse_math": False,  # a type may be called $x
    "text.color": _MUTED,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "font.size": 10,
    "axes.linewidth": 0.8,
}
_X_LETTERS, _Y_LETTERS = 60, 44
"""Maximum letters per line of an axis title."""
_LETTER, _LINE = 0.018, 0.045
"""Width and height of a label's letter, as fractions of the range of a scatter plot's points."""
_MARGIN = 0.12
"""Margin of a scatter plot, as a fraction of the range of its points."""
_POINTS = 400
"""Maximum points of a drawn curve; longer logs are averaged."""

Curve = Sequence[tuple[float, float]]
"""(step, value) of one run."""


class Labelled(NamedTuple):
    """A point of a scatter plot; values are fractions."""

    x: float
    y: float
    label: str
    across: tuple[float, float] | None = None
    """Interval of x, if any."""
    up: tuple[float, float] | None = None
    """Interval of y, if any."""


def curves(
    curves_by_run: Mapping[int, Curve],
    *,
    share: bool,
    chance: float | None,
    ticks: Sequence[float] = (),
    faint: Mapping[int, Sequence[Curve]] = MappingProxyType({}),
) -> str:
    """One panel: a line per run over the steps.

    Args:
        curves_by_run: Points by number of the run (its colour).
        share: Values are fractions, shown as percent from 0 to 100.
        chance: Position of the line at chance, if any.
        ticks: Labels of the x axis; a few round numbers by default.
        faint: Curves of the single seeds behind a run that is a mean, drawn thin.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.5, 2.5), layout="constrained")
        axes = figure.add_subplot()
        _quiet(axes, "y")
        for run, curve in curves_by_run.items():
            for single in faint.get(run, ()):
                _draw_faint(axes, np.array(single, dtype=float), _colour(run))
            _draw_curve(axes, np.array(curve, dtype=float), _colour(run))
        if share:
            axes.set_ylim(0, 1.03)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
        if chance is not None:
            axes.axhline(chance, color=_CHANCE, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        axes.xaxis.set_major_locator(FixedLocator(ticks) if ticks else MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure)


def bars(
    labels: Sequence[str], results: Sequence[Sequence[Result | None]], chance: float | None
) -> str:
    """Horizontal bars of fractions with intervals: a block per label, a bar per run.

    Args:
        labels: One per block, drawn from the top.
        results: One per run for each label; None leaves a gap, and runs without any are left out.
        chance: Position of the line at chance, if any.
    """
    present = [run for run in range(len(results[0])) if any(row[run] for row in results)]
    runs = max(1, len(present))
    thickness = 0.72 / runs
    with matplotlib.rc_context(_STYLE):
        height = 0.55 + len(labels) * (0.2 + 0.15 * runs)
        figure = Figure(figsize=(5.0, height), layout="constrained")
        axes = figure.add_subplot()
        _quiet(axes, "x")
        for block, row in enumerate(results):
            for place, run in enumerate(present):
                if result := row[run]:
                    y = block + (place - (runs - 1) / 2) * thickness
                    _draw_bar(axes, y, 0.86 * thickness, result, _colour(run))
        if chance is not None:
            axes.axvline(chance, color=_CHANCE, linestyle=(0, (4, 3)), linewidth=1, zorder=4)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.set_xlim(0, 1.005)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.tick_params(length=0, labelsize=9)
        return _svg(figure)


def scatter(points_by_run: Mapping[int, Sequence[Labelled]], x_title: str, y_title: str) -> str:
    """A scatter plot of fractions: a line per run through its points; labels that fit are drawn.

    The first point of the first run has a ring and dashed lines through it.

    Args:
        points_by_run: Points in order, by number of the run (its colour).
        x_title: Title of the x axis.
        y_title: Title of the y axis.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        axes = figure.add_subplot()
        _quiet(axes, "y")
        axes.grid(axis="x", color=_RULE, linewidth=0.8)
        for run, points in points_by_run.items():
            across, up = [point.x for point in points], [point.y for point in points]
            axes.plot(across, up, color=_colour(run), linewidth=1.2, marker="o", markersize=5)
            for point in points:
                _draw_ends(axes, point, _colour(run))
        if 0 in points_by_run:
            _draw_reference(axes, points_by_run[0][0])
        for point, leftward in _with_room(list(points_by_run.values())):
            place, offset = (point.x, point.y), (-7 if leftward else 7, 4)
            side = "right" if leftward else "left"
            axes.annotate(
                point.label, place, offset, textcoords="offset points", fontsize=8, ha=side
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
        axes.set_xlabel(textwrap.fill(x_title, _X_LETTERS), fontsize=9)
        axes.set_ylabel(textwrap.fill(y_title, _Y_LETTERS), fontsize=9)
        axes.margins(_MARGIN)
        return _svg(figure)


def _draw_ends(axes: Axes, point: Labelled, colour: str) -> None:
    style: dict[str, Any] = {"color": colour, "linewidth": 0.9, "alpha": 0.55, "zorder": 1.5}
    if point.across:
        axes.plot(point.across, [point.y, point.y], **style)
    if point.up:
        axes.plot([point.x, point.x], point.up, **style)


def _draw_reference(axes: Axes, point: Labelled) -> None:
    axes.scatter([point.x], [point.y], s=110, facecolors="none", edgecolors=_INK, linewidths=1.2)
    for line, place in ((axes.axvline, point.x), (axes.axhline, point.y)):
        line(place, color=_CHANCE, linestyle=(0, (4, 3)), linewidth=1, zorder=1)


def _with_room(lines: Sequence[Sequence[Labelled]]) -> list[tuple[Labelled, bool]]:
    """Points whose labels do not overlap earlier ones, ends of lines first; each with whether its
    label is on its left, because there is no room on its right."""
    every = [point for points in lines for point in points]
    ends = [point for points in lines for point in (points[0], points[-1])]
    places = [[x for p in every for x in (p.x, *(p.across or ()))]]
    places.append([y for p in every for y in (p.y, *(p.up or ()))])
    width, height = (np.ptp(on_axis) or 0.01 for on_axis in places)
    first, last = min(places[0]) - _MARGIN * width, max(places[0]) + _MARGIN * width
    found: list[tuple[Labelled, bool]] = []
    taken: list[tuple[float, float, float]] = []  # left, right, height of a label
    for point in dict.fromkeys((*ends, *every)):
        reach = _LETTER * len(point.label) * width
        for left in (point.x, point.x - reach):
            right = left + reach
            free = not any(
                left < its_right and its_left < right and abs(y - point.y) < _LINE * height
                for its_left, its_right, y in taken
            )
            if free and first <= left and right <= last:
                taken.append((left, right, point.y))
                found.append((point, left < point.x))
                break
    return found


def _draw_faint(axes: Axes, points: np.ndarray, colour: str) -> None:
    raw = _thinned(points)
    shown = raw if len(raw) < 8 else np.stack([raw[:, 0], _smoothed(raw[:, 1])], axis=1)
    axes.plot(*shown.T, color=colour, linewidth=0.8, alpha=0.45)


def _thinned(points: np.ndarray) -> np.ndarray:
    """The points [N, 2], or means of neighbours if they are more than _POINTS."""
    chunks = np.array_split(points, min(len(points), _POINTS))
    return np.array([chunk.mean(axis=0) for chunk in chunks])


def _draw_curve(axes: Axes, points: np.ndarray, colour: str) -> None:
    raw = _thinned(points)
    if len(raw) < 8:
        axes.plot(*raw.T, color=colour, linewidth=1.8, marker="o", markersize=3)
        return
    axes.plot(*raw.T, color=colour, linewidth=0.8, alpha=0.35)
    axes.plot(raw[:, 0], _smoothed(raw[:, 1]), color=colour, linewidth=1.8)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Moving average over about a 15th of the curve, shorter at the ends."""
    width = max(3, len(values) // 15) | 1
    kernel = np.ones(width)
    weight = np.convolve(np.ones(len(values)), kernel, mode="same")
    smooth: np.ndarray = np.convolve(values, kernel, mode="same") / weight
    return smooth


def _draw_bar(axes: Axes, y: float, height: float, result: Result, colour: str) -> None:
    axes.barh(y, result.value, height=height, color=colour, alpha=0.85, linewidth=0, zorder=3)
    ends = [[max(0.0, result.value - result.low)], [max(0.0, result.high - result.value)]]
    axes.errorbar(
        result.value, y, xerr=ends, color=_INK, linewidth=1.2, capsize=2, capthick=1.2, zorder=5
    )


def _quiet(axes: Axes, lines: str) -> None:
    """Remove frame and ticks, and draw faint grid lines."""
    axes.spines[["top", "right", "left" if lines == "y" else "bottom"]].set_visible(False)
    axes.grid(axis="y" if lines == "y" else "x", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _colour(run: int) -> str:
    return f"#0000{16 + run % RUN_COLOURS:02x}"


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without size, background and ids of axes."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: _restyled(tag[0]), svg)  # tags only, never text
    return svg.replace("<svg", '<svg aria-hidden="true"', 1)


def _restyled(tag: str) -> str:
    tag = re.sub(r' (?:id="[\w.]+_\d+"|xmlns(?::xlink)?="[^"]*"|version="1.1")', "", tag)
    tag = re.sub(r"font-family: [^;\"]*; ", "", tag)
    if tag.startswith("<svg"):
        tag = re.sub(r' (?:width|height)="[^"]*"', "", tag)
    for mark, variable in _VARIABLES.items():
        tag = tag.replace(mark, f"var({variable})")
    return tag

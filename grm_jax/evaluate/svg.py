"""Small charts as SVG that takes its colours from the page it stands in: light and dark are the page's business.

Everything drawn has a class (`grid`, `line-0`, `band-0`, `bar-0`, ...) and no colour of its own; every mark has a title that a
pointer shows. Text that comes from outside is escaped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 460, 260
Place = Callable[[float, float], tuple[float, float]]  # from values to the drawing's coordinates
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 12, 40
_TICK_WIDTH = 28


@dataclass(frozen=True)
class Series:
    """A line: its name, its points (x, y), and low and high of each, or none."""

    name: str
    points: Sequence[tuple[float, float]]
    bands: Sequence[tuple[float, float]] = ()


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    unit: str = "%",
    levels: Sequence[tuple[str, float]] = (),
) -> str:
    """Lines with bands over a base-2 logarithmic x axis whose ticks are the points' own; levels (name, y) go across."""
    xs = sorted({x for one in series for x, _ in one.points})
    values = [y for one in series for _, y in one.points] + [y for one in series for pair in one.bands for y in pair]
    values += [y for _, y in levels]
    if not xs:
        return ""
    low, high = _round_limits(min(values), max(values))
    place = _places((math.log2(xs[0]), math.log2(xs[-1])), (low, high))
    parts = [_frame(x_label, y_label), *_y_ticks(low, high, place)]
    last = -math.inf
    for x in xs:
        at, bottom = place(math.log2(x), low)
        if at - last < _TICK_WIDTH:
            continue  # it would cover the one before
        last = at
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{x:g}</text>')
    for number, (name, y) in enumerate(levels):
        (left, height), (right, _) = place(math.log2(xs[0]), y), place(math.log2(xs[-1]), y)
        parts.append(f'<line class="ideal" x1="{left:.1f}" y1="{height:.1f}" x2="{right:.1f}" y2="{height:.1f}"/>')
        title = f"{escape(name)} {y:.1f}{unit}"
        # Apart, as levels may be near each other: the last stands at the end.
        at, anchor = (right, "end") if number == len(levels) - 1 else (left + 4, "start")
        parts.append(f'<text class="tick" x="{at:.1f}" y="{height - 4:.1f}" text-anchor="{anchor}">{title}</text>')
    for number, one in enumerate(series):
        if one.bands:
            xs_of = [x for x, _ in one.points]
            upper = [place(math.log2(x), band[1]) for x, band in zip(xs_of, one.bands, strict=True)]
            lower = [place(math.log2(x), band[0]) for x, band in zip(xs_of, one.bands, strict=True)]
            parts.append(f'<polygon class="band-{number}" points="{_points([*upper, *lower[::-1]])}"/>')
        dots = [place(math.log2(x), y) for x, y in one.points]
        parts.append(f'<polyline class="line-{number}" points="{_points(dots)}"/>')
        for (px, py), (x, y) in zip(dots, one.points, strict=True):
            title = f"{escape(one.name)}, {x:g}: {y:.1f}{unit}"
            parts.append(
                f'<circle class="dot-{number}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"><title>{title}</title></circle>'
            )
    return _svg(parts, f"{y_label} against {x_label}")


def bar_chart(
    series: Sequence[tuple[str, Sequence[float]]], labels: Sequence[str], *, x_label: str, y_label: str
) -> str:
    """Groups of bars, one group a label, one bar a series; heights in %."""
    high = max((value for _, values in series for value in values), default=0.0) or 1.0
    low, high = 0.0, _round_limits(0.0, high)[1]
    place = _places((0, len(labels)), (low, high))
    parts = [_frame(x_label, y_label), *_y_ticks(low, high, place)]
    for group, label in enumerate(labels):
        left, bottom = place(group + 0.12, 0)
        right, _ = place(group + 0.88, 0)
        parts.append(
            f'<text class="tick" x="{(left + right) / 2:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{escape(label)}</text>'
        )
        width = (right - left) / len(series)
        for number, (name, values) in enumerate(series):
            top = place(0, values[group])[1]
            title = f"{escape(name)}, {escape(label)}: {values[group]:.1f}%"
            parts.append(
                f'<rect class="bar-{number}" x="{left + number * width:.1f}" y="{top:.1f}" width="{max(width - 1, 1):.1f}" '
                f'height="{bottom - top:.1f}"><title>{title}</title></rect>'
            )
    return _svg(parts, f"{y_label} against {x_label}")


def reliability_chart(points: Sequence[tuple[float, float, int]]) -> str:
    """Share right against stated probability: (probability, share, critiques) of each bin, all in 0..1."""
    place = _places((0, 100), (0, 100))
    (x0, y0), (x1, y1) = place(0, 0), place(100, 100)
    parts = [_frame("stated probability (%)", "right (%)"), *_y_ticks(0, 100, place)]
    parts.append(f'<line class="ideal" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    most = max((count for *_, count in points), default=1)
    for probability, share, count in points:
        x, y = place(100 * probability, 100 * share)
        title = f"{100 * probability:.0f}% stated, {100 * share:.0f}% right, {count} critiques"
        radius = 3 + 6 * math.sqrt(count / most)
        parts.append(
            f'<circle class="dot-0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{title}</title></circle>'
        )
    for tick in (0, 50, 100):
        x, y = place(tick, 0)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{tick}</text>')
    return _svg(parts, "how often critiques are right against the probability that the meta model states")


def _places(xs: tuple[float, float], ys: tuple[float, float]) -> Place:
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        part = (x - xs[0]) / (xs[1] - xs[0]) if xs[1] > xs[0] else 0.5
        return _LEFT + across * part, _TOP + up * (1 - (y - ys[0]) / (ys[1] - ys[0]))

    return place


def _round_limits(low: float, high: float) -> tuple[float, float]:
    step = _step(max(high - low, 1.0))
    return math.floor(low / step) * step, max(math.ceil(high / step), math.floor(low / step) + 1) * step


def _step(span: float) -> float:
    rough = span / 4
    power = 10 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _y_ticks(low: float, high: float, place: Place) -> Iterator[str]:
    step = _step(high - low)
    for i in range(round((high - low) / step) + 1):
        value = low + i * step
        _, y = place(0, value)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'


def _frame(x_label: str, y_label: str) -> str:
    across, middle = (WIDTH + _LEFT) / 2, _TOP + (HEIGHT - _TOP - _BOTTOM) / 2
    turned = f'x="12" y="{middle:.0f}" transform="rotate(-90 12 {middle:.0f})"'
    return (
        f'<text class="label" text-anchor="middle" x="{across:.0f}" y="{HEIGHT - 6}">{escape(x_label)}</text>'
        f'<text class="label" text-anchor="middle" {turned}>{escape(y_label)}</text>'
    )


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _svg(parts: Sequence[str], title: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">'
    return head + "".join(parts) + "</svg>"

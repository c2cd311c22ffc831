"""Line plots of shares against shares, as inline SVG."""

from collections.abc import Mapping, Sequence
from html import escape

SIZE, MARGIN = 300, 45  # pixels
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c")

Point = tuple[float, float, str]


def plot(x_label: str, y_label: str, lines: Mapping[str, Sequence[Point]], diagonal: bool = False) -> str:
    """Draw lines in the unit square.

    lines: For each name the points, each as x and y in [0, 1] and what it says under the mouse.
    diagonal: Draw the line on which x and y are equal.
    RETURNS: An `<svg>` element.
    """
    full = SIZE + 2 * MARGIN
    parts = [f'<svg width="{full}" height="{full}" viewBox="0 0 {full} {full}" role="img" font-size="12">']
    for step in range(6):
        share = step / 5
        parts += [
            _line((share, 0), (share, 1), "#ddd"),
            _line((0, share), (1, share), "#ddd"),
            f'<text x="{_x(share)}" y="{_y(0) + 16}" text-anchor="middle">{share}</text>',
            f'<text x="{_x(0) - 6}" y="{_y(share) + 4}" text-anchor="end">{share}</text>',
        ]
    if diagonal:
        parts.append(_line((0, 0), (1, 1), "#999", 'stroke-dasharray="4"'))
    for i, (name, points) in enumerate(lines.items()):
        color = COLORS[i % len(COLORS)]
        path = " ".join(f"{_x(x)},{_y(y)}" for x, y, _ in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{_x(x)}" cy="{_y(y)}" r="3.5" fill="{color}"><title>{escape(text)}</title></circle>'
            for x, y, text in points
        ]
        parts.append(f'<text x="{_x(0.05 + 0.3 * i)}" y="{_y(1) - 10}" fill="{color}">{escape(name)}</text>')
    middle = MARGIN + SIZE / 2
    parts += [
        f'<text x="{middle}" y="{full - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _line(start: tuple[float, float], end: tuple[float, float], color: str, more: str = "") -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{_x(x1)}" y1="{_y(y1)}" x2="{_x(x2)}" y2="{_y(y2)}" stroke="{color}" {more}/>'


def _x(share: float) -> float:
    return round(MARGIN + SIZE * share, 1)


def _y(share: float) -> float:
    return round(MARGIN + SIZE * (1 - share), 1)

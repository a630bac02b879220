"""A small drawing pen: shaded shapes with soft dark edges, in unit coordinates (x right, y down, both in [0, 1])."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Rgb = tuple[int, int, int]


def oval(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> list[Point]:
    """The outline of an ellipse, turned clockwise by `turn` degrees."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    angles = [2 * math.pi * i / 48 for i in range(48)]
    circle = [(rx * math.cos(a), ry * math.sin(a)) for a in angles]
    return [(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in circle]


def curve(*points: Point, closed: bool = True) -> list[Point]:
    """A smooth line (Catmull-Rom) through the points."""
    ends = (points[-1], points[:2]) if closed else (points[0], points[-1:])
    knots = np.array([ends[0], *points, *ends[1]])
    path = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        for t in np.arange(8) / 8:
            path.append((2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3) / 2)
    return [(float(x), float(y)) for x, y in path] + ([] if closed else [points[-1]])


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> list[Point]:
    """The outline of a rectangle with round corners."""
    left, top, right, bottom = x0 + radius, y0 + radius, x1 - radius, y1 - radius
    corners = ((right, bottom, 0), (left, bottom, 90), (left, top, 180), (right, top, 270))
    turns = [(cx, cy, math.radians(start + step)) for cx, cy, start in corners for step in (0, 22.5, 45, 67.5, 90)]
    return [(cx + radius * math.cos(turn), cy + radius * math.sin(turn)) for cx, cy, turn in turns]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The same outline on the other side of the vertical middle line."""
    return [(1 - x, y) for x, y in points]


class Pen:
    """Paints one object of `px` pixels; `main` is the colour that the object is named by."""

    def __init__(self, px: int, main: Rgb):
        self.px, self.main = px, main
        self.dark: Rgb = tuple(int(0.66 * c) for c in main)
        self.side = px * (6 if px < 64 else 3)  # supersampled
        self.rgb = np.zeros((self.side, self.side, 3), np.float32)  # premultiplied by alpha
        self.alpha = np.zeros((self.side, self.side, 1), np.float32)
        self.y, self.x = np.mgrid[: self.side, : self.side].astype(np.float32) / self.side

    def paint(self, colour: Rgb, *outlines: Sequence[Point], edge: bool = True) -> None:
        """Fill the union of the outlines, lit from the upper left; `edge` draws a thin dark line around it."""
        mask = Image.new("L", (self.side, self.side))
        for outline in outlines:
            ImageDraw.Draw(mask).polygon([(x * self.side, y * self.side) for x, y in outline], fill=255)
        self._add(colour, mask, edge)

    def stroke(self, colour: Rgb, points: Sequence[Point], width: float, edge: bool = False) -> None:
        """A line with round ends."""
        mask = Image.new("L", (self.side, self.side))
        draw, r = ImageDraw.Draw(mask), width * self.side / 2
        path = [(x * self.side, y * self.side) for x, y in points]
        draw.line(path, fill=255, width=round(2 * r), joint="curve")
        for x, y in (path[0], path[-1]):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        self._add(colour, mask, edge)

    def _add(self, colour: Rgb, mask: Image.Image, edge: bool) -> None:
        base = np.array(colour, np.float32) / 255
        if edge:
            soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.016 * self.side)), np.float32)[..., None] / 255
            self._over(base * 0.42, np.clip(3.0 * soft, 0, 1) * 0.9)
        x0, y0, x1, y1 = (v / self.side for v in mask.getbbox())
        u, v = (self.x - x0) / (x1 - x0), (self.y - y0) / (y1 - y0)
        shade = 1 - 0.30 * np.clip(0.62 * u + 0.62 * v - 0.45, 0, 1)
        glow = 0.42 * np.clip(1 - np.hypot(u - 0.28, v - 0.24) / 0.5, 0, 1) ** 1.5
        lit = base * shade[..., None]
        lit = lit + (1 - lit) * glow[..., None] if edge else np.broadcast_to(base, lit.shape)
        self._over(lit, np.asarray(mask, np.float32)[..., None] / 255)

    def _over(self, rgb: np.ndarray, alpha: np.ndarray) -> None:
        self.rgb = rgb * alpha + self.rgb * (1 - alpha)
        self.alpha = alpha + self.alpha * (1 - alpha)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Put a soft shadow under the object and average down → premultiplied rgb [px, px, 3], alpha [px, px, 1]."""
        distance = np.hypot((self.x - 0.52) / 0.40, (self.y - 0.925) / 0.062)
        shadow = 0.34 * np.clip(1.3 * (1 - distance), 0, 1)[..., None]
        alpha = self.alpha + shadow * (1 - self.alpha)
        n = self.side // self.px
        rgb, alpha = (a.reshape(self.px, n, self.px, n, -1).mean((1, 3)) for a in (self.rgb, alpha))
        return rgb, alpha

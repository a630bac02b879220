"""The 24 kinds of objects and their 8 colours: one small drawing each, in one hand."""

import math
from functools import lru_cache

import numpy as np

from .pen import Pen, Rgb, box, curve, mirrored, oval

# Spread in luminance as well as in hue, so that no two depend on telling red from green.
COLOURS: dict[str, Rgb] = {
    "red": (206, 38, 44),
    "orange": (246, 142, 30),
    "yellow": (255, 222, 60),
    "green": (72, 172, 78),
    "blue": (44, 112, 222),
    "purple": (118, 52, 158),
    "pink": (252, 146, 196),
    "white": (250, 250, 250),
}

INK, CREAM, TIMBER, STEEL = (44, 42, 56), (255, 245, 222), (146, 98, 62), (142, 150, 164)
LEAF, GLASS, GOLD, SAND, SLATE = (112, 158, 78), (186, 224, 242), (240, 184, 62), (232, 204, 162), (112, 92, 96)


def _eye(pen: Pen, x: float, y: float, r: float = 0.05) -> None:
    pen.paint(CREAM, oval(x, y, r * 1.5, r * 1.5), edge=False)
    pen.paint(INK, oval(x + 0.01, y, r, r), edge=False)


def ball(pen: Pen) -> None:
    pen.paint(pen.main, oval(0.5, 0.5, 0.43, 0.43))
    pen.stroke(CREAM, curve((0.13, 0.42), (0.35, 0.58), (0.65, 0.58), (0.87, 0.42), closed=False), 0.09)
    pen.stroke(pen.dark, curve((0.5, 0.08), (0.42, 0.3), (0.42, 0.52), closed=False), 0.045)


def balloon(pen: Pen) -> None:
    pen.stroke(INK, curve((0.5, 0.78), (0.45, 0.84), (0.54, 0.89), (0.5, 0.95), closed=False), 0.05)
    pen.paint(pen.main, [(0.5, 0.7), (0.41, 0.83), (0.59, 0.83)])
    pen.paint(pen.main, curve((0.5, 0.04), (0.8, 0.16), (0.82, 0.46), (0.5, 0.77), (0.18, 0.46), (0.2, 0.16)))


def car(pen: Pen) -> None:
    pen.paint(
        pen.main,
        box(0.04, 0.46, 0.96, 0.78, 0.1),
        curve((0.18, 0.5), (0.3, 0.22), (0.66, 0.22), (0.82, 0.5), (0.5, 0.55)),
    )
    pen.paint(
        GLASS,
        [(0.27, 0.46), (0.35, 0.28), (0.48, 0.28), (0.48, 0.46)],
        [(0.54, 0.46), (0.54, 0.28), (0.64, 0.28), (0.73, 0.46)],
        edge=False,
    )
    pen.paint(GOLD, oval(0.91, 0.58, 0.04, 0.05), edge=False)
    for x in (0.26, 0.74):
        pen.paint(INK, oval(x, 0.79, 0.13, 0.13), edge=False)
        pen.paint(STEEL, oval(x, 0.79, 0.06, 0.06), edge=False)


def house(pen: Pen) -> None:
    pen.paint(pen.main, box(0.14, 0.36, 0.86, 0.93, 0.02))
    pen.paint(SLATE, [(0.5, 0.05), (0.96, 0.42), (0.04, 0.42)])
    pen.paint(TIMBER, box(0.56, 0.6, 0.75, 0.93), edge=False)
    pen.paint(GLASS, box(0.24, 0.54, 0.46, 0.74), edge=False)
    pen.stroke(CREAM, [(0.35, 0.54), (0.35, 0.74)], 0.045)


def tree(pen: Pen) -> None:
    pen.paint(TIMBER, [(0.43, 0.55), (0.57, 0.55), (0.6, 0.93), (0.4, 0.93)])
    crown = ((0.5, 0.24, 0.22), (0.28, 0.4, 0.21), (0.72, 0.4, 0.21), (0.5, 0.48, 0.24))
    pen.paint(pen.main, *(oval(x, y, r, r) for x, y, r in crown))
    for x, y in ((0.24, 0.34), (0.48, 0.18), (0.6, 0.44)):
        pen.stroke(pen.dark, curve((x, y + 0.06), (x + 0.05, y), (x + 0.12, y + 0.01), closed=False), 0.045)


def flower(pen: Pen) -> None:
    pen.stroke(LEAF, curve((0.5, 0.5), (0.52, 0.75), (0.49, 0.93), closed=False), 0.06, edge=True)
    pen.paint(LEAF, oval(0.66, 0.8, 0.14, 0.06, -25))
    for i in range(6):
        a = math.radians(60 * i + 30)
        pen.paint(pen.main, oval(0.5 + 0.2 * math.cos(a), 0.39 + 0.2 * math.sin(a), 0.17, 0.13, 60 * i + 30))
    pen.paint(SLATE, oval(0.5, 0.39, 0.11, 0.11))


def fish(pen: Pen) -> None:
    pen.paint(pen.main, curve((0.66, 0.5), (0.93, 0.26), (0.96, 0.3), (0.87, 0.5), (0.96, 0.7), (0.93, 0.74)))
    pen.paint(pen.main, curve((0.3, 0.3), (0.5, 0.14), (0.66, 0.2), (0.6, 0.38)))
    pen.paint(
        pen.main,
        curve(
            (0.05, 0.52), (0.2, 0.3), (0.45, 0.24), (0.68, 0.36), (0.78, 0.5), (0.68, 0.66), (0.45, 0.78), (0.2, 0.72)
        ),
    )
    pen.stroke(CREAM, curve((0.42, 0.3), (0.48, 0.5), (0.42, 0.7), closed=False), 0.06)
    pen.paint(pen.dark, oval(0.58, 0.56, 0.08, 0.05, 20), edge=False)
    _eye(pen, 0.24, 0.45)


def bird(pen: Pen) -> None:
    for x in (0.42, 0.54):
        pen.stroke(INK, [(x, 0.75), (x - 0.02, 0.92)], 0.055)
    pen.paint(GOLD, [(0.2, 0.22), (0.02, 0.34), (0.22, 0.4)])
    pen.paint(
        pen.main,
        curve(
            (0.14, 0.26),
            (0.28, 0.1),
            (0.46, 0.2),
            (0.58, 0.4),
            (0.96, 0.42),
            (0.78, 0.66),
            (0.5, 0.8),
            (0.24, 0.66),
            (0.16, 0.44),
        ),
    )
    pen.paint(pen.dark, curve((0.4, 0.46), (0.6, 0.46), (0.82, 0.5), (0.62, 0.66), (0.46, 0.62)), edge=False)
    _eye(pen, 0.28, 0.27)


def cat(pen: Pen) -> None:
    ear = [(0.1, 0.06), (0.46, 0.26), (0.12, 0.56)]
    pen.paint(pen.main, ear, mirrored(ear), oval(0.5, 0.57, 0.42, 0.35))
    inner = [(0.17, 0.17), (0.33, 0.28), (0.18, 0.38)]
    pen.paint(pen.dark, inner, mirrored(inner), edge=False)
    pen.paint(CREAM, oval(0.5, 0.74, 0.17, 0.12), edge=False)
    for x in (0.32, 0.68):
        pen.paint(CREAM, oval(x, 0.53, 0.085, 0.095), edge=False)
        pen.paint(INK, oval(x, 0.54, 0.05, 0.08), edge=False)
    pen.paint(INK, [(0.43, 0.67), (0.57, 0.67), (0.5, 0.75)], edge=False)


def star(pen: Pen) -> None:
    rim = [
        (0.5 + r * math.sin(a), 0.52 - r * math.cos(a))
        for a, r in ((math.pi * i / 5, (0.48, 0.23)[i % 2]) for i in range(10))
    ]
    pen.paint(pen.main, rim)


def boat(pen: Pen) -> None:
    pen.stroke(TIMBER, [(0.5, 0.06), (0.5, 0.7)], 0.05)
    pen.paint(pen.main, curve((0.54, 0.06), (0.8, 0.3), (0.95, 0.62), (0.54, 0.62)))
    pen.paint(pen.main, curve((0.46, 0.12), (0.46, 0.62), (0.08, 0.62), (0.28, 0.4)))
    pen.paint(TIMBER, [(0.06, 0.69), (0.94, 0.69), (0.8, 0.92), (0.2, 0.92)])


def mushroom(pen: Pen) -> None:
    pen.paint(CREAM, curve((0.38, 0.5), (0.62, 0.5), (0.68, 0.88), (0.5, 0.93), (0.32, 0.88)))
    pen.paint(
        pen.main, curve((0.04, 0.52), (0.14, 0.24), (0.5, 0.06), (0.86, 0.24), (0.96, 0.52), (0.74, 0.61), (0.26, 0.61))
    )
    for x, y, r in ((0.5, 0.22, 0.08), (0.25, 0.41, 0.07), (0.74, 0.4, 0.08)):
        pen.paint(CREAM, oval(x, y, r, r * 0.85), edge=False)


def cup(pen: Pen) -> None:
    pen.stroke(pen.main, curve((0.7, 0.38), (0.92, 0.38), (0.93, 0.6), (0.66, 0.7), closed=False), 0.09, edge=True)
    pen.paint(
        pen.main, curve((0.1, 0.26), (0.74, 0.26), (0.74, 0.55), (0.66, 0.85), (0.42, 0.92), (0.18, 0.85), (0.1, 0.55))
    )
    pen.paint(CREAM, oval(0.42, 0.25, 0.33, 0.12))
    pen.paint(TIMBER, oval(0.42, 0.26, 0.25, 0.075), edge=False)


def apple(pen: Pen) -> None:
    pen.stroke(TIMBER, curve((0.5, 0.3), (0.51, 0.16), (0.56, 0.06), closed=False), 0.055)
    pen.paint(LEAF, oval(0.7, 0.14, 0.15, 0.07, -20))
    half = ((0.5, 0.28), (0.7, 0.22), (0.9, 0.34), (0.9, 0.6), (0.74, 0.88), (0.58, 0.92), (0.5, 0.89))
    pen.paint(pen.main, curve(*half, *((1 - x, y) for x, y in half[-2:0:-1])))


def rocket(pen: Pen) -> None:
    pen.paint(GOLD, curve((0.38, 0.74), (0.62, 0.74), (0.5, 0.97)))
    fin = [(0.34, 0.5), (0.34, 0.78), (0.1, 0.88), (0.14, 0.66)]
    pen.paint(STEEL, fin, mirrored(fin))
    pen.paint(
        pen.main, curve((0.5, 0.03), (0.68, 0.22), (0.73, 0.5), (0.66, 0.8), (0.34, 0.8), (0.27, 0.5), (0.32, 0.22))
    )
    pen.paint(GLASS, oval(0.5, 0.38, 0.12, 0.12))


def butterfly(pen: Pen) -> None:
    upper = curve((0.5, 0.46), (0.3, 0.12), (0.06, 0.12), (0.08, 0.42), (0.3, 0.56))
    lower = curve((0.5, 0.52), (0.26, 0.54), (0.12, 0.72), (0.26, 0.9), (0.44, 0.76))
    for wing in (lower, upper):
        pen.paint(pen.main, wing)
        pen.paint(pen.main, mirrored(wing))
    pen.paint(CREAM, oval(0.2, 0.28, 0.07, 0.07), oval(0.8, 0.28, 0.07, 0.07), edge=False)
    feeler = curve((0.49, 0.3), (0.46, 0.16), (0.38, 0.07), closed=False)
    pen.stroke(INK, feeler, 0.045)
    pen.stroke(INK, mirrored(feeler), 0.045)
    pen.paint(INK, oval(0.5, 0.52, 0.055, 0.28), edge=False)


def hat(pen: Pen) -> None:
    pen.paint(pen.main, oval(0.5, 0.77, 0.47, 0.14))
    pen.paint(
        pen.main,
        curve((0.22, 0.74), (0.2, 0.4), (0.3, 0.18), (0.5, 0.13), (0.7, 0.18), (0.8, 0.4), (0.78, 0.74), (0.5, 0.8)),
    )
    pen.stroke(INK, curve((0.23, 0.64), (0.5, 0.71), (0.77, 0.64), closed=False), 0.1)


def book(pen: Pen) -> None:
    pen.paint(pen.dark, box(0.14, 0.1, 0.86, 0.93, 0.05))
    pen.paint(CREAM, box(0.2, 0.78, 0.88, 0.89, 0.02), edge=False)
    pen.paint(pen.main, box(0.14, 0.06, 0.86, 0.79, 0.04))
    pen.paint(CREAM, box(0.34, 0.2, 0.74, 0.4, 0.02), edge=False)
    pen.stroke(INK, [(0.42, 0.3), (0.66, 0.3)], 0.05)
    pen.stroke(pen.dark, [(0.23, 0.09), (0.23, 0.76)], 0.04)


def umbrella(pen: Pen) -> None:
    pen.stroke(
        TIMBER,
        curve((0.5, 0.06), (0.5, 0.5), (0.5, 0.82), (0.57, 0.91), (0.67, 0.88), (0.68, 0.78), closed=False),
        0.055,
    )
    dome = [*curve((0.04, 0.54), (0.14, 0.28), (0.5, 0.1), (0.86, 0.28), (0.96, 0.54), closed=False)]
    for x in (0.96, 0.65, 0.35):
        dome += curve((x, 0.54), (x - 0.155, 0.46), (x - 0.31, 0.54), closed=False)
    pen.paint(pen.main, dome)
    for side in (0.35, 0.65):
        pen.stroke(
            pen.dark, curve((0.5, 0.13), (0.4 * side + 0.3 + (side - 0.5) * 0.4, 0.28), (side, 0.5), closed=False), 0.04
        )


def snail(pen: Pen) -> None:
    for x in (0.1, 0.24):
        pen.stroke(SAND, [(0.2, 0.6), (x, 0.34)], 0.045, edge=True)
    pen.paint(SAND, curve((0.08, 0.56), (0.24, 0.54), (0.34, 0.74), (0.7, 0.76), (0.97, 0.9), (0.5, 0.93), (0.16, 0.9)))
    pen.paint(pen.main, oval(0.58, 0.48, 0.36, 0.36))
    turns = [(0.58 + 0.033 * a * math.cos(a), 0.48 + 0.033 * a * math.sin(a)) for a in np.linspace(0.5, 7.6, 40)]
    pen.stroke(pen.dark, turns, 0.055)
    pen.paint(INK, oval(0.15, 0.665, 0.04, 0.045), edge=False)


def duck(pen: Pen) -> None:
    pen.paint(GOLD, curve((0.24, 0.26), (0.03, 0.33), (0.05, 0.41), (0.26, 0.42)))
    body = curve((0.12, 0.66), (0.3, 0.54), (0.6, 0.58), (0.94, 0.42), (0.92, 0.72), (0.7, 0.92), (0.34, 0.92))
    pen.paint(pen.main, body, oval(0.38, 0.32, 0.23, 0.23), [(0.25, 0.45), (0.56, 0.4), (0.62, 0.62), (0.22, 0.66)])
    pen.paint(pen.dark, curve((0.46, 0.66), (0.62, 0.66), (0.8, 0.6), (0.7, 0.8), (0.54, 0.8)), edge=False)
    _eye(pen, 0.32, 0.28)


def kite(pen: Pen) -> None:
    pen.stroke(INK, curve((0.5, 0.7), (0.56, 0.8), (0.4, 0.86), (0.46, 0.95), closed=False), 0.05)
    pen.paint(pen.main, [(0.5, 0.03), (0.88, 0.32), (0.5, 0.77), (0.12, 0.32)])
    pen.stroke(CREAM, [(0.5, 0.08), (0.5, 0.7)], 0.045)
    pen.stroke(CREAM, [(0.18, 0.32), (0.82, 0.32)], 0.045)
    pen.paint(GOLD, [(0.34, 0.8), (0.34, 0.92), (0.6, 0.8), (0.6, 0.92)], edge=False)


def heart(pen: Pen) -> None:
    half = [
        (0.5, 0.24),
        *curve((0.5, 0.24), (0.66, 0.09), (0.88, 0.14), (0.94, 0.38), (0.8, 0.62), (0.5, 0.92), closed=False),
    ]
    pen.paint(pen.main, half, mirrored(half))


def bell(pen: Pen) -> None:
    pen.paint(STEEL, oval(0.5, 0.86, 0.11, 0.08))
    pen.stroke(STEEL, oval(0.5, 0.1, 0.06, 0.06), 0.05)
    half = ((0.5, 0.12), (0.68, 0.2), (0.76, 0.46), (0.82, 0.64), (0.94, 0.76), (0.7, 0.82), (0.5, 0.83))
    pen.paint(pen.main, curve(*half, *((1 - x, y) for x, y in half[-2:0:-1])))
    pen.stroke(CREAM, curve((0.24, 0.6), (0.5, 0.65), (0.76, 0.6), closed=False), 0.06)


DRAWINGS = {
    draw.__name__: draw
    for draw in (
        ball, balloon, car, house, tree, flower, fish, bird, cat, star, boat, mushroom,
        cup, apple, rocket, butterfly, hat, book, umbrella, snail, duck, kite, heart, bell,
    )
}  # fmt: skip
KINDS: tuple[str, ...] = tuple(DRAWINGS)


@lru_cache(maxsize=4096)
def sprite(kind: str, colour: str, px: int) -> tuple[np.ndarray, np.ndarray]:
    """One object as uint16 arrays for compositing: rgb · alpha in 0…255² [px, px, 3] and 255 − alpha [px, px, 1]."""
    pen = Pen(px, COLOURS[colour])
    DRAWINGS[kind](pen)
    rgb, alpha = pen.finish()
    alpha = np.rint(alpha * 255)
    return np.minimum(np.rint(rgb * 65025), alpha * 255).astype(np.uint16), (255 - alpha).astype(np.uint16)

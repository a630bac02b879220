"""The backgrounds, calm and the same every time, and the styles, which recolour a whole picture."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Array = np.ndarray
TAU = 2 * np.pi


def _mix(low: tuple[int, int, int] | Array, high: tuple[int, int, int] | Array, t: Array) -> Array:
    """From colour `low` where t = 0 to `high` where t = 1 → [h, w, 3]."""
    t = np.clip(t, 0, 1)[..., None]
    return np.asarray(low, np.float32) * (1 - t) + np.asarray(high, np.float32) * t


def _rise(edge: Array | float, y: Array) -> Array:
    """0 above the line y = edge, 1 below it."""
    return np.clip((y - edge) * 64 + 0.5, 0, 1)


def _spots(x: Array, y: Array, places: tuple[tuple[float, float], ...], rx: float, ry: float) -> Array:
    return sum(np.exp(-(((x - px) / rx) ** 2) - ((y - py) / ry) ** 2) for px, py in places)


def _meadow(x: Array, y: Array) -> Array:
    grass = _mix((196, 226, 152), (150, 202, 112), y) + 7 * (np.cos(TAU * 8 * x) * np.cos(TAU * 8 * y))[..., None]
    return _mix(_mix((200, 230, 246), (232, 244, 242), y * 3), grass, _rise(0.25, y))


def _beach(x: Array, y: Array) -> Array:
    shore = 0.3125 + 0.015 * np.cos(TAU * 4 * x)
    sand = _mix((250, 232, 186), (240, 212, 158), y)
    water = _mix((120, 200, 214), (164, 222, 224), y * 3)
    return _mix(_mix(water, (250, 252, 248), _rise(shore - 0.03, y)), sand, _rise(shore, y))


def _snow(x: Array, y: Array) -> Array:
    far = _mix((188, 208, 230), (208, 222, 238), y * 2)
    near = _mix((236, 242, 250), (220, 230, 244), y)
    middle = _mix((222, 232, 244), (214, 226, 240), y)
    return _mix(
        _mix(far, middle, _rise(0.3 + 0.05 * np.cos(TAU * x), y)), near, _rise(0.62 + 0.05 * np.sin(TAU * x), y)
    )


def _desert(x: Array, y: Array) -> Array:
    waves = 0.5 + 0.5 * np.sin(TAU * (4 * y + 0.6 * np.sin(TAU * x)))
    return _mix(_mix((246, 204, 142), (226, 168, 104), y), (252, 222, 168), 0.4 * waves)


def _sea(x: Array, y: Array) -> Array:
    crests = np.clip(np.cos(TAU * (8 * y + 0.22 * np.cos(TAU * 4 * x))), 0, 1) ** 3
    return _mix(_mix((92, 178, 196), (46, 122, 160), y), (170, 220, 226), 0.4 * crests)


def _night(x: Array, y: Array) -> Array:
    stars = _spots(x, y, tuple(((2 * i + 1) / 16, ((5 * i + 1) % 16) / 16) for i in range(8)), 0.012, 0.012)
    return _mix(_mix((50, 58, 112), (98, 108, 164), y), (236, 232, 200), 0.8 * stars)


def _brick(x: Array, y: Array) -> Array:
    row = np.floor(y * 8)
    across, down = (x * 4 + 0.5 * (row % 2)) % 1, (y * 8) % 1
    gap = np.maximum(np.abs(across - 0.5) * 4 - 1.88, np.abs(down - 0.5) * 2 - 0.84) * 8
    return _mix((196, 140, 120), (226, 202, 186), gap)


def _wood(x: Array, y: Array) -> Array:
    grain = 0.5 + 0.5 * np.cos(TAU * (8 * y + 0.3 * np.sin(TAU * x)))
    seam = np.clip(1 - np.abs(((y * 4) % 1) - 0.5) * 24, 0, 1)
    return _mix(_mix((190, 148, 102), (206, 168, 122), grain), (146, 106, 70), 0.7 * seam)


def _sky(x: Array, y: Array) -> Array:
    high, middle = ((0.12, 0.2), (0.24, 0.17), (0.34, 0.21)), ((0.64, 0.5), (0.76, 0.46), (0.88, 0.51))
    puffs = (*high, *middle, (0.2, 0.8), (0.32, 0.77), (0.44, 0.81))
    return _mix(_mix((122, 184, 240), (196, 226, 250), y), (252, 253, 255), 0.85 * _spots(x, y, puffs, 0.09, 0.06))


def _forest(x: Array, y: Array) -> Array:
    trunks = np.clip(np.cos(TAU * 4 * x) * 3 - 1.6, 0, 1) * (1 - _rise(0.72, y))
    woods = _mix(_mix((78, 112, 92), (124, 152, 112), y * 1.4), (84, 80, 72), 0.75 * trunks)
    return _mix(woods, _mix((130, 146, 96), (112, 128, 84), y * 3 - 2), _rise(0.72, y))


_PAINTERS: dict[str, Callable[[Array, Array], Array]] = {
    "meadow": _meadow, "beach": _beach, "snow": _snow, "desert": _desert, "sea": _sea,
    "night": _night, "brick": _brick, "wood": _wood, "sky": _sky, "forest": _forest,
}  # fmt: skip
BACKGROUNDS: tuple[str, ...] = tuple(_PAINTERS)


@lru_cache(maxsize=64)
def background(name: str, size: int) -> Array:
    """One background, anti-aliased → uint8 [size, size, 3]."""
    n = 4 if size <= 128 else 2
    y, x = (np.mgrid[: size * n, : size * n].astype(np.float32) + 0.5) / (size * n)
    fine = _PAINTERS[name](x, y)
    return np.rint(np.clip(fine.reshape(size, n, size, n, 3).mean((1, 3)), 0, 255)).astype(np.uint8)


def grey(rgb: Array) -> Array:
    """The luminance of colours [..., 3] → [...]."""
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _tinted(rgb: Array, tint: tuple[float, float, float], keep: float) -> Array:
    """The grey picture in one tint, with a part `keep` of the old colours."""
    return (keep * rgb + (1 - keep) * grey(rgb)[..., None]) * np.array(tint, np.float32)


LOOKS: dict[str, Callable[[Array], Array]] = {
    "sepia": lambda rgb: 0.06 + 0.94 * _tinted(rgb, (1.02, 0.82, 0.58), 0.08),
    "charcoal": lambda rgb: 1.25 * _tinted(rgb, (1, 1, 1), 0.0) - 0.16,
    "moonlight": lambda rgb: _tinted(rgb, (0.42, 0.54, 0.82), 0.4),
    "sunset": lambda rgb: np.array([0.18, 0.02, 0.06], np.float32) + _tinted(rgb, (0.86, 0.66, 0.44), 0.9),
    "negative": lambda rgb: 1 - rgb,
    "pastel": lambda rgb: 0.5 + 0.5 * rgb,
    "popart": lambda rgb: 0.5 + 1.9 * (rgb - grey(rgb)[..., None]) + 1.5 * (grey(rgb)[..., None] - 0.55),
    "infrared": lambda rgb: rgb[..., [1, 2, 0]] * np.array([1.0, 0.8, 0.9], np.float32),
}
STYLES: tuple[str, ...] = tuple(LOOKS)


def stylise(rgb: Array, style: str) -> Array:
    """Recolour a picture, pixel by pixel: uint8 [h, w, 3] → the same."""
    return np.rint(np.clip(LOOKS[style](rgb.astype(np.float32) / 255), 0, 1) * 255).astype(np.uint8)

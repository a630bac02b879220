"""Pictures of the drawn world to curate, good ones and bad ones of every kind, with the truth in a file beside them."""

from __future__ import annotations

import io
import json
import random
from collections import deque
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from tqdm.auto import tqdm

from ... import world
from ...basics.fingerprints import fingerprint
from ...basics.folders import write_text, written_whole
from ...errors import SettingError
from ...world import PIXELS, Item, Scene, render, sample_scene
from ...world.scenes import DRAWABLE
from ..curate.decode import encoded

TRUTH = "truth.jsonl"
GOOD = "scene"
# What spoils a picture, and of 100 pictures how many it spoils in `draw`.
SPOILED = {
    "duplicate": 4, "flat": 1, "gradient": 1, "stripes": 1, "chequer": 1, "noise": 1,
    "small": 1, "narrow": 1, "truncated": 1,
}  # fmt: skip


def draw(folder: Path, count: int, *, split: str = "train", size: int = PIXELS, progress: bool = True) -> Path:
    """Write `count` pictures into folder/pictures and what they are into folder/truth.jsonl. A picture that is there
    stays if it is the same; it is not even drawn where that file says that the same code drew it.

    split: of the scenes; size: px. Raises SettingError.
    """
    if count < 1:
        raise SettingError(f"count is {count}", expected="1 or more", fix="1000 are usual")
    pictures, lines, truth = folder / "pictures", [], folder / TRUTH
    before = {*truth.read_text(encoding="utf-8", errors="replace").splitlines()} if truth.is_file() else ()
    scenes: deque[Scene] = deque(maxlen=200)  # that may be met again
    for number in tqdm(range(count), desc="draw", unit="picture", disable=not progress):
        dice = random.Random(f"crisp/pictures/{split}/{number}")
        kind = dice.choices((GOOD, *SPOILED), (100 - sum(SPOILED.values()), *SPOILED.values()))[0]
        if kind == "duplicate" and not scenes:
            kind = GOOD
        scene = sample_scene(number, split=split)
        if kind == "duplicate":
            scene = dice.choice(scenes)
        elif kind == GOOD:
            scenes.append(scene)
        path = pictures / f"{number:08d}.{'jpg' if kind == 'duplicate' else 'png'}"
        told = scene_to_dict(scene) if kind in (GOOD, "duplicate") else None
        lines.append(json.dumps({"name": path.name, "kind": kind, "scene": told, "size": size, "code": _code()}))
        if lines[-1] in before and path.exists():
            continue
        content = spoiled(scene, kind, size, dice)
        if not path.exists() or path.read_bytes() != content:  # the same keeps its time, by which shards know it
            with written_whole(path) as unfinished:
                unfinished.write_bytes(content)
        for ending in {".jpg", ".png"} - {path.suffix}:  # of a world in which this number was of another kind
            path.with_suffix(ending).unlink(missing_ok=True)
    write_text(truth, "\n".join(lines) + "\n")
    return pictures


@lru_cache
def _code() -> str:
    """A fingerprint of what draws."""
    return fingerprint(Path(__file__), sorted(Path(world.__file__).parent.glob("*.py")))


def spoiled(scene: Scene, kind: str, size: int, dice: random.Random) -> bytes:
    """The bytes of a picture file: the scene itself, or what `kind` makes of it."""
    if kind == "duplicate":
        return _again(render(scene, size), dice)
    if kind == "truncated":
        content = encoded(render(scene, size))
        return content[: len(content) // 2]
    if kind == "small":
        return encoded(render(scene, 32))
    if kind == "narrow":
        width = min(4 * size, DRAWABLE[-1])
        return encoded(render(scene, width).crop((0, 0, width, width // 4)))
    if kind != GOOD:
        return encoded(Image.fromarray(_pattern(kind, size, np.random.default_rng(dice.randrange(2**32)))))
    return encoded(render(scene, size))


def scene_to_dict(scene: Scene) -> dict[str, Any]:
    return {"background": scene.background, "style": scene.style, "items": [asdict(item) for item in scene.items]}


def scene_from_dict(told: dict[str, Any]) -> Scene:
    items = (Item(**{**item, "start": tuple(item["start"])}) for item in told["items"])
    return Scene(told["background"], tuple(items), told["style"])


def read_truth(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of a picture → its kind and its scene (None where it shows none)."""
    rows = [json.loads(line) for line in (folder / TRUTH).read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row | {"scene": row["scene"] and scene_from_dict(row["scene"])} for row in rows}


def _again(picture: Image.Image, dice: random.Random) -> bytes:
    """The same picture once more, as it may be met elsewhere: scaled, lighter or darker, as JPEG."""
    side = round(picture.width * dice.uniform(1.0, 1.5))
    again = ImageEnhance.Brightness(picture.resize((side, side), Image.Resampling.BICUBIC)).enhance(
        dice.uniform(0.9, 1.1)
    )
    stream = io.BytesIO()
    again.save(stream, format="JPEG", quality=dice.randrange(60, 95))
    return stream.getvalue()


def _pattern(kind: str, size: int, dice: np.random.Generator) -> np.ndarray:
    """uint8 [size, size, 3] with nothing to edit in it."""
    first, second = dice.integers(0, 256, (2, 3))
    y, x = np.mgrid[:size, :size] / size
    if kind == "noise":
        return dice.integers(0, 256, (size, size, 3)).astype(np.uint8)
    if kind == "flat":
        share = np.zeros_like(x)
    elif kind == "gradient":
        share = 0.3 * (x + y)
    else:
        waves = int(dice.integers(4, 9))
        along = ((x * waves) % 1 > 0.5).astype(float)
        share = along if kind == "stripes" else np.abs(along - ((y * waves) % 1 > 0.5))
    return np.rint(first + (second - first) * share[..., None]).astype(np.uint8)

"""Our own editor, diffusers' pipelines, and editors behind an address, as the pipeline asks them."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from ...checkpoints import data_folder
from ...editor import Editor
from ...errors import CheckpointError, EndpointError, ImageError, SettingError
from ...images import aspects_differ, load_image
from ...images.opening import px
from ...loading import load
from ..engine.keys import stamp_of
from ..models.http import Patience, check_address, post

# Pipelines that some people will ask for and diffusers has not: what is needed instead.
ABSENT = {
    "Step1X": "Step1X-Edit is in no release of diffusers: install the branch of its authors' pull request, or serve it "
    "with their own code and name its address as an editor"
}
MOST_OFF = 0.05  # by which an output's aspect ratio may differ from the picture's: models round sides to their grids


@dataclass(frozen=True)
class LabEditor:
    """EditMGT. model: as lab.load takes it; steps, guidance_scale, hold_threshold: None is the model's own.

    stamp: of the weights, found out by itself, so that other weights of one name are another editor.
    """

    version: ClassVar[int] = 1
    model: str = "tiny"
    steps: int | None = None
    guidance_scale: float | None = None
    hold_threshold: float | None = None
    stamp: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.stamp is None:
            object.__setattr__(self, "stamp", stamp_of(data_folder() / "tiny" if self.model == "tiny" else self.model))

    @property
    def name(self) -> str:
        asked = {"guidance": self.guidance_scale, "hold": self.hold_threshold}
        chosen = "".join(f", {what} {value:g}" for what, value in asked.items() if value is not None)
        return f"lab {Path(self.model).name}{chosen}"

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """See PictureEditor."""
        result = _lab(self.model).edit(
            image,
            instruction,
            seed=seed,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            hold_threshold=self.hold_threshold,
        )
        return result.geometry.paste_back(result.image, image)


def one_at_a_time(load: Callable[..., Any]) -> Callable[..., Any]:
    """For a cached loader: lru_cache lets two threads that ask at the same time load the same model twice."""
    lock = threading.Lock()

    @wraps(load)
    def locked(*asked: Any) -> Any:
        with lock:
            return load(*asked)

    return locked


@one_at_a_time
@lru_cache(maxsize=2)
def _lab(model: str) -> Editor:
    return load(model)


@dataclass(frozen=True)
class DiffusersEditor:
    """A pipeline of diffusers that edits by instruction, by its class's name: FluxKontextPipeline,
    QwenImageEditPipeline, QwenImageEditPlusPipeline, …

    folder: local, or a hub name; options: further arguments of its call, such as {"guidance_scale": 2.5}; device: None
    chooses CUDA if there is one, where it computes in bfloat16, elsewhere in float32; stamp: as LabEditor's. Raises
    SettingError for a class that diffusers has not.
    """

    version: ClassVar[int] = 2
    pipeline: str
    folder: str
    steps: int = 28
    options: dict[str, Any] = field(default_factory=dict)
    device: str | None = field(default=None, compare=False)
    stamp: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _pipeline_class(self.pipeline)
        if self.stamp is None:
            object.__setattr__(self, "stamp", stamp_of(self.folder))

    @property
    def name(self) -> str:
        return f"{self.pipeline} {Path(self.folder).name}"

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """See PictureEditor. Raises CheckpointError, ImageError for an output of another aspect ratio, and whatever the
        pipeline raises."""
        pipeline = _pipeline(self.pipeline, self.folder, self.device)
        # Kontext makes squares unless it is told a shape, which it scales to its own area; others look at the picture.
        shape = {"width": image.width, "height": image.height} if self.pipeline.startswith("FluxKontext") else {}
        asked = {"num_inference_steps": self.steps, "generator": torch.Generator("cpu").manual_seed(seed)}
        output = pipeline(image=image, prompt=instruction, **asked, **shape | self.options)
        return _as_large_as(image, output.images[0].convert("RGB"), self.name)


def _as_large_as(image: Image.Image, output: Image.Image, name: str) -> Image.Image:
    """An editor's output in the picture's size. Raises ImageError where that would distort it."""
    if aspects_differ(output.size, image.size) > MOST_OFF:
        raise ImageError(
            f"{name} made {px(output.size)} of a picture of {px(image.size)}",
            expected="an output of the picture's aspect ratio",
            fix="have the editor told the picture's width and height, or give it pictures of the shape that it makes",
        )
    return output.resize(image.size, Image.Resampling.LANCZOS)


def _pipeline_class(name: str) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise SettingError(
            f"{name} wants diffusers: {error}", expected="diffusers 0.35 or later", fix="pip install diffusers"
        ) from error
    absent = next((why for begin, why in ABSENT.items() if name.startswith(begin)), None)
    found = None if absent else getattr(diffusers, name, None)
    if found is None or not hasattr(found, "from_pretrained"):
        raise SettingError(
            f"diffusers {diffusers.__version__} has no pipeline {name}",
            expected="the name of a class that edits by instruction, such as FluxKontextPipeline",
            fix=absent or "check the spelling; newer pipelines want a newer diffusers",
        )
    return found


@one_at_a_time
@lru_cache(maxsize=1)
def _pipeline(name: str, folder: str, device: str | None) -> Any:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    try:
        pipeline = _pipeline_class(name).from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    except Exception as error:  # diffusers, transformers and the hub's client have their own kinds
        raise CheckpointError(
            f"{name} could not be loaded from {folder!r}: {str(error).strip().partition(chr(10))[0]}",
            expected="a local folder in diffusers' layout, or a hub name that can be reached",
            fix="download it where there is a network, and name the folder",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


@dataclass(frozen=True)
class HttpEditor:
    """An editor behind an address: POST {"image": PNG as base64, "instruction", "seed"} → {"image": base64}.

    key_variable: the environment variable with the server's key, if it wants one.
    """

    version: ClassVar[int] = 2
    url: str
    key_variable: str | None = field(default=None, compare=False)
    patience: Patience = field(default_factory=Patience, compare=False)
    at_once: int = field(default=4, compare=False)

    def __post_init__(self) -> None:
        check_address(self.url)

    @property
    def name(self) -> str:
        return self.url

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """See PictureEditor. Raises EndpointError, ImageError for an answer that is no picture or of another aspect."""
        stream = io.BytesIO()
        image.save(stream, format="PNG")
        asked = {"image": base64.b64encode(stream.getvalue()).decode(), "instruction": instruction, "seed": seed}
        told = post(self.url, asked, patience=self.patience, key_variable=self.key_variable)
        try:
            content = base64.b64decode(told["image"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise EndpointError(
                f"{self.url} answered without a picture: {str(told)[:200]}",
                expected='{"image": a picture file as base64}',
                fix="put a small server with this answer before the editor",
            ) from error
        return _as_large_as(image, load_image(content), self.name)

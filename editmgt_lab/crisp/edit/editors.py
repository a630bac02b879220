"""Our own editor, diffusers' pipelines, and editors behind an address, as the pipeline asks them."""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from ...basics.depth import check_kernels
from ...checkpoints import data_folder, read_json, resolve
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
INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")  # beside diffusers' own rooms of pipelines, such as "stable_diffusion"
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
        asked = {"steps": self.steps, "guidance": self.guidance_scale, "hold": self.hold_threshold}
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
    SettingError for a class that diffusers has not, or that takes its parts from elsewhere.
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
        return f"{self.pipeline} {Path(self.folder).name}, {self.steps} steps"

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """See PictureEditor. Raises CheckpointError, also for a folder that brings code, ImageError for an output of
        another aspect ratio, and whatever the pipeline raises."""
        pipeline = _pipeline(self.pipeline, _fetched(self.folder), self.device)
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
    absent = next((why for begin, why in ABSENT.items() if name.startswith(begin)), None)
    try:
        import diffusers

        found = None if absent else getattr(diffusers, name, None)
    except (ImportError, RuntimeError) as error:  # diffusers' own word for a part that transformers has no longer
        raise SettingError(
            f"{name} wants diffusers: {error}",
            expected="diffusers 0.36 or later, and a transformers that it goes with",
            fix="pip install --upgrade diffusers",
        ) from error
    whole = isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)
    if not whole or found is diffusers.DiffusionPipeline or found._load_connected_pipes:  # as a folder's README says
        raise SettingError(
            f"diffusers {diffusers.__version__} has no pipeline {name} that edits with one folder's weights",
            expected="the name of a class that edits by instruction, such as FluxKontextPipeline",
            fix=absent or "check the spelling; newer pipelines want a newer diffusers",
        )
    return found


@one_at_a_time
@lru_cache
def _fetched(folder: str) -> str:
    """The local folder of a pipeline. Of a hub's name only weights and settings are downloaded, no code. Raises
    CheckpointError."""
    place = resolve(folder, parts=())
    if os.path.isdir(Path(folder).expanduser()):
        return str(place)
    _refuse_code(str(place))  # before its weights are downloaded
    return str(resolve(folder, parts=[part for part, value in read_json(place / INDEX).items() if value]))


def _refuse_code(folder: str) -> None:
    """Raises CheckpointError for a pipeline's folder that brings code or asks for some: diffusers 0.36 would run it."""
    for file in _files_below(folder):
        if why := _code_in(file):
            raise CheckpointError(
                f"{file} {why}, and no code that comes with a model is run",
                expected="a pipeline whose every part is a class of diffusers or transformers",
                fix="take such a pipeline; or remove what is named here, if its weights work without",
            )


def _files_below(folder: str) -> Iterator[Path]:
    """Also behind links, each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
        else:
            seen.add(real)
            yield from (Path(place, name) for name in names)


def _code_in(file: Path) -> str | None:
    """What of a file is code, or makes diffusers or transformers look for some."""
    from diffusers import pipelines

    name = file.name.lower()  # as some systems open it
    if name.endswith(".py"):
        return "is code"
    if not name.endswith(("config.json", INDEX)):
        return None
    config = read_json(file)
    if "auto_map" in config:
        return "asks for code by its auto_map"
    check_kernels(config, file)
    for part, value in config.items() if name.endswith(INDEX) else ():
        library = value[0] if isinstance(value, list) and value else None
        if isinstance(library, str) and library not in LIBRARIES and not hasattr(pipelines, library):
            return f"takes its {part} from {library!r}"
    return None


@one_at_a_time
@lru_cache(maxsize=1)
def _pipeline(name: str, folder: str, device: str | None) -> Any:
    _refuse_code(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    try:
        pipeline = _pipeline_class(name).from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # diffusers, transformers and the hub's client have their own kinds
        raise CheckpointError(
            f"{name} could not be loaded from {folder!r}: {str(error).strip().partition(chr(10))[0]}",
            expected="a folder or a hub's repository in diffusers' layout",
            fix="check the path and the pipeline's name, or download it again",
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

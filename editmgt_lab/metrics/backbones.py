"""The networks that similarity is measured with: CLIP, DINO and DINOv2, from a local folder or the hub.

A small CLIP comes along, by the name "tiny". It knows the drawn world and nothing else: see data_samples/clip.

Pictures are prepared as the metrics' authors do, whatever the folder's own configuration says: the short side is
resized (bicubic), the centre is cropped to a square, the channels are normalised. A crop means that an edit at the far
end of a long picture is not seen.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..basics.fingerprints import fingerprint
from ..basics.lazy import LOADING, transformers
from ..checkpoints import data_folder
from ..errors import CheckpointError

CLIP_SOURCE, DINO_SOURCE, DINOV2_SOURCE = "openai/clip-vit-base-patch32", "facebook/dino-vits16", "facebook/dinov2-base"
PUBLISHED = {"clip": CLIP_SOURCE, "dino": DINO_SOURCE, "dinov2": DINOV2_SOURCE}  # what papers measure with
TINY = "tiny"
CLIP_STATISTICS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDING = 1e-5  # so far apart are unit vectors of one picture at most that was embedded in two batches
CROP = 224  # px, of DINOv2, which was built for more and takes pictures of any size; the others take their own alone


@dataclass(frozen=True)
class Preprocessing:
    """Short side to `short` px, centre `crop`, (value - mean) / deviation for each channel."""

    short: int
    crop: int
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]]

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any sizes → [B, 3, crop, crop]."""
        return torch.stack([self._prepare(image) for image in images])

    def _prepare(self, image: Image.Image) -> Tensor:
        size = tuple(self.short * side // min(image.size) for side in image.size)  # cut off, not rounded: torchvision's
        left, top = (round((side - self.crop) / 2) for side in size)  # as torchvision rounds: half to even
        image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        mean, deviation = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in self.statistics)
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / deviation

    def __str__(self) -> str:
        return f"short side {self.short} px bicubic, centre {self.crop} px"


@dataclass(frozen=True)
class Backbone:
    """One network that turns pictures into vectors. name: where it came from; encode: [B, 3, n, n] → [B, D];
    fingerprint: of its weights and tokenizer."""

    name: str
    preprocessing: Preprocessing
    encode: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"
    fingerprint: str = ""

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures → [B, D], float32 on the CPU."""
        return self.encode(self.preprocessing(images).to(self.device)).float().cpu()


@dataclass(frozen=True)
class TextBackbone(Backbone):
    """CLIP: texts and pictures → vectors of one space. longest: tokens that a text may have; more are cut off."""

    tokenizer: Any = None
    encode_text: Callable[[Any], Tensor] | None = None
    longest: int = 77

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """→ [B, D], float32 on the CPU."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        return self.encode_text(tokens.to(self.device)).float().cpu()

    def too_long(self, text: str) -> bool:
        """Whether the end of a text is cut off. CLIP's own code refuses such a text."""
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"]) > self.longest


def load_clip(source: str | os.PathLike[str] = CLIP_SOURCE, device: torch.device | str = "cpu") -> TextBackbone:
    """CLIP's projected picture and text vectors; MagicBrush uses ViT-B/32. source: "tiny", which comes along, a folder
    or a hub name. Raises CheckpointError."""
    with _told(source, "CLIP"):
        place = clip_folder(source)
        model = _pretrained(transformers().CLIPModel, place, device)
        tokenizer = transformers().AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    crop = model.config.vision_config.image_size
    return TextBackbone(
        name="tiny CLIP" if source == TINY else _name(source),
        preprocessing=Preprocessing(crop, crop, CLIP_STATISTICS),
        encode=lambda pixels: model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output),
        device=device,
        fingerprint=fingerprint(model, tokenizer.get_vocab()),
        tokenizer=tokenizer,
        encode_text=lambda tokens: model.text_projection(model.text_model(**tokens).pooler_output),
        longest=model.config.text_config.max_position_embeddings,
    )


def clip_folder(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Where `load_clip` reads: the folder of the CLIP that comes along, or `source` itself."""
    return data_folder() / "clip" if source == TINY else source


def load_dino(source: str | os.PathLike[str] = DINO_SOURCE, device: torch.device | str = "cpu") -> Backbone:
    """The class token of DINO; MagicBrush uses ViT-S/16. Raises CheckpointError."""
    with _told(source, "DINO"):
        model = _pretrained(transformers().ViTModel, source, device, add_pooling_layer=False)
    return _class_token(source, model, device, model.config.image_size)


def load_dinov2(source: str | os.PathLike[str] = DINOV2_SOURCE, device: torch.device | str = "cpu") -> Backbone:
    """The class token of DINOv2. Raises CheckpointError."""
    with _told(source, "DINOv2"):
        model = _pretrained(transformers().Dinov2Model, source, device)
    return _class_token(source, model, device, min(CROP, model.config.image_size))


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine similarity of two vectors [D]; 0 where one of them is zero."""
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0).item()


def direction(source: Tensor, output: Tensor, before: Tensor, after: Tensor) -> float:
    """Does the picture change in CLIP's space as the texts do? cos(output − source, after − before), made unit vectors.

    All are [D]. 0 for a picture that did not change; NaN for equal texts, which have no direction.
    """
    source, output, before, after = (
        torch.nn.functional.normalize(each, dim=0) for each in (source, output, before, after)
    )
    way, words = output - source, after - before
    if words.norm() < ROUNDING:
        return math.nan
    return cosine(way, words) if way.norm() >= ROUNDING else 0.0


def _class_token(source: Any, model: Any, device: torch.device | str, crop: int) -> Backbone:
    return Backbone(
        name=_name(source),
        preprocessing=Preprocessing(round(crop * 8 / 7), crop, IMAGENET_STATISTICS),  # 256 px for 224
        encode=lambda pixels: model(pixel_values=pixels).last_hidden_state[:, 0],
        device=device,
        fingerprint=fingerprint(model),
    )


def _pretrained(kind: Any, source: Any, device: torch.device | str, **options: Any) -> Any:
    """Every weight must be in the folder: transformers would draw the missing ones at random, with a mere warning."""
    with LOADING:
        model, report = kind.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, weights_only=True, trust_remote_code=False,
            attn_implementation="sdpa",  # whatever its configuration names, which may be a repository of native code
            **options,
        )  # fmt: skip
    if wrong := [*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])]:
        raise ValueError(f"{len(wrong)} of its weights are missing or of another shape, such as {min(wrong)}")
    return model.to(device).float().eval()


def _name(source: str | os.PathLike[str]) -> str:
    text = os.fspath(source)
    return os.path.basename(os.path.normpath(text)) if os.path.isdir(text) else text


@contextmanager
def _told(source: str | os.PathLike[str], kind: str) -> Any:
    try:
        yield
    except Exception as error:  # transformers and the hub's client raise OSError, ValueError and their own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{kind} could not be loaded from {os.fspath(source)!r}: {reason}",
            expected="a local folder in transformers' layout, or a hub name that can be reached",
            fix="download it where there is a network, and pass the folder",
        ) from error

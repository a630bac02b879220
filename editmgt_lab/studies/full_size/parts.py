"""The parts of the released checkpoint by their configurations, without weights, and tokenizers of its kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    GemmaTokenizer,
)

from ... import world
from ...errors import SettingError
from ...training.build import build_tokenizer
from ...transformer import MaskedGenerativeTransformer, TransformerConfig
from ...vq import VQConfig, VQModel

CLIP_LENGTH = 77
SMALL_VOCABULARY = 4096  # of both text networks, in a small checkpoint
GEMMA_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


@dataclass(frozen=True)
class Sizes:
    """Every size of the checkpoint, under the keys of the configurations. clip, gemma: of transformers' own."""

    transformer: TransformerConfig
    vq: VQConfig
    clip: dict[str, Any]
    gemma: dict[str, Any]

    @classmethod
    def released(cls, layers: int | None = None) -> Sizes:
        """The released sizes: CLIP is the text half of ViT-H/14, the language model is Gemma 2 2B.

        layers: instead so many blocks of the transformer, a third of them multi-modal as there, as many layers in each
        text network, and few words. Raises SettingError for less than 2, or no fewer than there are.
        """
        transformer = TransformerConfig()
        clip = {
            "vocab_size": 49_408, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "projection_dim": transformer.pooled_projection_dim, "hidden_act": "gelu",
            "max_position_embeddings": CLIP_LENGTH,
        }  # fmt: skip
        gemma = {
            "vocab_size": 256_000, "hidden_size": transformer.joint_attention_dim, "intermediate_size": 9216,
            "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        }  # fmt: skip
        if layers is not None:
            total = transformer.num_layers + transformer.num_single_layers
            if not 2 <= layers < total:
                raise SettingError(f"layers is {layers}", expected=f"2 to {total - 1}", fix="leave it out for all")
            multi = max(1, layers // 3)
            transformer = TransformerConfig(num_layers=multi, num_single_layers=layers - multi)
            fewer = {"vocab_size": SMALL_VOCABULARY, "num_hidden_layers": layers}
            clip, gemma = clip | fewer, gemma | fewer
        return cls(transformer, VQConfig(), clip, gemma)


@dataclass(frozen=True)
class Part:
    """One network, on the meta device; config: the content of its config.json; stem: of its files' names; prefix:
    before its parameters' names there."""

    network: nn.Module
    config: dict[str, Any]
    stem: str
    prefix: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.prefix + name: tuple(value.shape) for name, value in self.network.state_dict().items()}


def parts_of(sizes: Sizes) -> dict[str, Part]:
    """Every network, by the name of its folder."""

    def empty(build: Callable[..., nn.Module], *sizes: Any) -> nn.Module:
        with torch.device("meta"):
            return build(*sizes).eval()

    special = {name: getattr(clip_tokenizer(), name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    clip, gemma = CLIPTextConfig(**sizes.clip, **special), Gemma2Config(**sizes.gemma)
    levels = len(sizes.vq.block_out_channels)
    vq = asdict(sizes.vq) | {
        "_class_name": "VQModel", "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels, "sample_size": 32, "scaling_factor": 0.18215,
        "lookup_from_codebook": True, "force_upcast": False,
    }  # fmt: skip
    transformer = asdict(sizes.transformer) | {"_class_name": "Transformer2DModel"}
    stem, bf16 = "diffusion_pytorch_model", {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
    told = {
        "text_encoder": clip.to_dict() | {"architectures": ["CLIPTextModelWithProjection"]} | bf16,
        "llm_encoder": gemma.to_dict() | {"architectures": ["Gemma2ForCausalLM"]} | bf16,
    }
    return {
        "editmgt": Part(empty(MaskedGenerativeTransformer, sizes.transformer), transformer, stem),
        "vqvae": Part(empty(VQModel, sizes.vq), vq, stem),
        "text_encoder": Part(empty(CLIPTextModelWithProjection, clip), told["text_encoder"], "model"),
        "llm_encoder": Part(empty(AutoModel.from_config, gemma), told["llm_encoder"], "model", "model."),
    }


@lru_cache
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's kind, with the drawn world's words."""
    return build_tokenizer(world.phrases(), CLIP_LENGTH)


@lru_cache
def gemma_tokenizer() -> GemmaTokenizer:
    """Gemma's kind, which pads on the left and spells what it does not know in bytes, with the drawn world's words."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # no token reaches over two words
    known = [*GEMMA_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=SMALL_VOCABULARY, special_tokens=known, show_progress=False)
    trained.train_from_iterator(world.phrases(), trainer)
    learned = json.loads(trained.to_str())["model"]
    return GemmaTokenizer(vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]])

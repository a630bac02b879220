"""Every setting of the small model, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from ..transformer import TransformerConfig
from ..vq import VQConfig


@dataclass(frozen=True)
class Recipe:
    """Sizes, then the stages; lengths are counted in samples, so a batch size changes no meaning."""

    image_size: int = 64
    vq: VQConfig = VQConfig(
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        num_vq_embeddings=1024,
        norm_num_groups=1,
    )
    transformer: TransformerConfig = TransformerConfig(
        in_channels=8,
        num_layers=3,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        axes_dims_rope=(4, 14, 14),
        vocab_size=1088,
        codebook_size=1024,
        text_encoder_architecture="CLIP",
        connector_type=None,
    )
    text_length: int = 32
    text_layers: int = 3

    vq_pictures: int = 12_000
    vq_samples: int = 104_000
    vq_crop: int = 32
    vq_batch: int = 16
    vq_learning_rate: float = 2e-3
    vq_muon_learning_rate: float = 0.01
    decoder_pairs: int = 3000
    decoder_samples: int = 12_000
    decoder_batch: int = 8
    decoder_learning_rate: float = 1e-3
    decoder_muon_learning_rate: float = 0.004

    pairs: int = 56_000
    samples: int = 500_000
    caption_share: float = 0.4  # of the batches: text to image, the others are edits
    look_weight: float = 3.0  # of what a hidden token looks like, against which code it is
    reading_weight: float = 0.5  # of what stands where, against the same
    batch: int = 16
    adam_learning_rate: float = 4e-4
    muon_learning_rate: float = 0.004
    text_dropout: float = 0.05
    average_decay: float = 0.999


TINY = Recipe()

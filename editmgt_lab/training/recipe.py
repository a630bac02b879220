"""Every setting of the small model, in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..transformer import TransformerConfig
from ..vq import VQConfig

SPARE_IDS = 64  # beyond the codes: the last is the mask token, as in the released weights


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
        vocab_size=1024 + SPARE_IDS,
        codebook_size=1024,
        text_encoder_architecture="CLIP",
        connector_type=None,
    )
    text_length: int = 32
    text_layers: int = 3

    codes: int = 0  # so many stay of the VQ model's codes, those that look most different; 0: all
    vq_pictures: int = 12_000
    vq_samples: int = 104_000
    vq_crop: int = 32
    vq_batch: int = 16
    vq_learning_rate: float = 2e-3
    vq_muon_learning_rate: float = 0.01
    tune_samples: int = 0  # the VQ model once more, with the codes that stay, on the busiest of `tune_among` crops
    tune_among: int = 4
    decoder_pairs: int = 3000
    decoder_samples: int = 12_000
    decoder_crop: int = 0  # px; 0: whole pictures
    decoder_batch: int = 8
    decoder_learning_rate: float = 1e-3
    decoder_muon_learning_rate: float = 0.004

    pairs: int = 56_000
    hard_share: float = 0.0  # of the pairs: additions and motions, beside another object where there is one
    window: int = 0  # tokens along the side of the windows that are learned first; 0: whole pictures from the start
    window_samples: int = 0
    samples: int = 500_000  # windows and whole pictures together
    caption_share: float = 0.4  # of the batches: text to image, the others are edits
    look_weight: float = 3.0  # of what a hidden token looks like, against which code it is
    look_reach: float = 0.05  # of the mean squared distance between codes: so near, two look much the same
    reading_weight: float = 0.5  # of what stands where, against the same
    asked_share: float = 1.0  # of the hidden tokens that an edit leaves alone, and of all hidden ones of a caption
    late_share: float = 0.5  # of the edits whose place is hidden to the last, as decoding leaves it
    batch: int = 16
    whole_batch: int = 0  # of whole pictures; 0: as many as of windows
    adam_learning_rate: float = 4e-4
    muon_learning_rate: float = 0.004
    cool_down: float = 0.8  # the last share of the samples, over which the learning rates fall to zero
    text_dropout: float = 0.05
    average_decay: float = 0.999


TINY = Recipe()

# 256 px. The VQ model is narrow where there are many pixels, which is where its time goes.
SMALL = replace(
    TINY,
    image_size=256,
    vq=VQConfig(
        block_out_channels=(16, 24, 48, 128),
        layers_per_block=1,
        latent_channels=16,
        num_vq_embeddings=4096,
        norm_num_groups=1,
    ),
    transformer=replace(TINY.transformer, in_channels=16, vocab_size=3072 + SPARE_IDS, codebook_size=3072),
    codes=3072,
    vq_pictures=5000,
    vq_samples=42_000,
    vq_crop=64,
    tune_samples=30_000,
    decoder_pairs=1500,
    decoder_samples=12_000,
    decoder_crop=96,
    decoder_batch=8,
    pairs=24_000,
    window=16,
    window_samples=117_000,
    samples=235_000,
    cool_down=0.6,
    look_reach=0.02,  # the codebook is thinned out
    asked_share=0.25,
    whole_batch=8,
)

RECIPES = {"tiny": TINY, "small": SMALL}

"""The sizes of the tests' own tiny editor, random weights for it, and a language model of its size."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from editmgt_lab.training.build import build_text_encoder, save_editor
from editmgt_lab.training.recipe import Recipe
from editmgt_lab.transformer import MaskedGenerativeTransformer, TransformerConfig
from editmgt_lab.vq import VQConfig, VQModel

RECIPE = Recipe(
    image_size=32,
    vq=VQConfig(
        block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=4, num_vq_embeddings=32, norm_num_groups=4
    ),
    transformer=TransformerConfig(
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
        vocab_size=40,
        codebook_size=32,
        text_encoder_architecture="CLIP",
        connector_type=None,
    ),
    text_length=16,
    text_layers=2,
)


def enliven(module: nn.Module) -> None:
    """Random weights everywhere: adaLN-zero starts at zero, and a network of zeros would pass too many tests."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=max(0.2, parameter.std().item() if parameter.numel() > 1 else 0))


def save_tiny(folder: Path, recipe: Recipe = RECIPE) -> None:
    """An editor of random weights, in a folder as the recipe writes it."""
    torch.manual_seed(0)
    transformer, vq = MaskedGenerativeTransformer(recipe.transformer), VQModel(recipe.vq)
    enliven(transformer)
    enliven(vq.quantize)
    save_editor(folder, vq, build_text_encoder(recipe), transformer, recipe.image_size)


def save_language_model(folder: Path, width: int) -> None:
    """A Gemma 2 of random weights and a tokenizer of few sub-words that pads on the left, as Gemma's does."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=34, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"])
    words.train_from_iterator(["make the ball blue", "remove the purple hat"], trainer)
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=words.get_vocab_size(),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)

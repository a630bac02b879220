"""A pipeline of diffusers as an editor: a tiny FluxKontextPipeline of random weights, saved and named as users do."""

import pytest
import torch
from PIL import Image

from editmgt_lab.crisp.edit.editors import DiffusersEditor
from editmgt_lab.crisp.engine.keys import key_of
from editmgt_lab.crisp.options import editor_of
from editmgt_lab.errors import CheckpointError, SettingError

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

    torch.manual_seed(0)
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "remove", "the", "ball"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    options = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    clip = CLIPTextConfig(
        vocab_size=8, hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=77, projection_dim=32, eos_token_id=1, pad_token_id=0, bos_token_id=2,
    )  # fmt: skip
    t5 = T5Config(vocab_size=8, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    pipeline = diffusers.FluxKontextPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=CLIPTextModel(clip).eval(),
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=77, **options),
        tokenizer_2=PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=77, **options),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
        ),
        vae=diffusers.AutoencoderKL(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=(4,), layers_per_block=1,
            latent_channels=1, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False,
            shift_factor=0.06, scaling_factor=1.5,
        ),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("flux")
    pipeline.save_pretrained(folder)
    return folder


def test_a_pipeline_edits_by_its_class_name(folder):
    editor = DiffusersEditor(
        "FluxKontextPipeline", str(folder), steps=2,
        options={"height": 32, "width": 32, "max_area": 32 * 32, "_auto_resize": False}, device="cpu",
    )  # fmt: skip
    picture = Image.new("RGB", (48, 32), "orange")
    first, again, other = (editor.edit(picture, "remove the ball", seed) for seed in (1, 1, 2))
    assert first.size == (48, 32) and first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert editor.name.startswith("FluxKontextPipeline") and key_of(editor) != key_of(
        editor_of(f"FluxPipeline:{folder}")
    )


def test_a_folder_without_a_pipeline_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="could not be loaded"):
        DiffusersEditor("FluxKontextPipeline", str(tmp_path)).edit(Image.new("RGB", (32, 32)), "remove the ball", 0)


def test_step1x_is_said_to_be_absent():
    with pytest.raises(SettingError, match="Step1X-Edit is in no release"):
        DiffusersEditor("Step1XEditPipeline", "somewhere")

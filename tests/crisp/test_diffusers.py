"""Pipelines of diffusers as editors: tiny ones of random weights, saved and named as users do."""

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
        options={"max_area": 48 * 32, "_auto_resize": False}, device="cpu",
    )  # fmt: skip
    picture = Image.new("RGB", (48, 32), "orange")
    first, again, other = (editor.edit(picture, "remove the ball", seed) for seed in (1, 1, 2))
    assert first.size == (48, 32) and first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert editor.name.startswith("FluxKontextPipeline") and key_of(editor) != key_of(
        editor_of(f"FluxPipeline:{folder}")
    )


@pytest.fixture
def qwen(tmp_path, monkeypatch):
    """A folder with a QwenImageEditPlusPipeline; pictures are worked on at 32 px instead of a million of them."""
    import transformers
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module
    from tokenizers import pre_tokenizers
    from transformers.processing_utils import ProcessorMixin

    class WithoutVideos(transformers.Qwen2VLProcessor):
        """The half for videos wants torchvision, and no editor uses it."""

        def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **_):
            for kind in ("image", "video"):
                token = f"<|{kind}_pad|>"
                setattr(self, f"{kind}_token", token)
                setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(token))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    WithoutVideos.__name__, WithoutVideos.__module__ = "Qwen2VLProcessor", transformers.Qwen2VLProcessor.__module__
    monkeypatch.setattr(transformers, "Qwen2VLProcessor", WithoutVideos)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 32 * 32)
    special = [f"<|{name}|>" for name in ("im_start", "vision_start", "vision_end", "image_pad", "video_pad")]
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=letters, merges=[], unk_token=None, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    names = ("vision_start", "vision_end", "image", "video")
    ids = dict(
        zip((f"{name}_token_id" for name in names), map(tokenizer.convert_tokens_to_ids, special[1:]), strict=True)
    )
    small = {"hidden_size": 16, "intermediate_size": 16}
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "rope_scaling": rope}
    torch.manual_seed(0)
    config = transformers.Qwen2_5_VLConfig(
        text_config=small | heads | {"rope_theta": 1e6, "vocab_size": len(tokenizer)},
        vision_config=small | {"depth": 2, "num_heads": 2, "out_hidden_size": 16, "fullatt_block_indexes": [1]},
        vocab_size=len(tokenizer), **ids,
    )  # fmt: skip
    pictures = getattr(transformers, "Qwen2VLImageProcessorPil", None) or transformers.Qwen2VLImageProcessor
    pipeline = diffusers.QwenImageEditPlusPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=24, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        processor=WithoutVideos(pictures(), tokenizer, chat_template="{{ messages }}"),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        ),
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path)
    return tmp_path


def test_qwen_edits_by_its_class_name(qwen):
    options = {"height": 32, "width": 48, "true_cfg_scale": 1.0}
    editor = DiffusersEditor("QwenImageEditPlusPipeline", str(qwen), steps=2, options=options, device="cpu")
    picture = Image.new("RGB", (48, 32), "orange")
    first, again, other = (editor.edit(picture, "remove the ball", seed) for seed in (1, 1, 2))
    assert first.size == (48, 32) and first.tobytes() == again.tobytes() != other.tobytes()
    said = editor.edit(picture, "paint the ball blue", 1)
    elsewhere = editor.edit(Image.new("RGB", (48, 32)), "remove the ball", 1)
    assert len({each.tobytes() for each in (first, said, elsewhere)}) == 3


def test_other_weights_of_one_name_are_another_editor(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"old")
    old = DiffusersEditor("FluxKontextPipeline", str(tmp_path))
    assert old == DiffusersEditor("FluxKontextPipeline", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"longer")
    assert old != DiffusersEditor("FluxKontextPipeline", str(tmp_path))


def test_a_folder_without_a_pipeline_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="could not be loaded"):
        DiffusersEditor("FluxKontextPipeline", str(tmp_path)).edit(Image.new("RGB", (32, 32)), "remove the ball", 0)


def test_step1x_is_said_to_be_absent():
    with pytest.raises(SettingError, match="Step1X-Edit is in no release"):
        DiffusersEditor("Step1XEditPipeline", "somewhere")

"""dtype: by torch's type, numpy's or a name, wherever one is taken; what no network is computed in is refused."""

import numpy as np
import pytest
import torch

import editmgt_lab as lab
from editmgt_lab.basics.dtypes import choose_dtype
from editmgt_lab.checkpoints import load_into, read_weights
from editmgt_lab.errors import LabError, SettingError
from editmgt_lab.text import load_text_encoder
from editmgt_lab.vq import VQModel

NAMES = {
    torch.float32: (torch.float32, "float32", "fp32", "float", "torch.float32", np.float32, np.dtype("float32")),
    torch.bfloat16: (torch.bfloat16, "bfloat16", "bf16", "BF16", " torch.bfloat16 "),
    torch.float16: (torch.float16, torch.half, "float16", "fp16", "half", "Half", np.float16, np.dtype("<f2")),
    torch.float64: (torch.double, "double", "float64", np.float64),
    None: (None,),
}
REFUSED = (
    "auto", "bfloat", "float8", "int8", "", torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn,
    np.int32, np.dtype("uint8"), np.dtype("complex64"), float, int, 16, ["float16"], b"float16",
)  # fmt: skip


@pytest.mark.parametrize(("dtype", "names"), NAMES.items())
def test_names(dtype, names):
    assert [choose_dtype(name) for name in names] == [dtype] * len(names)


@pytest.mark.parametrize("dtype", REFUSED, ids=repr)
def test_what_is_none(dtype):
    with pytest.raises(SettingError, match=r"dtype is .*(?s:.*)float32, bfloat16, float16, float64(?s:.*)to do:"):
        choose_dtype(dtype)


def dtypes(module):
    return {parameter.dtype for parameter in module.parameters()}


@pytest.mark.parametrize("name", ["bfloat16", "half", np.float64])
def test_wherever_one_is_taken(tiny_folder, name):
    dtype = choose_dtype(name)
    editor = lab.load(tiny_folder, device="cpu", dtype=name)
    assert dtypes(editor.vq) == dtypes(editor.text_encoder) == dtypes(editor.transformer) == {dtype}
    assert dtypes(lab.MaskedGenerativeTransformer.from_pretrained(tiny_folder / "editmgt", dtype=name)) == {dtype}
    assert dtypes(VQModel.from_pretrained(tiny_folder / "vqvae", dtype=name)) == {dtype}
    assert dtypes(load_into(VQModel(editor.vq.config), tiny_folder / "vqvae", dtype=name)) == {dtype}
    assert {each.dtype for each in read_weights(tiny_folder / "vqvae", dtype=name).values()} == {dtype}
    assert dtypes(load_text_encoder(tiny_folder, dtype=name)) == {dtype}
    assert editor.encode_text("a ball").to(dtype="float32").pooled.dtype == torch.float32


def test_refused_wherever_one_is_taken(tiny_folder, tmp_path):
    condition = load_text_encoder(tiny_folder)(["a ball"])
    calls = (
        lambda dtype: lab.load(tmp_path / "not even there", dtype=dtype),  # before anything is looked for
        lambda dtype: lab.MaskedGenerativeTransformer.from_pretrained(tiny_folder / "editmgt", dtype=dtype),
        lambda dtype: VQModel.from_pretrained(tiny_folder / "vqvae", dtype=dtype),
        lambda dtype: read_weights(tiny_folder / "vqvae", dtype=dtype),
        lambda dtype: load_text_encoder(tiny_folder, dtype=dtype),
        lambda dtype: condition.to(dtype=dtype),
    )
    for call in calls:
        for dtype in ("bfloat", torch.int8):
            with pytest.raises(LabError, match="dtype is"):
                call(dtype)


@pytest.mark.parametrize("dtype", ["bf16", "double"])
def test_an_edit_runs_in_it(tiny_folder, picture, dtype):
    editor = lab.load(tiny_folder, device="cpu", dtype=dtype)
    assert editor.edit(picture(), "make the ball blue", steps=2, seed=0).image.size == (32, 32)

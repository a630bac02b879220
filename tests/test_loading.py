"""What large weights take is said before they are read, and long calls show where they are."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import editmgt_lab as lab
from editmgt_lab import loading
from editmgt_lab.basics.devices import choose_device
from editmgt_lab.basics.progress import show
from editmgt_lab.basics.sizes import bytes_of, in_bytes
from editmgt_lab.errors import SettingError
from tests.support import PATIENCE

PARTS = ("editmgt", "vqvae", "text_encoder")


@pytest.fixture
def stored_as(tiny_folder, tmp_path):
    """stored_as(dtype): the tiny editor's folder with its weights stored in it."""

    def store(dtype):
        shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
        for part in PARTS:
            (file,) = (tmp_path / part).glob("*.safetensors")
            weights = {name: value.to(dtype) for name, value in load_file(file).items()}
            save_file(weights, file, {"format": "pt"})
        return tmp_path

    return store


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_fastest_device_is_chosen(monkeypatch, cuda, mps, chosen):
    def broken(*_, device):
        raise RuntimeError("its driver is too old")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    monkeypatch.setattr(torch, "zeros", broken)
    with pytest.raises(SettingError, match=f"device '{chosen}' cannot be used: its driver is too old"):
        choose_device(None)


def test_only_the_cpu_turns_small_weights_into_float32(tiny_folder):
    for device, dtype in (("cuda", None), ("mps", None), ("cpu", torch.float32)):
        planned = loading.plan_weights(tiny_folder, device=torch.device(device), dtype=None, offload=False)
        assert planned is dtype


def dtypes(editor):
    modules = (editor.transformer, editor.vq, editor.text_encoder)
    return {parameter.dtype for module in modules for parameter in module.parameters()}


def test_small_weights_are_float32_on_the_cpu_and_say_nothing(stored_as, capsys):
    assert dtypes(lab.load(stored_as(torch.bfloat16), device="cpu")) == {torch.float32}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("stored", "asked", "loaded", "said"),
    [
        (torch.bfloat16, None, torch.bfloat16, 'in bfloat16 on cpu, as they are stored (dtype="float32" takes {}'),
        (torch.bfloat16, "float32", torch.float32, "in float32 on cpu, stored in bfloat16"),
        (torch.float16, None, torch.float32, "in float32 on cpu, stored in float16"),
        (torch.float32, None, torch.float32, "in float32 on cpu, as they are stored"),
    ],
)  # fmt: skip
def test_large_weights_are_chosen_and_said(stored_as, monkeypatch, capsys, stored, asked, loaded, said):
    folder = stored_as(stored)
    monkeypatch.setattr(loading, "LARGE", 1000)
    editor = lab.load(folder, device="cpu", dtype=asked)
    taken = bytes_of(editor.transformer, editor.vq, editor.text_encoder)
    assert dtypes(editor) == {loaded}
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith(f"{in_bytes(taken)} of weights {said.format(in_bytes(2 * taken))}")


@pytest.mark.parametrize(("fast", "advice"), [(True, 0), (False, 1)])
def test_a_processor_that_is_slow_in_bfloat16_is_told(stored_as, monkeypatch, capsys, fast, advice):
    folder = stored_as(torch.bfloat16)
    monkeypatch.setattr(loading, "LARGE", 1000)
    monkeypatch.setattr(loading, "has_bfloat16", lambda device: fast)
    lab.load(folder, device="cpu")
    assert capsys.readouterr().err.count("faster here: this processor multiplies bfloat16 slowly)") == advice


def test_what_stays_in_its_files_is_said(stored_as, monkeypatch, capsys):
    folder = stored_as(torch.bfloat16)
    monkeypatch.setattr(loading, "LARGE", 1000)
    editor = lab.load(folder, device="cpu", offload=True)
    held = bytes_of(editor.transformer, editor.vq)
    left = sum(2 * parameter.numel() for parameter in editor.text_encoder.parameters())
    said = capsys.readouterr().err
    assert said.startswith(f"{in_bytes(held)} of weights in bfloat16")
    assert f"the text encoder's {in_bytes(left)} are read from its files whenever it runs" in said
    assert f'dtype="float32" takes {in_bytes(2 * held)}' in said


@pytest.mark.parametrize("switch", ["offload", "compiled"])
def test_a_switch_is_true_or_false(tiny_folder, switch):
    with pytest.raises(SettingError, match="True or False"):
        lab.load(tiny_folder, **{switch: "no"})


def test_compiling_without_a_compiler_is_refused(tiny_folder, monkeypatch):
    monkeypatch.setenv("CXX", "nothing-compiles-here")
    with pytest.raises(SettingError, match="no C\\+\\+ compiler here \\(nothing-compiles-here\\)"):
        lab.load(tiny_folder, device="cpu", compiled=True)


def test_a_long_edit_shows_each_stage_and_a_short_one_none(editor, picture, monkeypatch, capsys):
    settings = {"steps": 2, "seed": 0}
    plain = editor.edit(picture(), "make the ball blue", **settings)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("editmgt_lab.editor.LONG", 1000)
    long = lab.Editor(editor.vq, editor.text_encoder, editor.transformer, defaults=editor.defaults)
    seen = []

    def on_step(step):
        seen.append(capsys.readouterr().err)

    shown = long.edit(picture(), "make the ball blue", **settings, on_step=on_step)
    assert torch.equal(shown.tokens, plain.tokens) and long.watch is show
    assert seen[0].index("reading the picture") < seen[0].index("reading the text") < seen[0].index("0/2")
    assert "painting the picture" in capsys.readouterr().err
    long.generate("a ball", steps=1)
    assert "reading the text" in (said := capsys.readouterr().err) and "painting" in said


def test_threads_that_import_transformers_at_once_both_have_it():
    code = """
import threading
from editmgt_lab.basics.lazy import transformers

found, ready = [], threading.Barrier(4)

def ask():
    ready.wait()
    found.append(transformers().AutoTokenizer)

threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == "4", done.stderr

"""Stage 2: padding, words and their rows, for CLIP alone and for CLIP with a language model."""

import copy
import json
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file

from editmgt_lab.basics.fingerprints import fingerprint
from editmgt_lab.basics.offload import parameters_on_meta
from editmgt_lab.errors import CheckpointError, SettingError, TextError
from editmgt_lab.text import TextCondition, load_text_encoder
from editmgt_lab.training.build import save_editor
from tests.support import PATIENCE
from tests.support.tiny import RECIPE, save_language_model

LENGTH = RECIPE.text_length
INSTRUCTION = "make the ball blue"


@pytest.fixture(scope="module")
def clip(tiny_folder):
    return load_text_encoder(tiny_folder)


@pytest.fixture(scope="module")
def both_folder(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
    save_language_model(folder / "llm_encoder", 24)
    return folder


@pytest.fixture(scope="module")
def both(both_folder):
    return load_text_encoder(both_folder, architecture="CLIP_Gemma2")


def covered(condition, rows, index=0):
    """The characters that these rows cover, joined."""
    spans = condition.spans[index][rows[index]].tolist()
    return [condition.texts[index][a:b] for a, b in spans]


@torch.no_grad()
def test_clip_alone(clip):
    condition = clip([INSTRUCTION, "remove the hat"])
    assert condition.tokens.shape == (2, LENGTH, 32) and condition.pooled.shape == (2, 32)
    assert condition.texts == (INSTRUCTION, "remove the hat")
    assert (~condition.padding).sum(1).tolist() == [6, 5]  # start and end count, what follows does not
    assert (clip.width, clip.pooled_width) == (32, 32)
    ids = clip.tokenize([INSTRUCTION])[0]["input_ids"]
    output = clip.clip(input_ids=ids, output_hidden_states=True)
    assert torch.equal(condition.tokens[:1], output.hidden_states[-2])
    torch.testing.assert_close(condition.pooled[:1], output.text_embeds)


def test_threads_take_turns_at_the_tokenizer(clip, monkeypatch):
    """It is told anew in every call what to cut off, so that two calls at once would take each other's lengths."""
    ask, inside = clip.clip_tokenizer, threading.Semaphore(1)

    class Alone:
        def __call__(self, *texts, **how):
            assert inside.acquire(blocking=False), "two calls at once"
            time.sleep(0.002)  # an invitation to others
            inside.release()
            return ask(*texts, **how)

    monkeypatch.setattr(clip, "clip_tokenizer", Alone())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda count: clip.tokenize([INSTRUCTION] * count), [1, 2, 3, 4] * 3))
    assert [len(each[0]["input_ids"]) for each in found] == [1, 2, 3, 4] * 3


@torch.no_grad()
def test_words_find_their_rows(clip):
    condition = clip(["make the ball blue and the hat blue"])
    rows = condition.rows("blue")
    assert covered(condition, rows) == ["blue", "blue"]
    assert covered(condition, condition.rows(["the ball", "HAT"])) == ["the", "ball", "hat"]
    assert not rows[condition.padding].any()


@torch.no_grad()
def test_every_sub_token_of_a_word(clip):
    condition = clip(["make the zyzzyva blue"])
    rows = condition.rows("zyzzyva")
    assert rows.sum() > 1 and "".join(covered(condition, rows)) == "zyzzyva"


@torch.no_grad()
def test_words_for_each_text(clip):
    condition = clip([INSTRUCTION, "remove the hat"])
    rows = condition.rows([["ball"], ["hat"]])
    assert [covered(condition, rows, 0), covered(condition, rows, 1)] == [["ball"], ["hat"]]


@pytest.mark.parametrize("focus", ["all", "bal", "", [], [[]], [["ball"], ["ball"]], 3, [3]])
@torch.no_grad()
def test_words_that_are_not_there(clip, focus):
    with pytest.raises(TextError):
        clip([INSTRUCTION]).rows(focus)


@torch.no_grad()
def test_the_error_names_the_words_there_are(clip):
    with pytest.raises(TextError, match="'cat' is not in.*\n.*make, the, ball, blue"):
        clip([INSTRUCTION]).rows("cat")


def test_a_condition_without_words():
    with pytest.raises(TextError, match="no words"):
        TextCondition(torch.zeros(1, 4, 8), torch.zeros(1, 8)).rows("ball")


def test_an_over_long_text(clip):
    words = "the ball " * 40
    with pytest.raises(TextError, match=f"82 text tokens(?s:.*)at most {LENGTH}"):
        clip([INSTRUCTION, words])


@torch.no_grad()
def test_clip_and_a_language_model(both, clip):
    condition = both([INSTRUCTION])
    assert condition.tokens.shape == (1, 256, 24) and both.width == 24
    torch.testing.assert_close(condition.pooled, clip([INSTRUCTION]).pooled)
    ids = both.tokenize([INSTRUCTION])[1]["input_ids"]
    expected = both.language_model(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(condition.tokens, expected)


@torch.no_grad()
def test_words_index_the_language_models_rows(both):
    condition = both(["make the purple ball blue"])
    assert condition.padding[0, 0] and not condition.padding[0, -1]  # it pads on the left
    rows = condition.rows("purple")
    assert rows.shape == (1, 256) and not (rows & condition.padding).any()
    assert rows.sum() > 1 and "".join(covered(condition, rows)).strip() == "purple"
    ids = both.tokenize(condition.texts)[1]["input_ids"]
    assert both.language_tokenizer.decode(ids[rows]).strip() == "purple"


@torch.no_grad()
def test_padding_of_the_language_model(both):
    """The released code gives it no attention mask: another padding length, other embeddings. Masked, they stay."""

    def last_rows(length, mask_padding):
        both.language_length, both.mask_padding = length, mask_padding
        try:
            return both([INSTRUCTION]).tokens[:, -4:]
        finally:
            both.language_length, both.mask_padding = 256, False

    assert (last_rows(40, False) - last_rows(30, False)).abs().max() > 1e-3
    torch.testing.assert_close(last_rows(40, True), last_rows(30, True), atol=1e-5, rtol=1e-4)


def test_dtype(tiny_folder):
    encoder = load_text_encoder(tiny_folder, dtype=torch.bfloat16)
    with torch.no_grad():
        condition = encoder([INSTRUCTION])
    assert condition.tokens.dtype == condition.pooled.dtype == torch.bfloat16
    moved = condition.to("cpu", torch.float32)
    assert moved.tokens.dtype == torch.float32 and moved.texts == condition.texts


def test_an_unknown_architecture(tiny_folder):
    with pytest.raises(CheckpointError, match="'T5'"):
        load_text_encoder(tiny_folder, architecture="T5")


def test_a_language_model_that_is_not_there(tiny_folder):
    with pytest.raises(CheckpointError, match="llm_encoder"):
        load_text_encoder(tiny_folder, architecture="CLIP_Gemma2")


@pytest.fixture
def copied(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder / "text_encoder", tmp_path / "text_encoder")
    shutil.copytree(tiny_folder / "tokenizer", tmp_path / "tokenizer")
    return tmp_path


def test_a_language_model_is_saved_with_its_editor(both, both_folder, editor, tmp_path):
    save_editor(tmp_path, editor.vq, both, editor.transformer, 64)
    again = load_text_encoder(tmp_path, architecture="CLIP_Gemma2")
    assert torch.equal(again([INSTRUCTION]).tokens, both([INSTRUCTION]).tokens)
    away = load_text_encoder(both_folder, architecture="CLIP_Gemma2", offload=True)
    with pytest.raises(SettingError, match="left in their files"):
        save_editor(tmp_path / "other", editor.vq, away, editor.transformer, 64)
    assert not (tmp_path / "other").exists()


def test_code_that_a_configuration_asks_for_is_not_run(both_folder, tmp_path):
    """Of a class that the library does not know by itself, as `AutoModel` would look for it in `auto_map`."""
    shutil.copytree(both_folder, tmp_path / "model")
    folder, ran = tmp_path / "model" / "llm_encoder", tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n", encoding="utf-8")
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for wrong in (
        {"model_type": "blip_text_model", "auto_map": {"AutoModel": "evil.Evil"}},
        {"attn_implementation": "owner/kernel"},
        {"text_config": {"_attn_implementation": "flash_attention_2"}},
    ):
        (folder / "config.json").write_text(json.dumps(known | wrong), encoding="utf-8")
        with pytest.raises(CheckpointError, match="trust_remote_code|no code that comes|does not recognize"):
            load_text_encoder(tmp_path / "model", architecture="CLIP_Gemma2")
    assert not ran.exists()


@pytest.mark.parametrize(
    "wrong", [{"num_attention_heads": -1}, {"layer_norm_eps": None}, {"eos_token_id": None}, {"eos_token_id": [1, 2]}]
)
def test_numbers_with_which_nothing_is_encoded(copied, wrong):
    file = copied / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | wrong), encoding="utf-8")
    with pytest.raises(CheckpointError, match="text_encoder cannot be loaded"):
        load_text_encoder(copied)


def test_no_tokenizer(copied):
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_text_encoder(copied)


def test_a_pickled_text_encoder(copied):
    (copied / "text_encoder" / "model.safetensors").rename(copied / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled weights only \(pytorch_model.bin\)"):
        load_text_encoder(copied)


def test_a_truncated_text_encoder(copied):
    file = copied / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_text_encoder(copied)


def test_names_and_shapes_are_reported_together(copied, capsys):
    file = copied / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if "final_layer_norm.weight" in name)
    projection = next(name for name in weights if "text_projection" in name)
    del weights[lost]
    weights |= {projection: torch.zeros(31, 32), "extra": torch.zeros(1)}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load_text_encoder(copied)
    message = str(caught.value)
    assert "1 missing" in message and "final_layer_norm.weight" in message
    assert "1 unexpected: extra" in message
    assert "1 of another shape" in message and "[31, 32] instead of [32, 32]" in message
    assert capsys.readouterr().err == ""


def test_loading_small_files_prints_nothing(tiny_folder, capsys):
    load_text_encoder(tiny_folder)
    output = capsys.readouterr()
    assert output.out == output.err == ""


def test_the_config_decides_the_width(copied):
    file = copied / "text_encoder" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"intermediate_size": 48}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"of another shape.*\[64, 32\] instead of \[48, 32\]"):
        load_text_encoder(copied)


def test_parameters_without_numbers_are_this_threads_alone():
    with parameters_on_meta(), ThreadPoolExecutor(1) as other:
        assert torch.nn.Linear(2, 2).weight.is_meta
        assert not other.submit(torch.nn.Linear, 2, 2).result().weight.is_meta
    assert not torch.nn.Linear(2, 2).weight.is_meta


@torch.no_grad()
def test_clip_reads_the_beginning_where_a_language_model_reads_it_all(both):
    words = "make the ball blue and the hat blue " * 3
    beginning = both.clip_tokenizer([words], truncation=True, max_length=LENGTH, return_tensors="pt").input_ids
    with pytest.warns(UserWarning, match=f"29 tokens for CLIP, which reads the first {LENGTH} alone"):
        condition = both([words])
    torch.testing.assert_close(condition.pooled, both.clip(input_ids=beginning).text_embeds)
    assert covered(condition, condition.rows("blue"))[-1].strip().endswith("e")  # of the last words too
    assert condition.rows("blue").sum() > both(["make the ball blue"]).rows("blue").sum()
    with pytest.raises(TextError, match="text tokens(?s:.*)at most 256"):
        both([words * 10])


@torch.no_grad()
def test_offloaded_it_says_the_same_and_holds_one_layer_at_most(both_folder, both, monkeypatch):
    away = load_text_encoder(both_folder, architecture="CLIP_Gemma2", offload=True)
    assert (away.width, away.pooled_width, away.clip_length) == (both.width, both.pooled_width, both.clip_length)
    held, seen, linear = [], [], torch.nn.functional.linear

    def spy(x, *weights):
        seen.extend(weakref.ref(each) for each in weights if each is not None)
        held.append(sum(each().nbytes for each in seen if each() is not None))
        return linear(x, *weights)

    looked_up, embedding = [], torch.nn.functional.embedding

    def spy_on_rows(ids, weight, *others):
        looked_up.append(len(weight))
        return embedding(ids, weight, *others)

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    monkeypatch.setattr(torch.nn.functional, "embedding", spy_on_rows)
    condition = away([INSTRUCTION, ""])
    monkeypatch.undo()
    expected = both([INSTRUCTION, ""])
    assert torch.equal(condition.tokens, expected.tokens) and torch.equal(condition.pooled, expected.pooled)
    layers = [module for module in both.modules() if isinstance(module, torch.nn.Linear)]
    ids = [each["input_ids"] for each in both.tokenize([INSTRUCTION, ""])]
    assert looked_up == [len(ids[0].unique()), LENGTH, len(ids[1].unique())]  # positions between them
    assert max(held) == max(sum(each.nbytes for each in layer.parameters()) for layer in layers)
    sizes = {name: each.shape for name, each in both.named_parameters()}
    assert {name: each.shape for name, each in away.named_parameters() if each.is_meta} == sizes
    assert torch.equal(away([INSTRUCTION, ""]).tokens, expected.tokens)  # read anew


@torch.no_grad()
def test_offloaded_in_another_dtype(both_folder):
    near, away = (
        load_text_encoder(both_folder, architecture="CLIP_Gemma2", dtype="bfloat16", offload=offload)
        for offload in (False, True)
    )
    assert torch.equal(near([INSTRUCTION]).tokens, away([INSTRUCTION]).tokens)
    assert away([INSTRUCTION]).pooled.dtype == torch.bfloat16
    frequencies = dict(near.named_buffers())["language_model.rotary_emb.inv_freq"]
    assert frequencies.dtype == torch.float32  # rounded, words would stand elsewhere


def test_offloaded_weights_that_do_not_fit(both_folder, tmp_path):
    shutil.copytree(both_folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "llm_encoder" / "model.safetensors"
    weights = load_file(file)
    for change, match in (({"model.norm.weight": torch.zeros(5)}, r"\[5\] instead of \[24\]"), ({}, "missing")):
        changed = {name: value for name, value in weights.items() if name != "model.norm.weight"} | change
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=f"llm_encoder does not fit(?s:.*){match}"):
            load_text_encoder(tmp_path, architecture="CLIP_Gemma2", offload=True)
    (tmp_path / "llm_encoder" / "config.json").write_text('{"model_type": "gemma3000"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="llm_encoder cannot be loaded"):
        load_text_encoder(tmp_path, architecture="CLIP_Gemma2", offload=True)


@torch.no_grad()
def test_files_that_are_gone_after_loading(both_folder, tmp_path):
    shutil.copytree(both_folder, tmp_path, dirs_exist_ok=True)
    away = load_text_encoder(tmp_path, architecture="CLIP_Gemma2", offload=True)
    shutil.move(tmp_path / "llm_encoder", tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="cannot be read any more"):
        away([INSTRUCTION])
    shutil.move(tmp_path / "elsewhere", tmp_path / "llm_encoder")
    assert away([INSTRUCTION]).tokens.isfinite().all()


@torch.no_grad()
def test_offloaded_it_reads_on_after_an_interrupt_and_as_a_copy(both_folder, both, monkeypatch):
    away = load_text_encoder(both_folder, architecture="CLIP_Gemma2", offload=True)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", stopped)
        with pytest.raises(KeyboardInterrupt):
            away([INSTRUCTION])
    assert all(each.is_meta for each in away.parameters())
    read = []
    for encoder in (away, copy.deepcopy(away)):
        other = threading.Thread(target=lambda e=encoder: read.append(e([INSTRUCTION]).pooled), daemon=True)
        other.start()
        other.join(PATIENCE)
        read.append(encoder([INSTRUCTION]).pooled if not other.is_alive() else None)
    assert len(read) == 4 and all(torch.equal(each, both([INSTRUCTION]).pooled) for each in read)


def test_a_device_that_is_not_there(both_folder):
    for device in ("cuba", "meta"):
        with pytest.raises(SettingError, match=f"device '{device}' cannot be used"):
            load_text_encoder(both_folder, device=device)


def test_offloaded_weights_have_no_fingerprint(both_folder):
    away = load_text_encoder(both_folder, architecture="CLIP_Gemma2", offload=True)
    with pytest.raises(SettingError, match="without offload"):
        fingerprint(away)

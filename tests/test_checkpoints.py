import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from editmgt_lab import checkpoints
from editmgt_lab.checkpoints import data_folder, load_into, read_config, read_weights, resolve, save, weight_files
from editmgt_lab.errors import CheckpointError

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Small(nn.Module):
    """A few parameters and an integer buffer."""

    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.second = nn.Linear(width, 2, bias=False)
        self.register_buffer("count", torch.tensor([7]))

    def forward(self, x):
        return self.second(self.first(x))


def same(module, other):
    mine, theirs = module.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture
def folder(tmp_path):
    save(Small(), tmp_path / "part", {"width": 4})
    return tmp_path / "part"


def write_shards(folder, module):
    """The module's weights as two shards and their index, as diffusers and transformers write them."""
    weights = module.state_dict()
    weight_map = {}
    for number, names in enumerate((list(weights)[::2], list(weights)[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def test_saved_and_loaded(tmp_path):
    module = Small()
    save(module, tmp_path / "new" / "part", {"width": 4, "name": "ein Würfel"})
    assert read_config(tmp_path / "new" / "part") == {"width": 4, "name": "ein Würfel"}
    other = Small()
    assert load_into(other, tmp_path / "new" / "part") is other
    assert same(module, other)
    assert sorted(file.name for file in (tmp_path / "new" / "part").iterdir()) == ["config.json", WEIGHTS]


def test_loads_into_a_module_on_the_meta_device(folder):
    with torch.device("meta"):
        module = Small()
    load_into(module, folder)
    assert {value.device.type for value in module.state_dict().values()} == {"cpu"}
    assert same(module, load_into(Small(), folder))
    assert module.first.weight.requires_grad
    assert module(torch.ones(1, 3)).shape == (1, 2)


def test_the_dtype_is_that_of_the_parameters(folder):
    module = load_into(Small(), folder, dtype=torch.bfloat16)
    assert module.first.weight.dtype == torch.bfloat16 and module.count.dtype == torch.int64
    weights = read_weights(folder, dtype=torch.float16)
    assert weights["second.weight"].dtype == torch.float16 and weights["count"].dtype == torch.int64
    save(module, folder, {})
    assert load_into(Small(), folder).first.weight.dtype == torch.bfloat16  # None: as stored


def test_changing_a_loaded_module_leaves_its_file_alone(folder):
    before = (folder / WEIGHTS).read_bytes()
    module = load_into(Small(), folder)
    with torch.no_grad():
        module.first.weight.fill_(3.0)
    assert (folder / WEIGHTS).read_bytes() == before
    save(module, folder, {})  # over the file that the weights are mapped from
    assert (load_into(Small(), folder).first.weight == 3.0).all()


def test_a_failed_save_keeps_the_old_files(folder):
    before = (folder / WEIGHTS).read_bytes(), (folder / "config.json").read_bytes()
    with pytest.raises(TypeError):
        save(Small(), folder, {"width": object()})
    assert read_config(folder) == {"width": 4}
    assert ((folder / WEIGHTS).read_bytes(), (folder / "config.json").read_bytes()) == before


def test_shards_are_joined(tmp_path):
    module = Small()
    write_shards(tmp_path, module)
    assert len(weight_files(tmp_path)) == 2
    assert read_weights(tmp_path).keys() == module.state_dict().keys()
    with torch.device("meta"):
        other = Small()
    assert same(load_into(other, tmp_path), module)


def test_a_missing_shard(tmp_path):
    write_shards(tmp_path, Small())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing.*model-00002-of-00002"):
        read_weights(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": [1]}, {"weight_map": {"a": "../a"}}])
def test_an_index_that_names_no_shards(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not name its shards"):
        read_weights(tmp_path)


def test_every_name_that_does_not_fit_is_reported_together(folder):
    weights = load_file(folder / WEIGHTS)
    weights["first.weight"] = torch.zeros(5, 3)
    weights["extra.a"], weights["extra.b"] = torch.zeros(1), torch.zeros(1)
    del weights["second.weight"], weights["count"]
    save_file(weights, folder / WEIGHTS)
    module = Small()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(module, folder)
    message = str(caught.value)
    assert "2 missing: count, second.weight" in message
    assert "2 unexpected: extra.a, extra.b" in message
    assert "1 of another shape: first.weight [5, 3] instead of [4, 3]" in message
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


def test_long_lists_of_names_are_cut_with_their_count(folder):
    weights = load_file(folder / WEIGHTS) | {f"extra.{number:02}": torch.zeros(1) for number in range(25)}
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"25 unexpected: extra\.00, .*extra\.09 and 15 more"):
        load_into(Small(), folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file(folder, keep):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    for read in (read_weights, lambda folder: load_into(Small(), folder)):
        with pytest.raises(CheckpointError, match=f"{WEIGHTS} is damaged or cut short"):
            read(folder)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.pt", "last.ckpt", "weights.pth"])
def test_pickles_are_refused_and_never_opened(tmp_path, name):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match=f"pickled weights only \\({name}\\)"):
        load_into(Small(), tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_safetensors_beside_a_pickle_are_taken(folder):
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"old")
    assert weight_files(folder) == [folder / WEIGHTS]


def test_which_file_is_taken(tmp_path):
    for name in ("other", "another"):
        save_file({"a": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"several weights: another\.safetensors, other\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "other.safetensors").rename(tmp_path / "model.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        read_config(tmp_path)
    with pytest.raises(CheckpointError, match="there is no folder"):
        read_weights(tmp_path / "gone")


@pytest.mark.parametrize(("text", "problem"), [("{", "not JSON"), ("[1]", "holds a list"), ("\xff", "not JSON")])
def test_a_damaged_config(tmp_path, text, problem):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=problem):
        read_config(tmp_path)


def test_a_bar_is_shown_for_large_files_only(folder, monkeypatch, capsys):
    read_weights(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(checkpoints, "_PROGRESS_FROM", 1)
    read_weights(folder, progress=False)
    assert capsys.readouterr().err == ""
    read_weights(folder)
    assert "loading part" in capsys.readouterr().err


def test_resolve_takes_a_folder(tmp_path, monkeypatch):
    assert resolve(tmp_path) == resolve(str(tmp_path)) == tmp_path
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name").samefile(tmp_path / "owner" / "name")  # a folder goes before a hub name


@pytest.mark.parametrize("source", ["gone", "./gone/part", "/gone/part", "a/b/c"])
def test_resolve_refuses_what_is_neither_a_folder_nor_a_hub_name(source, monkeypatch):
    monkeypatch.setattr(checkpoints, "_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="no folder here"):
        resolve(source)


def test_resolve_refuses_a_file(folder):
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(folder / WEIGHTS)


def test_the_data_is_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "__file__", str(tmp_path / "editmgt_lab" / "checkpoints.py"))
    with pytest.raises(CheckpointError, match="data_samples is missing"):
        data_folder()
    for place in (tmp_path / "data_samples", tmp_path / "editmgt_lab" / "data_samples"):
        place.mkdir(parents=True)
        assert data_folder().samefile(place)


def test_the_small_model_comes_along(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "data_folder", lambda: tmp_path)
    with pytest.raises(CheckpointError, match="small model is missing"):
        resolve("tiny")
    (tmp_path / "tiny").mkdir()
    assert resolve("tiny") == tmp_path / "tiny"


def test_a_hub_name_is_downloaded_without_pickles(tmp_path, monkeypatch):
    asked = {}

    def download(name, *, allow_patterns):
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve("WeiChow/EditMGT") == tmp_path
    assert "*.safetensors" in asked["WeiChow/EditMGT"]
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in asked["WeiChow/EditMGT"])
    resolve("some/thing", parts=["vqvae", "tokenizer"])
    assert {"vqvae/*.json", "tokenizer/*.txt", "model_index.json"} < set(asked["some/thing"])
    assert not any(pattern.startswith("*") for pattern in asked["some/thing"])


def test_the_hub_out_of_reach(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CheckpointError, match=r"'some/thing' is no folder here and could not.*no route\n"):
        resolve("some/thing")


def test_offline_mode_is_said_plainly(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="some/thing.*could not be had from the hub(?s:.*)pass the folder"):
        resolve("some/thing")

"""Pickles beside what is read stay shut, and in its place are refused: of models, trainings, adapters and data sets."""

import _pickle
import builtins
import io
import itertools
import pickle
import shutil
import sys
from pickle import loads as bound_before

import pyarrow as pa
import pytest
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.data.pairs import PairReader
from editmgt_lab.errors import CheckpointError, DataError
from editmgt_lab.finetuning import Finetuner, FinetuneSettings, TokenPairs, load_adapter
from editmgt_lab.metrics.backbones import load_clip
from editmgt_lab.training.run import Run
from tests.support.backbones import save_clip
from tests.support.parquet import IMAGE, column, write

HEARD: list[list[str] | None] = [None]  # what pickles ask for, while a test listens


def hear(event, arguments):
    if HEARD[0] is not None and event == "pickle.find_class":
        HEARD[0].append(".".join(arguments))


@pytest.fixture(scope="module", autouse=True)
def listening():
    """Every pickle that could run anything tells Python what it asks for, whoever opens it and by whatever name."""
    sys.addaudithook(hear)


@pytest.fixture
def unpickled(listening):
    HEARD[0] = []
    yield HEARD[0]
    HEARD[0] = None


class Trap:
    """A pickle that makes a file as it is opened."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return builtins.open, (str(self.file), "w")


@pytest.fixture
def traps(tmp_path, unpickled):
    """Lays pickles under these names, as Python and as torch writes them; in the end none of them was opened."""

    def lay(folder, *names):
        for number, name in enumerate(names):
            if number % 2:
                torch.save({"weight": Trap(tmp_path / "ran")}, folder / name)
            else:
                (folder / name).write_bytes(pickle.dumps({"weight": Trap(tmp_path / "ran")}))

    yield lay
    assert unpickled == [] and not (tmp_path / "ran").exists()


class Unpickler(pickle.Unpickler):
    pass


WAYS = [pickle.loads, bound_before, _pickle.loads, pickle._loads, lambda text: Unpickler(io.BytesIO(text)).load()]


@pytest.mark.parametrize("opened", WAYS, ids=["loads", "bound before", "C", "Python", "a class of it"])
def test_a_pickle_that_is_opened_is_heard(unpickled, opened, tmp_path):
    opened(pickle.dumps(Trap(tmp_path / "ran"))).close()
    assert unpickled == [f"{open.__module__}.open"] and (tmp_path / "ran").exists()


# What transformers, diffusers and torch name their weights
NAMES = ("pytorch_model.bin", "model.pt", "diffusion_pytorch_model.bin", "model.ckpt", "training_args.bin", "a.pkl")
PARTS = ("editmgt", "vqvae", "text_encoder")


def test_pickles_beside_a_models_weights_stay_shut(tiny_folder, tmp_path, traps):
    shutil.copytree(tiny_folder, tmp_path / "model")
    for part in (".", *PARTS, "tokenizer", "scheduler"):
        traps(tmp_path / "model" / part, *NAMES)
    assert lab.load(tmp_path / "model", device="cpu") and lab.load(tmp_path / "model", device="cpu", offload=True)


@pytest.mark.parametrize("part", PARTS)
def test_pickles_in_place_of_a_models_weights_are_refused(tiny_folder, tmp_path, traps, part):
    for name, of_torch in itertools.product(NAMES, (False, True)):
        folder = tmp_path / f"{name} {of_torch}"
        shutil.copytree(tiny_folder, folder)
        for file in (folder / part).glob("*.safetensors"):
            file.unlink()
        traps(folder / part, *[name] * (1 + of_torch))
        with pytest.raises(CheckpointError, match="pickle|weights"):
            lab.load(folder, device="cpu")


def finetuner(folder, run):
    editor = lab.load(folder, device="cpu")
    tokens = editor.tokenize([Image.new("RGB", (32, 32), (40 * i, 90, 200)) for i in range(4)])
    pairs = TokenPairs(tokens[:2], tokens[2:], ["make the ball blue"] * 2)
    return Finetuner(editor, pairs, FinetuneSettings(steps=4, batch=2, rank=2, save_every=2), folder=run)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """The folders of a fine-tuning and of its adapter."""
    folder = tmp_path_factory.mktemp("trained")
    tuner = finetuner(tiny_folder, folder / "run")
    tuner.run(bar=False)
    tuner.save(folder / "adapter")
    return folder


# As accelerate's save_state names what it pickles
STATES = ("random_states_0.pkl", "optimizer.bin", "scheduler.bin", "scaler.pt", "custom_checkpoint_0.pkl")


def test_a_fine_tuning_goes_on_beside_accelerates_pickles(tiny_folder, trained, tmp_path, traps):
    shutil.copytree(trained / "run", tmp_path / "run")
    traps(tmp_path / "run", *STATES, *NAMES)
    again = finetuner(tiny_folder, tmp_path / "run")
    again.restore()
    assert again.done == 4


def test_a_pickle_in_place_of_a_state_is_refused(tiny_folder, trained, tmp_path, traps):
    shutil.copytree(trained / "run", tmp_path / "run")
    for names in (["state.pt"], ["state.pt", "state.pt"]):
        traps(tmp_path / "run", *names)
        with pytest.raises(CheckpointError, match="cannot be read"):
            finetuner(tiny_folder, tmp_path / "run").restore()
    for content in (b"", b"PK\x03\x04"):
        (tmp_path / "run" / "state.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            Run(tmp_path / "run").load()


def test_an_adapters_pickle_is_refused_and_beside_its_tensors_stays_shut(tiny_folder, trained, tmp_path, traps):
    shutil.copytree(trained / "adapter", tmp_path / "adapter")
    traps(tmp_path / "adapter", "adapter_model.bin", "adapter_model.pt")
    load_adapter(lab.load(tiny_folder, device="cpu").transformer, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        load_adapter(lab.load(tiny_folder, device="cpu").transformer, tmp_path / "adapter")
    traps(tmp_path / "adapter", "adapter_model.safetensors")
    with pytest.raises(CheckpointError):
        load_adapter(lab.load(tiny_folder, device="cpu").transformer, tmp_path / "adapter")


def test_a_network_that_measures_runs_no_pickle(tmp_path, traps):
    folder = save_clip(tmp_path / "clip")
    traps(folder, *NAMES[1:])
    assert load_clip(folder)
    (folder / "model.safetensors").unlink()
    for names in (NAMES[:1], NAMES[:1] * 2):
        traps(folder, *names)
        with pytest.raises(CheckpointError, match="could not be loaded"):
            load_clip(folder)


def test_a_data_sets_pickles_and_script_stay_shut(tmp_path, traps):
    """Its tables, also the arrow files of the cache of `datasets`, are read. Older releases of pyarrow opened a pickle
    that a column's metadata held."""
    picture, folder = column(Image.new("RGB", (32, 32), "red")), tmp_path / "set"
    row = {"input_img": picture, "output_img": picture, "instruction": "make it blue", "extra": "x"}
    pickled = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Trap(tmp_path / "ran")),
    }
    columns = [("input_img", IMAGE), ("output_img", IMAGE), ("instruction", "string")]
    schema = pa.schema([*columns, pa.field("extra", "string", metadata=pickled)])
    write(folder / "data.parquet", schema, [row])
    with pa.OSFile(str(folder / "cache.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_table(pa.Table.from_pylist([row], schema=schema))
    (folder / "state.json").write_text('{"_data_files": [{"filename": "cache.arrow"}]}')
    for name in ("set.py", "dataset.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    traps(folder, "data.pkl", "data.pt", "data.pickle", "data.pth")
    assert len(list(PairReader(folder))) == 2
    assert len([row for shard in Source(str(folder), column="input_img").shards() for row in shard.read()]) == 2
    for table in ("data.parquet", "cache.arrow"):
        (folder / table).unlink()
    for reading in (lambda: list(PairReader(folder)), lambda: list(Source(str(folder)).shards())):
        with pytest.raises(DataError):
            reading()

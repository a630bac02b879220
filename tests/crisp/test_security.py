"""A pipeline of others brings no code along, and a key is in nothing that the lab says or writes."""

import http.server
import json
import shutil
import threading

import pyarrow.parquet as pq
import pytest
from PIL import Image

from editmgt_lab.crisp.__main__ import main
from editmgt_lab.crisp.edit import editors
from editmgt_lab.crisp.edit.editors import DiffusersEditor, HttpEditor
from editmgt_lab.crisp.models.client import Client
from editmgt_lab.crisp.models.http import Patience
from editmgt_lab.errors import CheckpointError, LabError, SettingError
from editmgt_lab.world import render, sample_scene
from tests.crisp import drawn_server

# Pipelines


@pytest.fixture
def evil(tmp_path):
    """evil(index, files): the folder of a pipeline whose index says so, with these files; its code makes `evil.ran`."""

    def write(index, files):
        folder = tmp_path / "pipeline"
        base = {"_class_name": "FluxKontextPipeline", "_diffusers_version": "0.36.0", "image_encoder": [None, None]}
        code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
        for name, content in {"model_index.json": base | index, **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code if content is CODE else json.dumps(content))
        return folder

    write.ran = tmp_path / "ran"
    return write


CODE = object()
INNER = {"_class_name": "FluxPipeline", "_diffusers_version": "0.36.0", "vae": ["evil", "Evil"]}
EVIL = {
    "a part": ({"vae": ["evil", "Evil"]}, {"vae/evil.py": CODE}, "takes its vae from 'evil'"),
    "a part named as a library": ({"vae": ["diffusers", "Evil"]}, {"vae/diffusers.py": CODE}, "diffusers.py is code"),
    "a part of what is installed": ({"vae": ["antigravity", "Evil"]}, {}, "takes its vae from 'antigravity'"),
    "the pipeline": ({"_class_name": ["evil", "Evil"]}, {"evil.py": CODE}, "is code|takes its _class_name from"),
    "the pipeline, unasked": ({}, {"None.py": CODE}, "None.py is code"),
    "a pipeline in it": (
        {"vae": ["diffusers", "DiffusionPipeline"]},
        {"vae/model_index.json": INNER, "vae/vae/evil.py": CODE},
        "takes its vae from 'evil'|is code",
    ),
    "transformers' code": (
        {"text_encoder": ["transformers", "AutoModel"]},
        {"text_encoder/config.json": {"auto_map": {"AutoModel": "somebody/evil--evil.Evil"}}},
        "asks for code by its auto_map",
    ),
    "a tokenizer's code": (
        {"tokenizer": ["transformers", "AutoTokenizer"]},
        {"tokenizer/tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}},
        "asks for code by its auto_map",
    ),
}


def edited(folder):
    return DiffusersEditor("FluxKontextPipeline", str(folder), device="cpu").edit(Image.new("RGB", (32, 32)), "x", 0)


@pytest.mark.parametrize("name", EVIL)
def test_a_pipelines_code_is_refused_and_not_run(evil, name):
    pytest.importorskip("diffusers")
    index, files, said = EVIL[name]
    with pytest.raises(CheckpointError, match=said) as caught:
        edited(evil(index, files))
    assert not evil.ran.exists() and "no code that comes with a model is run" in caught.value.problem


def test_code_behind_a_link_is_found(evil, tmp_path):
    pytest.importorskip("diffusers")
    folder = evil({"vae": ["diffusers", "AutoencoderKL"]}, {"other/diffusers.py": CODE})
    shutil.move(folder / "other", tmp_path / "other")
    (folder / "vae").symlink_to(tmp_path / "other")
    (folder / "round").symlink_to(folder)
    with pytest.raises(CheckpointError, match="diffusers.py is code"):
        edited(folder)
    assert not evil.ran.exists()


def test_parts_that_are_absent_or_diffusers_own_are_no_code(evil):
    """Such a folder is loaded, and lacks a file here."""
    pytest.importorskip("diffusers")
    parts = {"vae": [None, None], "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    parts["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    with pytest.raises(CheckpointError, match="could not be loaded .* scheduler_config.json"):
        edited(evil(parts | {"layers": [10, 20], "is_distilled": True, "nothing": None}, {}))


def test_of_a_hubs_pipeline_no_code_is_downloaded(evil, monkeypatch, tmp_path):
    pytest.importorskip("diffusers")
    folder = evil({"vae": ["diffusers", "AutoencoderKL"]}, {"vae/diffusers.py": CODE})
    cache, wanted = tmp_path / "cache", []

    def download(name, allow_patterns):
        wanted.append(allow_patterns)
        for file in folder.rglob("*"):
            if file.is_file() and any(file.relative_to(folder).match(pattern) for pattern in allow_patterns):
                (cache / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / file.relative_to(folder))
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    editors._fetched.__wrapped__.cache_clear()
    with pytest.raises(CheckpointError, match="could not be loaded"):
        edited("somebody/evil")
    assert [*cache.rglob("*")] == [cache / "model_index.json"] and "vae/*.safetensors" in wanted[1]
    assert not evil.ran.exists()


def test_a_pipeline_that_loads_another_by_its_readme_is_refused():
    pytest.importorskip("diffusers")
    for name in ("KandinskyCombinedPipeline", "DiffusionPipeline", "AutoPipelineForImage2Image", "AutoencoderKL"):
        with pytest.raises(
            SettingError, match=f"no pipeline {name} that edits with one folder's weights|{name} wants diffusers"
        ):
            DiffusersEditor(name, "folder")


# Keys


ONCE = Patience(attempts=1, timeout=10)
KEY = "sk-this-is-the-secret-0123456789"


@pytest.fixture
def endpoint(monkeypatch):
    """The URL of a server that repeats the key in whatever it says; what it says is set in its `answers`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answers: list = []

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            body = said.replace("KEY", self.headers["Authorization"].removeprefix("Bearer ")).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("SECRET_KEY", KEY)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", Handler.answers
        server.shutdown()


def message(content):
    return json.dumps({"choices": [{"message": {"content": content}}]})


def test_a_key_is_in_no_error_no_log_and_no_file(endpoint, tmp_path, caplog, capfd):
    url, answers = endpoint
    client = Client(url, "m", key_variable="SECRET_KEY", cache=tmp_path / "cache")
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    for status, said in (
        (401, "the key KEY is wrong"), (200, "KEY"), (200, '{"said": "KEY"}'), (200, message("KEY")),
        (200, message('{"b": "KEY"}')),
    ):  # fmt: skip
        answers[:] = [(status, said)]
        client_once = Client(url, "m", key_variable="SECRET_KEY", cache=client.cache, patience=ONCE)
        with pytest.raises(LabError) as caught:
            client_once.ask("what?", schema)
        told = [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
        assert not any(KEY in each for each in told), told
    answers[:] = [(200, message('{"a": "KEY"}'))]
    assert client.ask("what?", schema) == {"a": "…"}
    editor = HttpEditor(url, key_variable="SECRET_KEY", patience=ONCE)
    answers[:] = [(200, '{"text": "KEY"}')]
    with pytest.raises(LabError) as caught:
        editor.edit(Image.new("RGB", (8, 8)), "x", 0)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)
    seen = [str(caught.value), repr(client), repr(editor), caplog.text, *capfd.readouterr()]
    assert not any(KEY in each for each in seen)


@pytest.mark.parametrize("key", [f"{KEY}\nX: y", f"{KEY}\x00", f"{KEY}ü"])
def test_a_key_that_no_header_takes_is_not_shown_either(monkeypatch, key):
    if "\0" not in key:
        monkeypatch.setenv("SECRET_KEY", key)
    with pytest.raises(LabError) as caught:
        Client("http://127.0.0.1:9/v1", "m", key_variable="SECRET_KEY", patience=ONCE).ask("x", {})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("kind", [lambda url: Client(url, "m"), HttpEditor])
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(kind):
    for url in (f"http://user:{KEY}@localhost/v1", f"http://localhost/v1?key={KEY}", f"http://localhost/v1#{KEY}"):
        with pytest.raises(SettingError, match="environment variable") as caught:
            kind(url)
        assert KEY not in str(caught.value)


def test_a_key_is_in_nothing_that_the_pipeline_makes(monkeypatch, tmp_path, capfd, caplog):
    """Shards, the endpoint's answers, manifest, card, figures and published tables, though the server repeats it in an
    instruction."""
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        render(sample_scene(number, split="validation"), 64).save(tmp_path / "pictures" / f"{number}.png")
    sent, written, answer, receive = [], [], drawn_server.answer, drawn_server.Handler.do_POST

    def heard(handler):
        sent.append(handler.headers["Authorization"])
        receive(handler)

    def repeated(name, text, pictures):
        told = answer(name, text, pictures)
        if "instruction" in told:
            written.append(told)
        return told | {"instruction": f"it is {KEY}"} if [told] == written else told

    monkeypatch.setattr(drawn_server.Handler, "do_POST", heard)
    monkeypatch.setattr(drawn_server, "answer", repeated)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with caplog.at_level("DEBUG"), drawn_server.served() as address:
        arguments = [str(tmp_path / "pictures"), "--preset", "drawn", "--editor", "drawn", "--rounds", "1"]
        asked = ["--endpoint", address, "--endpoint-model", "m", "--output", str(tmp_path / "made")]
        assert main([*arguments, *asked, "--categories", "color"]) == 0
    assert sent and set(sent) == {f"Bearer {KEY}"}
    files = [file for file in (tmp_path / "made").rglob("*") if file.is_file()]
    assert {"manifest.json", "README.md", "crisp.json", "funnel.png"} <= {file.name for file in files}
    tables = [str(pq.read_table(file).to_pylist()) for file in files if file.suffix == ".parquet"]
    said = [*tables, caplog.text, *capfd.readouterr(), *map(str, files)]
    assert tables and not any(KEY in each for each in said)
    assert not any(KEY.encode() in file.read_bytes() for file in files)
    assert any("it is …" in each for each in tables), "a server's words are kept, but for it"

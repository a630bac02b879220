"""The client, against a real server in a process of its own: one that is slow, busy, dying, or talks nonsense."""

import base64
import io
import json
import subprocess
import sys
import threading
import urllib.error
from dataclasses import replace

import pytest
from PIL import Image

from editmgt_lab.crisp.curate.rules import Measure
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.crisp.edit.editors import HttpEditor
from editmgt_lab.crisp.engine.keys import described, key_of
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Stage
from editmgt_lab.crisp.instruct.captions import Caption, Request, Thing
from editmgt_lab.crisp.instruct.operators import Describe
from editmgt_lab.crisp.models import http
from editmgt_lab.crisp.models.client import Client, checked
from editmgt_lab.crisp.models.http import Patience
from editmgt_lab.crisp.models.roles import EndpointDescriber, EndpointJudge, EndpointWriter, Suitable
from editmgt_lab.errors import EndpointError, ImageError, SettingError
from tests.support import PATIENCE, ROOT, until
from tests.support.parquet import png

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
SECRET = "sk-this-is-secret"
CAPTION = Caption("snow", (Thing("ball", ("red",), "left", (0, 0, 0.5, 0.5)),))


class Server:
    def __init__(self, folder):
        self.folder, self.process = folder, None
        self.behave("ok")
        self.answer('{"n": 3}')

    def start(self, port=0):
        (self.folder / "port").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "crisp" / "chat_server.py"), str(self.folder), str(port)]
        )
        until(lambda: (self.folder / "port").exists() or self.process.poll() is not None, "the server")
        assert self.process.poll() is None
        return self

    def behave(self, *behaviour):
        """From the next call on: the calls are counted anew."""
        (self.folder / "behaviour").write_text(json.dumps(["ok"] * len(self.asked()) + [*behaviour]))

    def answer(self, text):
        (self.folder / "answer").write_text(text)

    def asked(self):
        file = self.folder / "asked.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def port(self):
        return int((self.folder / "port").read_text())

    def client(self, **options):
        options = {"patience": Patience(attempts=4, timeout=PATIENCE, wait=0.05)} | options
        return Client(f"http://127.0.0.1:{self.port}/v1", "model-x", **options)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def server(running):
    running.behave("ok")
    running.answer('{"n": 3}')
    return running


def test_a_question_is_sent_with_pictures_and_schema(server):
    assert server.client().ask("How many?", SCHEMA, [Image.new("RGB", (8, 8), "red")]) == {"n": 3}
    asked = server.asked()[-1]
    assert asked["path"] == "/v1/chat/completions" and asked["key"] is None
    content = asked["content"]
    assert content["model"] == "model-x" and content["response_format"]["json_schema"]["schema"] == SCHEMA
    picture, text = content["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,") and "How many?" in text["text"]


def test_a_fenced_answer_is_taken_and_a_wrong_one_repaired_once(server):
    server.behave("fenced")
    assert server.client().ask("How many?", SCHEMA) == {"n": 3}
    server.behave('{"n": "three"}', "ok")
    assert server.client().ask("How many?", SCHEMA) == {"n": 3}
    said = server.asked()[-1]["content"]["messages"]
    assert said[1] == {"role": "assistant", "content": '{"n": "three"}'} and "$.n" in said[2]["content"]


@pytest.mark.parametrize(
    "nonsense", ["I cannot see pictures.", '{"n": 1.5}', '{"m": 1}', "[]", "", '{"n": 1} {"n": 2}']
)
def test_nonsense_is_an_error_and_never_an_answer(server, nonsense):
    before = len(server.asked())
    server.behave(nonsense)
    with pytest.raises(EndpointError, match="answered twice in another form"):
        server.client().ask("How many?", SCHEMA)
    assert len(server.asked()) == before + 2


@pytest.mark.parametrize("trouble", [429, 500, 503, "hang up", "cut short", "html"])
def test_trouble_that_passes_is_survived(server, trouble):
    before = len(server.asked())
    server.behave(trouble, trouble, "ok")
    assert server.client().ask("How many?", SCHEMA) == {"n": 3}
    calls = server.asked()[before:]
    assert len(calls) == 3
    if trouble == 429:  # it asked to be waited for
        assert calls[1]["at"] - calls[0]["at"] >= 0.3


def test_a_server_that_does_not_answer_in_time_is_asked_again(server):
    before = len(server.asked())
    server.behave("slow", "slow", "ok")
    client = server.client(patience=Patience(attempts=8, timeout=0.5, wait=0.05))
    assert client.ask("How many?", SCHEMA) == {"n": 3}
    assert len(server.asked()) - before >= 3, "more where this computer is slow itself"


def test_trouble_that_stays_is_an_error_after_the_last_attempt(server):
    before = len(server.asked())
    server.behave(503)
    with pytest.raises(EndpointError, match="in 4 attempts: HTTP 503"):
        server.client().ask("How many?", SCHEMA)
    assert len(server.asked()) == before + 4
    server.behave("empty")
    with pytest.raises(EndpointError, match="without a message"):
        server.client().ask("How many?", SCHEMA)


def test_the_key_is_sent_and_kept_nowhere(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_KEY", SECRET)
    client = server.client(key_variable="SOME_KEY", cache=tmp_path)
    client.ask("How many?", SCHEMA)
    assert server.asked()[-1]["key"] == f"Bearer {SECRET}"
    server.behave(401)  # this server says the key in its answer
    with pytest.raises(EndpointError, match="HTTP 401") as error:
        client.ask("How many, then?", SCHEMA)
    assert SECRET not in str(error.value) and len(server.asked()) > 0
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(SECRET in text for text in files)
    assert SECRET not in json.dumps(described(client)) + repr(client)
    server.behave("elsewhere")
    with pytest.raises(EndpointError, match="HTTP 302"):  # where the key would go along
        client.ask("Where?", SCHEMA)
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(EndpointError, match="SOME_KEY holds no key"):
        client.ask("Who?", SCHEMA)


@pytest.mark.parametrize(
    "body", [b"x" * 280 + b"sk-this/is-secret", b'{"error": "sk-this\\/is-secret"}', b"no sk-this/is-secret\xff"]
)
def test_a_key_that_a_server_repeats_is_never_said(body, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-this/is-secret")

    def refused(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 401, "no", {}, io.BytesIO(body))

    monkeypatch.setattr(http, "_exchange", refused)
    with pytest.raises(EndpointError, match="HTTP 401") as error:
        http.post("http://server/v1", {}, patience=Patience(1), key_variable="SOME_KEY")
    assert "sk-this" not in str(error.value)
    monkeypatch.setattr(http, "_exchange", lambda *_: b'{"said": ["sk-this\\/is-secret"]}')
    assert "sk-this" not in str(http.post("http://server/v1", {}, patience=Patience(1), key_variable="SOME_KEY"))


def test_an_error_whose_body_drips_is_given_up_in_time(monkeypatch):
    dripping = threading.Event()

    class Body(io.BytesIO):
        def read(self, size=-1):
            dripping.wait(PATIENCE)
            return b""

    def refused(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 401, "no", {}, Body())

    monkeypatch.setattr(http, "_exchange", refused)
    with pytest.raises(EndpointError, match="gave no answer: timed out"):
        http.post("http://server/v1", {}, patience=Patience(1, timeout=0.05))
    dripping.set()


def test_who_is_down_is_told_by_what_it_is():
    nowhere, once = "http://127.0.0.1:9/v1", Patience(attempts=1)
    with pytest.raises(EndpointError, match="OpenAI's protocol"):
        Client(nowhere, "m", patience=once).ask("How many?", SCHEMA)
    with pytest.raises(EndpointError) as error:
        HttpEditor(nowhere, patience=once).edit(Image.new("RGB", (8, 8)), "remove it", 1)
    assert "gave no answer" in str(error.value) and "OpenAI" not in str(error.value)


def test_answers_are_kept_by_content_and_their_cost_is_counted(server, tmp_path):
    client, before = server.client(cache=tmp_path), len(server.asked())
    assert client.cost().calls == 0
    red, blue = (Image.new("RGB", (8, 8), name) for name in ("red", "blue"))
    for picture in (red, red, blue):
        client.ask("How many?", SCHEMA, [picture])
    assert len(server.asked()) == before + 2
    replace(client, temperature=1.0).ask("How many?", SCHEMA, [red])
    server.behave("nonsense", "ok")
    client.ask("And now?", SCHEMA)
    cost = client.cost()
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens) == (5, 500, 35)
    next(tmp_path.glob("*/*.json")).write_text("{torn")
    for picture in (red, blue):
        assert client.ask("How many?", SCHEMA, [picture]) == {"n": 3}
    assert key_of(client) == key_of(replace(client, cache=None, at_once=1, key_variable="X"))
    assert key_of(client) != key_of(replace(client, model="model-y"))


def test_rows_survive_a_server_that_talks_nonsense_and_one_that_dies(tmp_path):
    """64 rows in a stage: the nonsense and what a dead server left open are errors of rows; a rerun of them goes on."""
    server = Server(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(12):
        (pictures / f"{number:02d}.png").write_bytes(png(Image.new("RGB", (16, 16), (20 * number, 0, 0))))
    server.answer(CAPTION.to_json())
    server.behave("ok", "ok", "nonsense", "nonsense", "nonsense", "nonsense", "ok", "ok", "ok", "die")
    server.start()
    store = Store(tmp_path / "shards")
    client = server.client(at_once=2, cache=tmp_path / "answers", patience=Patience(2, PATIENCE, 0.02))
    measured = Stage("measure", (Measure(),), ("picture",)).run(Source(str(pictures)).shards(), store, progress=False)
    from editmgt_lab.crisp.engine.stages import finished

    stage = Stage("describe", (Describe(EndpointDescriber(client)),))
    (shard,) = stage.run(finished(measured, store), store, progress=False)
    server.process.wait()
    kept, dropped = [*store.rows(shard)], [*store.rows(shard, dropped=True)]
    assert len(kept) + len(dropped) == 12 and kept and dropped
    assert all(Caption.of(row["caption"]) == CAPTION for row in kept)
    reasons = " ".join(row["problem"] for row in dropped)
    assert "gave no answer" in reasons
    server.behave("ok")
    server.start(server_port := int(client.url.split(":")[2].split("/")[0]))
    assert server_port == server.port
    before, held_up = len(server.asked()), next(finished([shard], store)).key
    (shard,) = stage.run(finished(measured, store), store, progress=False)
    assert shard.kept == 12 and len(server.asked()) - before == 12 - len(kept), "what was answered is not asked again"
    assert next(finished([shard], store)).key != held_up, "what hangs on it is made again"
    assert stage.run(finished(measured, store), store, progress=False) == [shard]
    assert len(server.asked()) - before == 12 - len(kept)
    server.process.kill()
    server.process.wait()


def test_models_do_their_roles(server, tmp_path):
    client, picture = server.client(), Image.new("RGB", (16, 16))
    server.answer(CAPTION.to_json())
    assert EndpointDescriber(client).describe(picture) == CAPTION
    request = Request("remove", "remove the ball", "ball", Caption("snow"))
    server.answer(request.to_json())
    rounds = EndpointWriter(client, ("remove",), rounds=3).write(CAPTION, 2, 0)
    assert rounds == [[request] * 3]
    with pytest.raises(SettingError, match="rounds is 0"):
        EndpointWriter(client, rounds=0)
    assert "another verb" in server.asked()[-1]["content"]["messages"][0]["content"][-1]["text"]
    server.behave('{"success": 8, "preservation": 4.5, "quality": 9}', CAPTION.to_json())
    scores = EndpointJudge(client).judge(picture, picture, CAPTION, request)
    assert scores.reading == CAPTION and (scores.success, scores.preservation, scores.quality) == (8, 4.5, 9)
    assert scores.overall == pytest.approx((4.5 * 9) ** 0.5)
    server.behave("ok")
    server.answer('{"success": 11, "preservation": 4.5, "quality": 9}')
    with pytest.raises(EndpointError, match="success"):
        EndpointJudge(client).judge(picture, picture, CAPTION, request)
    server.answer('{"suitable": false, "why": "mere text"}')
    answer = Suitable(client).answer({"picture": png(picture)})
    assert answer["values"] == [{"suitable": 0.0, "suitable_why": "mere text"}]


def test_a_writer_keeps_to_the_categories_that_it_was_asked_for(server):
    client, other = server.client(), Request("replace", "make the ball a cat", "ball", Caption("snow", (Thing("cat"),)))
    asked = Request("remove", "remove the ball", "ball", Caption("snow"))
    server.answer(other.to_json())
    with pytest.raises(EndpointError, match=r"\$.category"):
        EndpointWriter(client, ("remove", "add")).write(CAPTION, 1, 0)
    server.answer(asked.to_json())
    server.behave(other.to_json(), "ok", other.to_json(), "ok")  # a draft and a refinement, each sent back once
    assert EndpointWriter(client, ("remove",), rounds=2).write(CAPTION, 1, 0) == [[asked, asked]]
    schema = server.asked()[-1]["content"]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["category"]["enum"] == ["remove"]


@pytest.mark.parametrize("key", ["-", "none", "1", "message"])
def test_a_key_that_is_a_mere_word_changes_no_answer(server, monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    schema = {"type": "object", "properties": {"said": {"type": "string"}}}
    server.answer('{"said": "none of the 11 - well, a message"}')
    assert server.client(key_variable="SOME_KEY").ask("What?", schema) == {"said": "none of the 11 - well, a message"}


@pytest.mark.parametrize("kind", [lambda url: Client(url, "m"), HttpEditor])
@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000/v1", "example.com/v1", "//host/v1", "file:///etc/passwd", "ftp://host/v1", "http://",
     "http:v1", "http:///v1", "http://host:port/v1", "http://host:99999/v1", "http://[::1/v1"],
)  # fmt: skip
def test_what_is_no_address_of_a_server_is_refused_at_once(kind, url):
    with pytest.raises(SettingError, match="is no address of a server"):
        kind(url)


@pytest.mark.parametrize("url", [f"me:{SECRET}@host/v1", f"host/v1?key={SECRET}", f"http://me:{SECRET}@[::1/v1"])
def test_a_secret_in_what_is_no_address_is_not_shown(url):
    with pytest.raises(SettingError, match="is no address of a server") as error:
        HttpEditor(url)
    assert SECRET not in str(error.value)


def test_an_editor_behind_an_address(server, tmp_path, monkeypatch):
    editor = HttpEditor(f"http://127.0.0.1:{server.port}/edit", patience=Patience(2, PATIENCE, 0.05))
    with pytest.raises(EndpointError, match="without a picture"):
        editor.edit(Image.new("RGB", (8, 8)), "remove it", 1)
    asked = server.asked()[-1]["content"]
    assert asked["instruction"] == "remove it" and asked["seed"] == 1
    assert base64.b64decode(asked["image"])[:4] == b"\x89PNG"
    monkeypatch.setattr(
        "editmgt_lab.crisp.edit.editors.post",
        lambda *_, **__: {"image": base64.b64encode(png(Image.new("RGB", (4, 4), "blue"))).decode()},
    )
    edited = editor.edit(Image.new("RGB", (8, 8)), "remove it", 1)
    assert edited.size == (8, 8) and edited.getpixel((0, 0)) == (0, 0, 255)
    monkeypatch.setattr("editmgt_lab.crisp.edit.editors.post", lambda *_, **__: {"image": "AAAA"})
    with pytest.raises(ImageError):
        editor.edit(Image.new("RGB", (8, 8)), "remove it", 1)


def test_checked_says_where_an_answer_is_wrong():
    assert checked('```\n{"n": 1}\n```', SCHEMA) == {"n": 1}
    with pytest.raises(ValueError, match=r"\$\.n: 'x' is not of type 'integer'"):
        checked('{"n": "x"}', SCHEMA)
    with pytest.raises(ValueError, match="it is no JSON"):
        checked("n = 1", SCHEMA)


def test_checked_takes_no_number_that_is_none():
    schema = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0, "maximum": 10}}}
    assert checked('{"n": 7.5}', schema) == {"n": 7.5}
    for said in ('{"n": NaN}', '```json\n{"n": NaN}\n```', '{"n": Infinity}', '{"n": -Infinity}'):
        with pytest.raises(ValueError, match="it is no JSON .*(NaN|Infinity) is no number"):
            checked(said, schema)


def test_checked_takes_a_text_that_has_fences():
    schema = {"type": "object", "properties": {"why": {"type": "string"}}, "required": ["why"]}
    said = '{"why": "a sign says ```hello```"}'
    assert checked(said, schema) == {"why": "a sign says ```hello```"}

"""What SECURITY.md promises: no code of others is run, nothing leads out of a folder, to the network or out of a page.

Pickles that are met are in tests/training/test_security.py, others' pipelines and keys in tests/crisp/test_security.py.
"""

import ast
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from html.parser import HTMLParser

import pytest
from PIL import Image

from editmgt_lab import views
from editmgt_lab.basics.folders import within
from editmgt_lab.benchmarks import AnyBench, EmuEdit, MagicBrush
from editmgt_lab.benchmarks.edits import open_row
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.data.pairs import PairReader
from editmgt_lab.errors import DataError, ImageError
from editmgt_lab.images import load_image
from editmgt_lab.studies.gallery import main as gallery
from tests.support import PATIENCE, ROOT, network

SOURCES = [*(ROOT / "editmgt_lab").rglob("*.py"), *(ROOT / "notebooks").rglob("*.py")]
# What others load by; our own classes that have it read tensors and numbers alone, and take no trust_remote_code.
LOADER, OURS = "from_pretrained", {"MaskedGenerativeTransformer", "VQModel", "LPIPS"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}, node.lineno


# Pickles and code


def test_nothing_here_opens_a_pickle_or_runs_what_it_reads():
    found = []
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file}: {name}" for name in names if name.split(".")[0] in UNSAFE]
        for name, options, line in calls(file):
            unsafe = (
                (name == "torch.load" and options.get("weights_only") != "True")
                or options.get("allow_pickle", "False") != "False"
                or options.get("trust_remote_code", "False") != "False"
                or name in ("eval", "exec", "yaml.load", "torch.hub.load", "os.system")
                or options.get("shell", "False") != "False"
                or name.endswith((".extractall", ".extract", ".save_state", ".load_state"))
            )
            found += [f"{file}:{line} {name}"] if unsafe else []
    assert found == []


def test_every_loader_of_others_is_told_to_run_no_code():
    """Also one that is handed on without being called here."""
    found = []
    for file in SOURCES:
        nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
        told = {id(node.func): ast.unparse(node) for node in nodes if isinstance(node, ast.Call)}
        found += [
            (f"{file.name}:{node.lineno}", "trust_remote_code=False" in told.get(id(node), ""))
            for node in nodes
            if isinstance(node, ast.Attribute)
            and node.attr == "from_pretrained"
            and ast.unparse(node.value) not in OURS
        ]
    assert len(found) >= 7 and [place for place, is_told in found if not is_told] == []


# Folders


@pytest.fixture
def places(tmp_path):
    """A data set's folder, and a secret picture outside of it in every way that a name could reach."""
    folder = tmp_path / "set"
    for part in ("source", "target", "images/i"):
        (folder / part).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(folder / part / "a.png")
        (folder / part / "link.png").symlink_to(tmp_path / "secret.png")
        (folder / part / "inner.png").symlink_to(folder / "source" / "a.png")
    (folder / "linked").symlink_to(tmp_path)
    Image.new("RGB", (32, 32), "green").save(tmp_path / "secret.png")
    return folder, [
        "../secret.png",
        "../../secret.png",
        "link.png",
        "../linked/secret.png",
        str(tmp_path / "secret.png"),
    ]


def test_names_lead_out_of_no_folder(places):
    folder, outside = places
    for name in (*outside, "..", ".", "", "/etc/passwd", "a\0b", "source/../../secret.png"):
        with pytest.raises(DataError, match="outside"):
            within(folder / "source", name)
    for name in ("a.png", "new/b.png", "../source/a.png", "x" * 300):
        assert within(folder / "source", name).name == name.rpartition("/")[2]
    assert within(folder, "source/inner.png")


def test_the_hubs_own_store_may_be_linked_to(tmp_path):
    for part in ("blobs", "snapshots/abc", "other"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "x").touch()
    snapshot = tmp_path / "snapshots" / "abc"
    (snapshot / "good.png").symlink_to("../../blobs/x")
    (snapshot / "bad.png").symlink_to("../../other/x")
    assert within(snapshot, "good.png")
    with pytest.raises(DataError):
        within(snapshot, "bad.png")


def test_a_plain_folders_rows_stay_in_it(places):
    folder, outside = places
    rows = [{"source": name, "target": "a.png", "instruction": "x"} for name in ("a.png", *outside)]
    (folder / "edits.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reader = PairReader(folder)
    assert [pair.source.getpixel((0, 0)) for pair in reader] == [(255, 0, 0)]
    assert reader.report.skipped == {"the source is not in the data set": len(outside)}


def test_tables_and_benchmarks_read_no_other_files(places):
    folder, outside = places
    rows = [{"input_img": name, "output_img": name, "instruction": "x"} for name in outside]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="no usable row"):
        list(PairReader(folder))
    (folder / "test.jsonl").write_text(
        "\n".join(json.dumps({"image": n, "instruction": "x", "idx": 0}) for n in outside)
    )
    turns = [{"input": name, "output": name, "instruction": "x"} for name in outside]
    (folder / "edit_sessions.json").write_text(json.dumps({"i": turns, "../source": turns, "../..": turns}))
    (folder / "edit_result.json").write_text(
        json.dumps([{"image_file": n, "edited_file": n, "edit": "x", "edit_type": "add"} for n in outside])
    )
    for benchmark in (EmuEdit(), MagicBrush(), AnyBench()):
        found = list(benchmark.rows(folder))
        assert len(found) >= len(outside)
        for row in found:
            with pytest.raises(DataError):
                open_row(row)


def test_the_members_of_a_tar_are_read_and_never_unpacked(places, tmp_path):
    folder, outside = places
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, format="PNG")
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name in ("../../escaped.png", "/escaped.png", "good.png"):
            member = tarfile.TarInfo(name)
            member.size = len(stream.getvalue())
            tar.addfile(member, io.BytesIO(stream.getvalue()))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            member = tarfile.TarInfo(f"link{number}.png")
            member.type, member.linkname = kind, outside[0]
            tar.addfile(member)
    rows = [row for shard in Source(str(folder / "x.tar")).shards() for row in shard.read()]
    assert len(rows) == 3 and all(Image.open(io.BytesIO(row["bytes"])).getpixel((0, 0)) == (255, 0, 0) for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"set", "secret.png"}
    pictures = [row for shard in Source(str(folder / "source")).shards() for row in shard.read()]
    assert [row["bytes"] is None for row in sorted(pictures, key=lambda row: row["origin"])] == [False, False, True]


# Programs


def test_a_picture_runs_no_program(monkeypatch):
    """Pillow opens EPS by Ghostscript."""
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, format="EPS")
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail(f"it runs {args}"))
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **options: pytest.fail(f"it runs {args}"))
    for picture in (stream.getvalue(), Image.open(io.BytesIO(stream.getvalue()))):
        with pytest.raises(ImageError, match="EPS"):
            load_image(picture)


# Network


ASKS = {
    "TCP": 'socket.create_connection(("198.51.100.1", 80), timeout=1)',
    "UDP": 'socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("198.51.100.1", 53))',
    "UDP in parts": 'socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("198.51.100.1", 53))',
    "IPv6": 'socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80))',
    "a name": 'socket.getaddrinfo("example.org", 80)',
    "an older way to a name": 'socket.gethostbyname("example.org")',
    "an address's name": 'socket.gethostbyaddr("198.51.100.1")',
}


if not socket.has_ipv6:
    del ASKS["IPv6"]  # no socket to ask by


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_the_tests_have_no_network(ask):
    with pytest.raises(OSError, match="no network"):
        eval(ask)
    assert len(network.asked()) == 1 and network.asked() == []


def test_this_computer_may_be_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path may be about 100 letters long
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")
    assert socket.getaddrinfo("localhost", 80) and socket.getaddrinfo("::1", 80)
    assert os.environ["https_proxy"] == network.NOWHERE


def test_a_datagrams_socket_is_not_even_connected():
    """Programs ask for their own address so, which is no attempt; what is sent by it would not be seen."""
    with socket.socket(type=socket.SOCK_DGRAM) as asking, pytest.raises(OSError, match="no network"):
        asking.connect(("198.51.100.1", 53))
    assert network.asked() == []


def test_what_other_processes_ask_is_refused_and_noticed(monkeypatch, tmp_path):
    """Also of what they start, and where they make up for it; a sitecustomize behind ours is run as well."""
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.hidden = 3\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((os.environ["PYTHONPATH"], str(tmp_path))))
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # it tells of sockets that are left open
    for ask in ASKS.values():
        code = f"import contextlib, socket\nprint(hidden)\nwith contextlib.suppress(OSError): print({ask})"
        again = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
        for each in (code, again):
            done = subprocess.run([sys.executable, "-c", each], capture_output=True, text=True)
            assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
            (asked,) = network.asked()
            assert asked.partition(" by ")[0] in ask and sys.executable in asked


# Pages


class Policies(HTMLParser):
    """The content of each Content-Security-Policy, and the tags before the first one, which it does not bind."""

    def __init__(self, page):
        super().__init__()
        self.found, self.before, self.foreign = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if (named.get("http-equiv") or "").lower() == "content-security-policy":
            self.found.append(named["content"])
        elif not self.found:
            self.before.append(tag)
        self.foreign += [value for name, value in attributes if name in ("src", "href", "action") and value]


@pytest.fixture
def pages(editor, picture, tiny_folder, tmp_path):
    """Exported: a view of a run, one that computes, and the gallery."""
    run = views.record(editor, picture(64, 24), "make the ball blue", attention=True, steps=2, seed=3)
    opened = {"player": views.decode_player(run), "tokens": views.token_lab(editor, picture(64, 24))}
    for view in opened.values():
        view.pending.result(timeout=PATIENCE)
    files = [view.export(tmp_path / f"{name}.html") for name, view in opened.items()]
    asked = ["--model", str(tiny_folder), "--split", "validation", "--count", "1", "--steps", "1"]
    assert gallery([*asked, "--output", str(tmp_path)]) == 0
    return [file.read_text(encoding="utf-8") for file in (*files, tmp_path / "gallery.html")]


def test_exported_pages_may_fetch_nothing(pages):
    for page in pages:
        read = Policies(page)
        (policy,) = read.found
        rules = dict(rule.split(None, 1) for rule in policy.split(";"))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        allowed = {word for words in rules.values() for word in words.split()}
        assert allowed <= {"'none'", "'unsafe-inline'", "data:", "blob:"}, "no address, no eval"
        assert {*read.before} <= {"html", "head", "meta"}, "nothing comes before it"
        assert all(value.startswith("data:") for value in read.foreign)

"""The house keeps to its plan: what may import what, as ARCHITECTURE.md lists it, and how large a room may be."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "editmgt_lab"
ORDER = re.findall(r"^(\w+)(?:\.py|/) +\S", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [file for file in FILES if file != PACKAGE / "__init__.py"]  # which has the public names of all
MOST_FILES, MOST_LINES = 14, 320


def dotted(file: Path) -> tuple[str, ...]:
    """editmgt_lab/data/rows.py → (data, rows); a package is its folder."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(file: Path, text: str) -> set[tuple[str, ...]]:
    """Every module of the package that a file imports, wherever in the file, also for types alone."""
    found, known = set(), {dotted(each) for each in FILES}
    own = file.relative_to(PACKAGE).parts
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = own[: len(own) - node.level] + tuple(node.module.split(".") if node.module else ())
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            base = tuple(node.module.split(".")[1:])
        else:
            assert not isinstance(node, ast.Import) or PACKAGE.name not in {n.name.split(".")[0] for n in node.names}
            continue
        found |= {module if (module := (*base, each.name)) in known else base for each in node.names}
    return found


def upwards(file: Path, text: str) -> list[str]:
    """What a file imports that does not stand above it in the list."""
    room = ORDER.index(dotted(file)[0])
    rooms = {module[0] if module else "the public names" for module in imported(file, text)} - {ORDER[room]}
    return sorted(rooms - set(ORDER[:room]))


def test_every_room_is_in_the_list_and_stands():
    assert sorted(ORDER) == sorted({dotted(file)[0] for file in MODULES})


@pytest.mark.parametrize("file", MODULES, ids=lambda file: ".".join(dotted(file)))
def test_it_imports_only_what_stands_above(file):
    assert upwards(file, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("vq.py", "from .decoding import guide"),
        ("data/rows.py", "from ..world.edits import EditSample"),
        ("studies/hold_figure/curves.py", "    from ...views import figures"),
        ("metrics/lpips.py", "from .. import training"),
        ("editor.py", "from editmgt_lab.metrics import psnr"),
        ("images.py", "from . import load"),
    ],
)
def test_an_import_upwards_is_found(room, line):
    text = f"if True:\n{line}\n" if line.startswith(" ") else line
    assert len(upwards(PACKAGE / room, text)) == 1


def test_no_room_goes_in_circles():
    graph = {dotted(file): imported(file, file.read_text(encoding="utf-8")) for file in MODULES}
    packages = {dotted(file) for file in FILES if file.name == "__init__.py"}
    inner = {module: found - packages for module, found in graph.items() if module not in packages}
    try:
        TopologicalSorter(inner).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(".".join(module) for module in error.args[1]))


def test_rooms_are_small():
    folders = [folder for base in (PACKAGE, ROOT / "tests") for folder in (base, *base.rglob("*")) if folder.is_dir()]
    counts = {folder.relative_to(ROOT): len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}
    lines = {file.relative_to(ROOT): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {file: count for file, count in lines.items() if count > MOST_LINES} == {}

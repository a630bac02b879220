"""What people write stays text in figures, terminals, tables and pages, whatever it means to their parsers."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.errors import DataError, command
from editmgt_lab.metrics.measured import MeasuredCard, Shown
from editmgt_lab.metrics.measures import SOURCE, Tools, build_measures
from editmgt_lab.metrics.report import align, gallery
from editmgt_lab.plain_text import legible, one_line, page_json, say
from editmgt_lab.views import demo
from editmgt_lab.views.figures import curves_figure, edit_figure, panels_figure, text_figure
from editmgt_lab.views.finetune_dashboard.samples import finetune_figure

HOSTILE = (
    "remove the $$ sign", "write a $x_$ on it", "change $5 to $10", r"a \frac{ and \$ and {name} %s", "a | `b` *c* <b>",
    "\x1b[31mred\x1b[0m\x07", "\u202eevil\u2066", "nothing\0 here", "half a pair \ud83d", "--> <!-- ]]>",
)  # fmt: skip
RED = Image.new("RGB", (32, 32), "red")


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def is_drawn_as_written(figure):
    """It can be drawn, as valid XML too, none of it as a formula and none of it unseen."""
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    ET.fromstring(file.getvalue())
    drawn = figure.findobj(Text)
    assert not any(text._preprocess_math(text.get_text())[1] for text in drawn if "$" in text.get_text())
    assert all(text.get_text() == legible(text.get_text()) for text in drawn)
    return True


@pytest.mark.parametrize("instruction", HOSTILE)
def test_figures(instruction):
    row = [(RED, instruction), (RED, "edit")]
    curves = {instruction: ([0, 1], [0, 1]), f"_{instruction}": ([0, 1], [1, 0])}
    figures = [
        panels_figure([row], [instruction]),
        curves_figure([(instruction, instruction, curves)]),
        finetune_figure(np.ones((3, 3)), np.zeros((0, 2)), [(instruction, row)]),
        gallery(instruction, [((instruction, [RED]), ("", ()))], [instruction]),
    ]
    measures, _ = build_measures([("L1", SOURCE)], Tools())
    scored = [{instruction: {measures[0].key: 0.5}}]
    card = MeasuredCard(instruction, measures, [instruction], scored, {instruction: [0]}, {}, [instruction],
                        [Shown(instruction, {instruction: RED})])  # fmt: skip
    assert all(map(is_drawn_as_written, [*figures, card.figure(), card.gallery()]))
    assert any(one_line(instruction) in text for text in texts(figures[0]))
    assert len(figures[1].axes[0].get_legend().get_texts()) == 2, "matplotlib hides names that begin with _"
    assert card.table() == legible(card.table())


@pytest.mark.parametrize("instruction", ["make it $x_$", "make it \x1b[31mred"])
def test_an_edit_its_words_and_its_widgets(editor, instruction, tmp_path):
    result = editor.edit(RED, instruction, steps=1, seed=0)
    assert is_drawn_as_written(edit_figure(result))
    words = text_figure(editor.encode_text(instruction))
    assert is_drawn_as_written(words)
    shown = "".join(label.get_text() for label in words.axes[0].get_xticklabels())
    assert legible(instruction.split()[-1]) in shown
    player = views.decode_player(editor, RED, instruction, steps=1)
    player.pending.result()
    assert is_drawn_as_written(player.figure()) and player._repr_mimebundle_()
    panel = views.playground(editor, result)
    assert is_drawn_as_written(panel.still()) and is_drawn_as_written(panel.figure())


def test_a_users_own_style_does_not_bring_formulas_back():
    with matplotlib.rc_context({"text.usetex": True, "text.parse_math": True}):
        figure = panels_figure([[(RED, "$x_$")]], ["$$"])
    assert is_drawn_as_written(figure) and not any(text.get_usetex() for text in figure.findobj(Text))


def test_every_function_that_makes_a_figure_makes_its_text_literal():
    found = []
    for file in Path(lab.__file__).parent.rglob("*.py"):
        for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(each, ast.FunctionDef) or each.name == "_figure":
                continue
            calls = {ast.unparse(call.func) for call in ast.walk(each) if isinstance(call, ast.Call)}
            if calls & {"Figure", "plt.figure", "_figure", "plt.subplots"}:
                found.append(each.name)
                assert "literal" in map(ast.unparse, each.decorator_list), f"{each.name} in {file}"
    assert len(found) > 10


@pytest.mark.parametrize("text", ["<!--<script>", "</script>", "<!--<SCRIPT ", "]]>&amp;", "\u2028", "\ud83d"])
def test_no_text_in_a_page_is_markup(editor, text, tmp_path):
    written = page_json({"text": text})
    assert not re.search("[<>&]", written) and json.loads(written) == {"text": text}
    if text.startswith("<"):
        player = views.decode_player(editor, RED, text, steps=1)
        page = player.export(tmp_path / "page.html").read_text(encoding="utf-8")
        state = page.partition('<script id="state" type="application/json">')[2].partition("</script>")[0]
        assert json.loads(state)["data"]["instruction"] == text


def test_control_characters_are_seen_and_letters_stay():
    assert legible("\x1b[31m\0\x9b\u202e\r") == r"\x1b[31m\x00\x9b\u202e\r"
    assert legible("a\tb\r\nc") == "a b\nc" and one_line(" a\n\tb ") == "a b"
    for text in ("Füße, 青い, می‌خواهم", "👩‍👩‍👧", "a\u200fb", r"C:\new {x} %s $5"):
        assert legible(text) == text
    assert legible("\ud83d") == r"\ud83d" and legible(legible("\x1b")) == legible("\x1b")


def test_a_terminal_that_knows_no_greek(capsys):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("λ =", 1, "\x1b[2J", file=file)
    file.flush()
    assert file.buffer.getvalue() == b"\\u03bb = 1 \\x1b[2J\n"


def test_a_command_prints_greek_wherever_it_runs(monkeypatch):
    @command
    def main(arguments=None):
        print("λ = 1")
        raise DataError("no λ", expected="μ", fix="none")

    told = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, file in told.items():
        monkeypatch.setattr(sys, name, file)
    assert main() == 2
    for file in told.values():
        file.flush()
    assert told["stdout"].buffer.getvalue() == b"\\u03bb = 1\n"
    assert told["stderr"].buffer.getvalue().startswith(b"no \\u03bb")


def test_errors_and_tables():
    error = DataError("no \x1b]0;title\x07\0", expected="\u202e", fix="none")
    assert str(error) == legible(str(error)) and "\\x1b" in error.problem

    @command
    def main(arguments=None):
        raise error

    assert main() == 2
    assert len(align([["a", "b"], ["two\nlines", "\x1b[2J"]]).splitlines()) == 3


def test_the_demo_prints_and_draws_what_was_typed(tiny_folder, tmp_path, capsys):
    RED.save(tmp_path / "red.png")
    options = ["--model", str(tiny_folder), "--image", str(tmp_path / "red.png"), "--output", str(tmp_path)]
    assert demo.main([*options, "--steps", "1", "--instruction", "$$ \x1b[31m"]) == 0
    assert (tmp_path / "stages.png").exists() and r'"$$ \x1b[31m"' in capsys.readouterr().out

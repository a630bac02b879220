"""What a page sends to a widget: every trait and every message, in wrong types and sizes."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import traitlets
from ipywidgets.widgets.widget import CallbackDispatcher, Widget
from PIL import Image

from editmgt_lab import views
from editmgt_lab.errors import LabError
from editmgt_lab.views.playground import Playground
from editmgt_lab.views.widget import LabWidget

from ..bench import INSTRUCTION, Bench
from ..case import Kind, Wrong
from ..values import json_value, number, real, strange_letters, text
from .pictures import content_of, make_picture

FOREIGN = re.compile(r"(?<![\w.])[A-Z]\w*(Error|Exception|Warning|Iteration): ")
PATIENCE = 30  # s
MESSAGES = {  # kind → its other fields
    "cancel": (), "swap": ("cell", "code"), "hold": ("threshold",), "turn": ("strength", "bias_text"), "start": (),
    "pause": (), "resume": (), "stop": (), "save": ("folder",), "since": ("known",),
}  # fmt: skip
OWN = {
    "token_lab": ("swap",), "hold_studio": ("hold",), "injection_dial": ("turn",),
    "finetune_dashboard": tuple(MESSAGES)[4:],
}  # fmt: skip
TRAITS = {
    "token_lab": ("cell", "states", "at"), "decode_player": ("step", "cell", "colour_by"),
    "attention_explorer": ("step", "chosen", "picked", "cell"), "hold_studio": ("threshold", "results"),
    "injection_dial": ("strength", "bias_text", "results"), "filter_studio": ("bounds", "off"),
    "finetune_dashboard": ("status", "curves", "validations", "before", "now", "word", "folder", "saved"),
    "playground": (),
}  # fmt: skip
SHARED = ("data", "message", "wrong", "busy", "progress", "live", "layout", "_esm", "nothing of this name")
CONTROLS = ("instruction", "hold_threshold", "seed", "tabs", "upload", "background", "kind", "place")
MEASURES = ("alignment", "outside", "nothing of this name")
TURNS = (*TRAITS, *[name for name in TRAITS if name != "finetune_dashboard"] * 2)  # it takes longest


def make_widget(dice: random.Random, name: str) -> Any:
    return {"widget": name, "messages": [make_message(dice, name) for _ in range(dice.choice((1, 1, 2, 3)))]}


def make_message(dice: random.Random, name: str) -> dict[str, Any]:
    if name == "playground":
        control = dice.choice(CONTROLS)
        if control == "upload":
            picture = make_picture(dice)
            picture.pop("bomb", None)
            return {"control": control, "picture": dice.choice((picture, None))}
        return {
            "control": control,
            "value": dice.choice((json_value(dice), text(dice), number(dice), 0, 1, 2, 3, 4, 5)),
        }
    if dice.random() < 0.5:
        trait = dice.choice((*TRAITS[name] * 3, *SHARED))
        value = dice.choice((json_value(dice), number(dice), [number(dice)], text(dice), [0, 1], 1, "", [], {}))
        if trait == "bounds":
            value = dice.choice(
                (value, {dice.choice(MEASURES): dice.choice((value, [None, 0.5], [number(dice)] * 2, [1]))})
            )
        if trait == "off":
            value = dice.choice((value, [dice.choice(MEASURES)], [[]]))
        message = {"state": {trait: value}}
        if dice.random() < 0.15:
            paths = dice.choice(
                ([[trait]], [[trait, 0]], [["x"]], [[]], [[trait], [trait]], [[0]], ["x"], [[trait, "a"]])
            )
            message |= {"paths": paths, "buffers": dice.choice((1, 1, 2, 0))}
        return message
    kind = dice.choice((*OWN.get(name, ()) * 4, *MESSAGES, strange_letters(dice, 2)))
    content = {"kind": kind} | {field: field_value(dice, field) for field in MESSAGES.get(kind, ())}
    if dice.random() < 0.2:
        content.pop(dice.choice(list(content)))
    content = dice.choice((content, content, content, content, json_value(dice)))
    return {"content": content, "buffers": dice.choice((0, 0, 0, 1, 3))}


def field_value(dice: random.Random, field: str) -> Any:
    if field == "folder":  # nothing that could be another place of this computer
        return dice.choice((number(dice), "", " ", "a\0b", "x" * 300, "new", None, [], {}))
    return dice.choice((json_value(dice), number(dice), number(dice), text(dice), 0, 1, 0.5, True))


def opened(name: str, bench: Bench) -> Any:
    editor, picture = bench.editor, bench.picture()
    if name in ("decode_player", "attention_explorer"):
        return getattr(views, name)(bench.run)
    if name == "token_lab":
        return views.token_lab(editor, picture)
    if name == "hold_studio":
        return views.hold_studio(editor, picture, INSTRUCTION, steps=1)
    if name == "injection_dial":
        return views.injection_dial(editor, picture, INSTRUCTION, strengths=(1,), steps=1)
    if name == "playground":
        return views.playground(editor, bench.result, steps=1)
    if name == "filter_studio":
        return views.filter_studio(judged(picture))
    return dashboard(bench, picture)


def judged(picture: Image.Image) -> list[Any]:
    from editmgt_lab.crisp.curate.decode import encoded
    from editmgt_lab.crisp.drawn.truth import EditTruth

    content = encoded(picture)
    measured = {
        "alignment": 1.0,
        "direction": 1.0,
        "inside": 0.2,
        "whole": 0.1,
        "outside": 0.01,
        "worst": 0.02,
        "unexplained": 0.0,
    }
    row = {"type": "color", "instruction": INSTRUCTION, "picture": content, "output": content} | measured
    return [(row, EditTruth(True, 9.0, 0.0, 0.0)), (row | {"alignment": 0.5}, EditTruth(True, 1.0, 0.0, 0.0))]


def dashboard(bench: Bench, picture: Image.Image) -> Any:
    import editmgt_lab as lab
    from editmgt_lab.finetuning import Finetuner, FinetuneSettings, TokenPairs

    editor = lab.load(bench.tiny, device="cpu")
    tokens = editor.tokenize([picture])
    pairs = TokenPairs(tokens, tokens, [INSTRUCTION])
    settings = FinetuneSettings(steps=2, batch=1, rank=2, validate_every=9, save_every=9)
    return views.finetune_dashboard(Finetuner(editor, pairs, settings), [(picture, INSTRUCTION)])


def run_widget(recipe: Any, bench: Bench) -> None:
    with listening() as heard:
        widget = opened(recipe["widget"], bench)
        try:
            widget.pending.result(PATIENCE)
            for number, message in enumerate(recipe["messages"]):
                if recipe["widget"] == "playground":
                    touch(widget, message)
                else:
                    send(widget, message, heard, still=recipe["widget"] != "finetune_dashboard" or number == 0)
                widget.pending.result(PATIENCE)
            if not widget.nothing():
                widget.figure().clear()
                widget.arrays(), widget.described()
                if recipe["widget"] != "playground":
                    widget._page()
        finally:
            if recipe["widget"] == "finetune_dashboard":
                widget.stop()
                widget.wait(PATIENCE)
            widget.cancel()
            widget.close()
    judge(heard)


def judge(heard: list[Exception | str]) -> None:
    """Raises what no page may be answered with."""
    for error in heard:
        if isinstance(error, str) and FOREIGN.search(error):
            raise Wrong(f"the page is told {error}")
        if not isinstance(error, (str, LabError, traitlets.TraitError)):
            raise error


@contextmanager
def listening() -> Iterator[list[Exception | str]]:
    """What comes up where nobody sees it: what callbacks, set values and threads raise, and what the page is told."""
    heard: list[Exception | str] = []

    def heeding(method: Callable) -> Callable:
        def heed(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except Exception as error:
                heard.append(error)
                raise

        return heed

    def telling(method: Callable) -> Callable:
        def tell(widget: Any, text: str, **named: Any) -> None:
            heard.append(text)
            method(widget, text, **named)

        return tell

    def call(dispatcher: Any, *given: Any) -> None:
        """As ipywidgets does, but an error is heard, and ends in no log."""
        for callback in dispatcher.callbacks:
            try:
                callback(*given)
            except Exception as error:
                heard.append(error)

    with ExitStack() as stack:
        for owner, name, method in (
            (Widget, "set_state", heeding(Widget.set_state)),
            (CallbackDispatcher, "__call__", call),
            (LabWidget, "say", telling(LabWidget.say)),
            (Playground, "_say", telling(Playground._say)),
            (threading, "excepthook", lambda raised: heard.append(raised.exc_value)),
        ):
            stack.enter_context(patch.object(owner, name, method))
        yield heard


def send(widget: Any, message: dict[str, Any], heard: list[Exception | str], *, still: bool) -> None:
    """As the kernel hands it over. still: whether nothing else is under way; a trait that is none of the page's, or
    was refused, then has to stay as it was."""
    buffers = [memoryview(b"\x00\xff" * 8) for _ in range(message.get("buffers", 0))]
    if "state" in message:
        data = {"method": "update", "state": real(message["state"]), "buffer_paths": message.get("paths", [])}
    else:
        data = {"method": "custom", "content": real(message.get("content"))}
    before, known = {name: getattr(widget, name) for name in (*widget._own(), "_esm")}, len(heard)
    widget._handle_msg({"content": {"data": data}, "buffers": buffers})
    judge([error for error in heard[known:] if isinstance(error, Exception)])
    if "state" not in message or not still:
        return
    refused = any(isinstance(each, Exception) for each in heard[known:])
    kept = {name for name in before if refused or not widget.trait_metadata(name, "page")}
    kept -= {"message", "wrong"} if refused else set()  # which say so
    if changed := [name for name in kept if getattr(widget, name) != before[name]]:
        raise Wrong(f"a page has changed {changed}")


def touch(widget: Any, message: dict[str, Any]) -> None:
    """The playground's controls are Jupyter's own: these refuse a value of the wrong type themselves."""
    control, value = message["control"], real(message.get("value"))
    scene = widget.scene
    if control == "upload":
        buffers = [] if message.get("picture") is None else [memoryview(content_or_array(message["picture"]))]
        scene.upload._handle_msg(
            {"content": {"data": {"method": "custom", "content": {"kind": "picture"}}}, "buffers": buffers}
        )
        return
    if control == "place":
        places = list(scene.places)
        scene.press(places[value % len(places)] if isinstance(value, int) else places[0])
        return
    chosen = getattr(scene, control, None) or getattr(widget, control)
    trait = {"tabs": "selected_index", "background": "index", "kind": "index"}.get(control, "value")
    try:
        chosen.set_state({trait: value})
    except traitlets.TraitError:
        pass


def content_or_array(recipe: dict[str, Any]) -> bytes:
    return b"\x00" * 100 if "array" in recipe else content_of(recipe)


KINDS = {"widgets": Kind(make_widget, run_widget, 3, TURNS)}

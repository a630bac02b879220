"""A decoding step must not wait for its device: run on a device that has no values, whatever would read one is seen.

On PyTorch's "meta" device tensors have shapes alone. What reads a value there (`.item()`, `bool(…)`, `.cpu()`,
`nonzero`) raises, and what waits to copy from the CPU is counted here.
"""

import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from editmgt_lab.decoding import DRAWS, ORDERS
from editmgt_lab.errors import SettingError

INSTRUCTION = "make the ball blue"
TEXT = ("tokens", "pooled", "padding")


@contextmanager
def waiting_copies():
    """Inside the context, a list of the copies from the CPU to another device that the host waits for."""
    seen = []

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            result = function(*args, **kwargs | ({"generator": None} if "generator" in kwargs else {}))
            devices = {x.device.type for x in (*args, result) if isinstance(x, torch.Tensor)}
            copies = function.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and len(devices) > 1
            if copies and not (kwargs.get("non_blocking") or args[2:] == (True,)):
                seen.append(str(function))
            return result

    class Numbers(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function in (torch.tensor, torch.as_tensor) and result.device.type != "cpu":
                seen.append("torch.tensor")  # made on the CPU, then copied
            return result

    with Operators(), Numbers():
        yield seen


class OnMeta(torch.Generator):
    """Torch has no generator there; nothing is drawn from this one."""

    device = torch.device("meta")

    def __new__(cls, device):
        assert device == cls.device
        return super().__new__(cls)


@pytest.fixture
def on_meta(editor, monkeypatch):
    """The editor with its transformer on the meta device, and what moves a task there."""
    monkeypatch.setattr(torch, "Generator", OnMeta)
    moved = copy.copy(editor)
    moved.transformer = copy.deepcopy(editor.transformer).to("meta")

    def to_meta(task):
        text = {name: None if (x := getattr(task.text, name)) is None else x.to("meta") for name in TEXT}
        fields = {name: getattr(task, name).to("meta") for name in ("start", "fixed", "words")}
        source = None if task.source is None else task.source.to("meta")
        return replace(task, text=replace(task.text, **text), source=source, **fields)

    return moved, to_meta


SHIPPED = {"hold": "agree", "hold_by": "mean", "heat_from": "both"}  # the small model's, in its lab.json


@pytest.mark.parametrize(
    ("settings", "defaults"),
    [
        ({"guidance_scale": 2.0, "strength": 1.3, "hold_threshold": 0.3}, {}),
        ({"guidance_scale": 1.0, "strength": 0, "hold_threshold": 0.0}, {}),
        ({"guidance_scale": 2.0, "token_temperature": 0.5, "focus": "ball", "draw": "inverse"}, {}),
        ({"hold_threshold": 0.3, "revise": 0.1, "mask": "left"}, SHIPPED),
        *(({"order": order, "hold_threshold": 0.3}, {}) for order in ORDERS),
    ],
)
@torch.no_grad()
def test_a_step_of_an_edit_waits_for_nothing(editor, picture, on_meta, settings, defaults):
    moved, to_meta = on_meta
    if "mask" in settings:
        mask = Image.new("L", (32, 32))
        mask.paste(255, (0, 0, 16, 32))
        settings = settings | {"mask": [mask, None]}
    asked = [picture(), picture(seed=1)], INSTRUCTION
    task = to_meta(editor.with_defaults(**defaults).prepare(*asked, steps=3, seed=[1, 2], **settings))
    prepared, made = moved._prepared(task), []
    moved._prepared = lambda task: prepared
    assert moved.device.type == "meta" and task.text.padding is not None
    with waiting_copies() as waiting:
        for fields in moved._decide(task):
            made.append({field.device.type for field in fields})
    assert waiting == [] and made == [{"meta"}] * 3


@torch.no_grad()
def test_what_waits_is_seen(on_meta, editor, picture):
    moved, to_meta = on_meta
    task = to_meta(editor.prepare(picture(), INSTRUCTION))
    with waiting_copies() as waiting:
        moved._predict(task, task.start, timestep=0)  # prepares anew: rotations and micro-conditions are copied
    assert "torch.tensor" in waiting and len(waiting) >= 2
    for read in (lambda x: x.sum().item(), lambda x: x.cpu(), lambda x: bool(x.any()), lambda x: x.nonzero()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(task.start)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("order", ORDERS)
def test_logits_that_are_no_numbers_are_refused_where_no_value_is_looked_at(editor, picture, monkeypatch, order, draw):
    for module in ("draws", "sampler"):
        monkeypatch.setattr(f"editmgt_lab.decoding.{module}.may_look", lambda values: False)
    forward = editor.transformer.mlm_layer.forward
    monkeypatch.setattr(editor.transformer.mlm_layer, "forward", lambda x: forward(x) * torch.nan)
    steps = editor.steps(picture(), INSTRUCTION, steps=3, hold_threshold=0, order=order, draw=draw)
    with pytest.raises(SettingError, match="not numbers"):
        next(steps)

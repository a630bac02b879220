"""What every widget of the lab shares: its page, work beside the page, errors in sight, and export."""

from __future__ import annotations

import html
import io
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anywidget
import matplotlib
import numpy as np
import traitlets
from PIL import Image

from ..editor import Editor
from ..errors import LabError, SettingError
from ..plain_text import legible, one_line, page_json
from .export import PAGE, Saves, plain
from .overlays import HEAT_MAP, HEAT_SHARE, enlarge
from .recording import Progress, Run, record
from .turns import TURNS, Cancelled

HERE = Path(__file__).parent
SHARED = "lab.js"
LARGEST = 512  # px of a picture on a page; larger ones are sent smaller
LONGEST = 500_000_000  # characters that a page holds its state in: from 2**29 - 24 on Chromium has no such string
CUT = 200  # characters of what a page sent that its message repeats


class LabWidget(Saves, anywidget.AnyWidget):
    """A page that shows `data` once some work beside it has made it; without a kernel, a static picture.

    A kind of widget names its `script`, the module of its page, and says what its `figure()`, `arrays()` and
    `described()` are. Every work has a ticket, a threading.Event that is set once its outcome is no longer wanted;
    `begun` is the newest work, `pending` its Future, and what goes wrong stands in `message`, with `wrong` set.
    """

    _css = (HERE / "lab.css").read_text(encoding="utf-8")
    script: Path
    title: str

    data = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    wrong = traitlets.Bool(False).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    progress = traitlets.Float(0).tag(sync=True)
    live = traitlets.Bool(True, help="whether a kernel answers; False in an exported page").tag(sync=True)

    def __init_subclass__(cls, **options: Any):
        if "script" in vars(cls):  # neither in a base nor in the classes that traitlets makes when it adds a trait
            cls._esm = source(cls.script)
        super().__init_subclass__(**options)

    def __init__(self, **traits: Any):
        super().__init__(**traits)
        self.ticket, self.pending, self.begun = threading.Event(), Future(), None
        self.pending.set_result(None)
        self._saying = threading.RLock()  # so that a work which is cancelled right now says nothing after it
        self.on_msg(lambda widget, content, buffers: self._heard(content))

    # Work beside the page

    def begin(self, work: Callable[[Progress], None]) -> Future:
        """Do `work(progress)` beside the page, in place of the work before it. Its calls of progress let other
        widgets' newer work go first, and may raise Cancelled."""
        with self._saying:  # so that the work before, if it ends right now, does not end this one's show
            self.ticket.set()
            self.ticket = ticket = threading.Event()
            self.begun, self.busy, self.progress = work, True, 0
        self.pending = TURNS.submit(lambda give_way: self._run(give_way, ticket, work), ticket)
        return self.pending

    def cancel(self) -> None:
        """Stop at the work's next sign of progress; what is on the page stays."""
        with self._saying:
            self.ticket.set()
            self.say("cancelled")
            self.busy = False

    def say(self, text: str, *, wrong: bool = False) -> None:
        self.message, self.wrong = text, wrong

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the page sets: of the lab's traits those with the tag `page`. One that cannot be so stays as it was, on
        the page too, and the message says why; what else goes wrong is raised, for ipywidgets to log it."""
        kept = {name for name in self._own() if not self.trait_metadata(name, "page")} | {"_esm", "_css"}
        wanted = {name: value for name, value in sync_data.items() if name in self.keys and name not in kept}
        try:
            super().set_state(wanted)
        except (traitlets.TraitError, LabError) as error:
            self._refuse(wanted, _unfit(f"{', '.join(wanted)} cannot be so: {one_line(str(error))[:CUT]}"))
        except Exception as error:
            self._refuse(wanted, error)
            raise

    def _refuse(self, names: Iterable[str], error: Exception) -> None:
        self.say(told(error), wrong=True)
        self.send_state(list(names))

    @traitlets.validate("cell")
    def _of_the_grid(self, proposal: Mapping[str, Any]) -> int:
        cells = math.prod(self.data["grid"]) if self.data else 0
        if not -1 <= proposal["value"] < cells:
            raise traitlets.TraitError(f"there is no cell {proposal['value']}, of {cells}")
        return proposal["value"]

    def receive(self, content: Mapping[str, Any]) -> None:
        """A message of the page, such as {"kind": "cancel"}, or "again" where that left nothing on it."""
        if content.get("kind") == "cancel":
            self.cancel()
        elif content.get("kind") == "again" and self.begun and not self.busy:
            self.begin(self.begun)

    def _heard(self, content: Any) -> None:
        try:
            if not isinstance(content, Mapping):
                raise _unfit(f"a message is a {type(content).__name__}")
            self.receive(content)
        except Exception as error:  # nobody sees what a callback raises
            self.say(told(error), wrong=True)

    def _run(self, give_way: Callable[[], None], ticket: threading.Event, work: Callable[[Progress], None]) -> None:
        def progress(done: int, total: int, what: str) -> None:
            if not ticket.is_set():
                give_way()
            with self._saying:
                if ticket.is_set():
                    raise Cancelled
                self.progress = done / total
                self.say(what)

        try:
            progress(0, 1, "working …")
            work(progress)
            said = "", False
        except Cancelled:
            return
        except Exception as error:  # nobody sees what a worker raises
            said = told(error), True
        with self._saying:
            if not ticket.is_set():
                self.say(said[0], wrong=said[1])
                self.busy = False

    # Export

    def export(self, path: str | os.PathLike[str]) -> Path:
        """One HTML file that stays interactive without a kernel or a network. Waits for work under way.
        Raises as `save_figure` does, and SettingError for more than a browser can read."""
        return self._written(path, (".html",), lambda file: file.write_text(self._page(), encoding="utf-8"))

    def nothing(self) -> str:
        return "" if self.data else self.message or "no work has been done"

    def _page(self) -> str:
        state = {name: getattr(self, name) for name in self.traits(sync=True) if name in self._own()}
        state |= {"live": False, "message": "", "wrong": False, "busy": False}  # which were of the page's last work
        text = page_json(plain(state))
        if len(text) > LONGEST:
            raise SettingError(
                f"the page would have {len(text) / 1e6:,.0f} million characters",
                expected=f"at most {LONGEST / 1e6:,.0f} million, which a browser can read",
                fix="record fewer blocks, such as attention=[0, 1], or take fewer steps; save_arrays saves all",
            )
        return PAGE.format(title=html.escape(self.title), css=self._css, module=str(self._esm), state=text)

    def _own(self) -> set[str]:
        """The names of the traits that the lab's widgets have and others do not."""
        return set(self.trait_names()) - set(anywidget.AnyWidget.class_trait_names()) - {"_esm", "_css"}


class RunWidget(LabWidget):
    """A widget on a recorded run: opened on one, or on an editor, a picture and an instruction, whose run it records
    beside the page. A kind of it says how to `show(run)`, and what it wants of one (`check`)."""

    def __init__(self, editor: Editor | Run, image: Any = None, instruction: str = "", **settings: Any):
        recorded = isinstance(editor, Run)
        if recorded and (image is not None or instruction or settings):
            raise SettingError(
                "a recorded run, and more beside it",
                expected="the run alone: its picture, instruction and settings are in it",
                fix="leave the others out, or pass the editor instead and have it recorded anew",
            )
        if recorded:
            self.check(editor)
        super().__init__()
        self.run: Run | None = None
        if recorded:
            self.show(editor)
        else:
            self.begin(lambda progress: self.show(record(editor, image, instruction, progress=progress, **settings)))

    @traitlets.validate("step")
    def _there(self, proposal: Mapping[str, Any]) -> int:
        steps = len(self.run.previews) if getattr(self, "run", None) else 1
        if not 0 <= proposal["value"] < steps:
            raise traitlets.TraitError(f"there is no step {proposal['value']}, of {steps}")
        return proposal["value"]

    @staticmethod
    def check(run: Run) -> None:
        """Raises SettingError for a run that cannot be shown."""

    def show(self, run: Run) -> None:
        """Put a run on the page."""
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        return self.run.arrays()

    def described(self) -> dict[str, Any]:
        return self.run.described()


class Number(traitlets.Float):
    """A finite one: traitlets takes NaN, and stumbles over whole numbers that no float is near."""

    def validate(self, obj: traitlets.HasTraits, value: Any) -> float:
        try:
            number = super().validate(obj, value)
        except OverflowError:
            self.error(obj, value)
        if not math.isfinite(number):
            self.error(obj, value)
        return number


def seeded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of edits that are to differ in nothing but what a widget moves: with the seed 0 where none is named."""
    return {**settings, "seed": 0 if settings.get("seed") is None else settings["seed"]}


def asked(content: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field of a page's message: of the type int, float (whole numbers too), bool or str. Raises SettingError."""
    value = content.get(name)
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise _unfit(f"{name} is {one_line(repr(value))[:CUT]}")
    return value


def _unfit(problem: str) -> SettingError:
    return SettingError(
        f"the page sent what it never sends: {problem}", expected="the widget's own page", fix="reload the page"
    )


def source(script: Path) -> str:
    """A widget's module with the shared one in front, since anywidget takes a single module: only the import between
    the two goes."""
    shared, own = (file.read_text(encoding="utf-8") for file in (HERE / SHARED, script))
    head, found, rest = own.partition(f'}} from "../{SHARED}";\n')
    if not found or not head.lstrip().startswith("import {"):
        raise ValueError(f"{script.name} has to begin with its import from {SHARED}")
    return shared + rest


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as the page reads it: uint8, int32, float32 or float64."""
    return {"dtype": str(array.dtype), "shape": list(array.shape), "bytes": np.ascontiguousarray(array).tobytes()}


def png(image: Image.Image) -> bytes:
    """A picture as PNG, at most LARGEST px along a side; small ones stay small, the page enlarges them by squares."""
    file = io.BytesIO()
    (enlarge(image, LARGEST) if max(image.size) > LARGEST else image).save(file, format="png", compress_level=1)
    return file.getvalue()


def heat_colours() -> dict[str, Any]:
    """The heat map's 256 colours, uint8 [256, 3], packed; share: how much of one lies over a greyed picture."""
    colours = np.rint(matplotlib.colormaps[HEAT_MAP](np.arange(256))[:, :3] * 255).astype(np.uint8)
    return packed(colours) | {"share": HEAT_SHARE}


def told(error: Exception) -> str:
    """An error in words; those that are not the lab's own with their kind."""
    return legible(str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}")

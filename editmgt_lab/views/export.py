"""What every view can save: a figure, its arrays, and what a page that stands alone is made of."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..basics.folders import written_whole
from ..errors import SettingError
from .cells import opened, parts_of

# The policy lets the page run what it carries and forbids it every address, so an export cannot need the network.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';
    base-uri 'none'; form-action 'none'">
<title>{title}</title>
<style>
{css}
</style>
</head>
<body class="lab-page">
<main id="widget"></main>
<script id="state" type="application/json">{state}</script>
<script type="module">
{module}
standalone(render, document.getElementById("widget"), document.getElementById("state").textContent);
</script>
</body>
</html>
"""


class Saves:
    """A view that can be saved, and that leaves a picture where there is no kernel.

    A kind of it says what its `figure()`, `arrays()` and `described()` are, and why there may be `nothing()` to save;
    `pending` is the work that is waited for, which `cancel` stops. outlives: whether it stays open when the cell that
    opened it is run again (see cells.py).
    """

    pending: Future
    outlives = False

    def __init__(self, *arguments: Any, **traits: Any):
        super().__init__(*arguments, **traits)
        if not self.outlives:
            opened(self)

    def figure(self) -> Figure:
        """What the view shows, as a figure."""
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything behind it, by name."""
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """The settings, the seed among them, in plain values."""
        raise NotImplementedError

    def nothing(self) -> str:
        """Why there is nothing to save yet; empty where there is something."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop the work under way."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the work under way, and close the page and all that it is made of; ipywidgets alone would leave its
        boxes' children, layouts and styles open."""
        if self.comm is not None and not self.pending.done():
            self.cancel()
        for part in [*parts_of(self)] if self.comm is not None else ():
            part.close()
        super().close()

    def save_figure(self, path: str | os.PathLike[str]) -> Path:
        """`figure()` as .png or .svg, by the name's ending. Waits for work under way. Raises SettingError for another
        ending, or where there is nothing to save, and DiskError."""
        return self._written(
            path, (".png", ".svg"), lambda file: self.figure().savefig(file, dpi=150, bbox_inches="tight")
        )

    def save_arrays(self, path: str | os.PathLike[str]) -> Path:
        """`arrays()` as .npz, with `described()` as JSON under the name "settings". See `save_figure`."""
        return self._written(
            path,
            (".npz",),
            lambda file: np.savez_compressed(file, settings=np.array(json.dumps(self.described())), **self.arrays()),
        )

    def _written(self, path: str | os.PathLike[str], endings: tuple[str, ...], write: Callable[[Path], Any]) -> Path:
        path = Path(path)
        if path.suffix not in endings:
            raise SettingError(
                f"cannot write {path.name!r}", expected=f"a name that ends in {' or '.join(endings)}", fix="rename it"
            )
        self.pending.result()
        if why := self.nothing():
            raise SettingError(
                f"there is nothing to save yet: {why}",
                expected="a widget that shows something",
                fix="mend what its message says, and open it again",
            )
        with written_whole(path) as unfinished:
            write(unfinished)
        return path

    def still(self) -> Figure | None:
        """What is shown where there is no kernel, if anything."""
        return None if self.nothing() else self.figure()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and a static picture of it for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**options)
        figure = self.still()
        if figure is None:
            return bundle
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
        picture = {"image/png": base64.b64encode(file.getvalue()).decode()}
        data, *metadata = bundle if isinstance(bundle, tuple) else (bundle,)
        return ({**data, **picture}, *metadata) if metadata else {**data, **picture}


def plain(value: Any) -> Any:
    """The same in JSON's types: bytes become {"base64": …}, and numbers that are not finite None."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value

"""What people write stays text: no terminal, figure, table or page takes a part of it for its own commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TextIO, TypeVar

Made = TypeVar("Made")
Given = ParamSpec("Given")

# Marks that reorder the text around them, and separators that end a line. The joiners of emoji and of scripts such as
# Persian, and the marks of direction that move nothing else, are text.
_REORDERING = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_COMMANDS = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
_SHOWN = {code: chr(code).encode("unicode_escape").decode() for code in (*_COMMANDS, *map(ord, _REORDERING))}
_SHOWN |= {ord("\t"): " "}


def legible(text: str) -> str:
    """The text with every control character written out (\\x1b, \\u202e), so that it moves and colours nothing.

    Line feeds stay, a tab becomes a space, a half of a surrogate pair is written out, for no file takes it.
    """
    return text.replace("\r\n", "\n").translate(_SHOWN).encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """The text, legible and in one line."""
    return " ".join(legible(text).split())


def say(*values: Any, file: TextIO | None = None) -> None:
    """Print as `print` does, legibly, on terminals that do not know every character too."""
    file = sys.stdout if file is None else file
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(legible(" ".join(map(str, values))).encode(encoding, "backslashreplace").decode(encoding), file=file)


def page_json(value: Any) -> str:
    """JSON that may stand in a page's script element: none of its text can open or close anything there. Raises
    ValueError for a number that is not finite, which no page could read."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def literal(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """A function whose figure shows all of its text as it is written: a dollar sign is one, and starts no formula."""

    @wraps(make)
    def made(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        from matplotlib.text import Text  # slow to import, and not needed for what is printed

        figure = make(*args, **kwargs)
        for text in figure.findobj(Text):
            text.set_parse_math(False)
            text.set_usetex(False)
            if text.get_text() != legible(text.get_text()):
                text.set_text(legible(text.get_text()))
        return figure

    return made


def legend_name(name: str) -> str:
    """A name that a legend shows: matplotlib leaves out those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name

"""One family of errors: each says what was wrong, what was expected and what to do."""

import io
import sys
from collections.abc import Callable, Sequence
from functools import wraps

from .plain_text import legible, say


class LabError(ValueError):
    """The family of every error that a user of the lab can cause."""

    def __init__(self, problem: str, *, expected: str, fix: str):
        self.problem, self.expected, self.fix = map(legible, (problem, expected, fix))
        super().__init__(f"{self.problem}\n  expected: {self.expected}\n  to do:    {self.fix}")


class ImageError(LabError):
    """A picture that cannot be read or used."""


class TextError(LabError):
    """An instruction or a focus word that cannot be used."""


class SettingError(LabError):
    """A setting that is out of range, or two settings that contradict each other."""


class ShapeError(LabError):
    """Tensors that do not fit each other or the model."""


class CheckpointError(LabError):
    """A folder or hub name that holds no checkpoint, or not the one that was asked for."""


class DataError(LabError):
    """A data set, or a row of it, that cannot be read or used."""


class JudgeError(LabError):
    """A judge's answer that holds no scores."""


class EndpointError(LabError):
    """A server that does not answer, or not in the form that it was asked for."""


class DiskError(LabError):
    """A folder that cannot be written to, or is no longer there, or a disk that is full."""


class TrainingError(LabError):
    """A training that cannot go on."""


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[..., int]:
    """A `main` function as a command: its exit status is 0, or 2 after a LabError, which is printed as an error."""

    @wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):  # where λ is unknown, it is shown as \u03bb
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            main(arguments)
        except LabError as error:
            say(error, file=sys.stderr)
            return 2
        return 0

    return run

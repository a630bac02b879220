"""An operator: one step of the pipeline on one row, which gives a value or an error and never stops the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch

from ...errors import CheckpointError, DiskError, EndpointError, LabError
from ...plain_text import legible
from .runner import load_daft

Row = Mapping[str, Any]
BROKEN = "error"  # begins the reason of a row whose operator raised what it did not foresee
FAILED = "failure"  # or what another run may not meet: a server that is down, a model that is not there, no memory left
OUTSIDE = (EndpointError, CheckpointError, OSError, MemoryError, torch.OutOfMemoryError)
DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error")  # begin what every later call of this process raises too


@dataclass(frozen=True)
class Verdict:
    """A rule that a row does not meet. value, bound: in `unit`, what it has and what it would need; None: no number.

    by: by how much it missed, never negative.
    """

    rule: str
    value: float | None = None
    bound: float | None = None
    unit: str = ""

    @property
    def by(self) -> float | None:
        return None if self.value is None or self.bound is None else abs(self.value - self.bound)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: None for NaN, which it has not."""
        told = asdict(self) | {"by": self.by}
        return {name: None if each != each else each for name, each in told.items()}

    def __str__(self) -> str:
        if self.value is None:
            return self.rule
        return f"{self.rule}: {self.value:.4g} {self.unit}".rstrip() + f", the bound is {self.bound:.4g}"


def has_failed(error: Mapping[str, str]) -> bool:
    """Whether a row's error is one that another run may not meet."""
    return error["reason"].startswith(f"{FAILED} in ")


def is_verdict(error: Mapping[str, str]) -> bool:
    """Whether a row's error is a rule that it breaks, and not what an operator raised."""
    return not error["reason"].startswith((f"{BROKEN} in ", f"{FAILED} in "))


class Drop(Exception):
    """Raised by an operator for a row that goes no further: every rule that it breaks, the first names the reason."""

    def __init__(self, *verdicts: Verdict):
        super().__init__("; ".join(map(str, verdicts)))
        self.verdicts = verdicts


@dataclass(frozen=True)
class Operator:
    """The base of all operators, which are frozen dataclasses: their fields are settings and part of a shard's key.

    name: for people; version: raised when the code changes what it gives; takes: the columns that `run` is passed;
    gives: name → type of the columns that it returns. `many`: run returns a list, a row for each. `at_once`: rows that
    may be worked on at the same time, for operators that wait for others. `grouped_by`: one of `takes`, such as a model
    that is needed: rows of one value are worked on one after the other, so that each is loaded once for a shard.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[Mapping[str, pa.DataType]] = {}
    many: ClassVar[bool] = False
    at_once: ClassVar[int] = 1
    grouped_by: ClassVar[str | None] = None

    def run(self, row: Row) -> Row | Sequence[Row]:
        """The new columns of one row. Raises Drop, or anything else, which is this row's error, but a DiskError."""
        raise NotImplementedError

    def answer(self, row: Row) -> dict[str, Any]:
        """{"values": a list of rows, "error": None}, or the other way round; raises nothing but DiskError."""
        try:
            found = self.run(row)
            values = [dict(each) for each in found] if self.many else [dict(found)]
            if not values:
                raise Drop(Verdict(f"{self.name} made nothing"))
            pa.array(values, pa.struct(list(self.gives.items())))  # what no table takes is this row's error alone
            return {"values": values, "error": None}
        except Drop as drop:
            verdicts = drop.verdicts
        except DiskError:  # no row's fault
            raise
        except Exception as error:  # whatever a decoder, a model or a server may come up with
            kind = FAILED if _from_outside(error) else BROKEN
            said = error.problem if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            verdicts = (Verdict(f"{kind} in {self.name}: {said}"),)
        told = [each.to_dict() for each in verdicts]
        reason = legible(verdicts[0].rule.partition(": ")[0])
        problem = legible("; ".join(map(str, verdicts)))
        error = {"operator": self.name, "reason": reason, "problem": problem, "verdicts": json.dumps(told)}
        return {"values": None, "error": error}


def _from_outside(error: Exception) -> bool:
    """Newer releases of torch raise an AcceleratorError for a broken device, older ones a RuntimeError that says so."""
    kinds = (*OUTSIDE, getattr(torch, "AcceleratorError", OSError))
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and str(error).startswith(DEVICE))


ERROR = pa.struct([(name, pa.string()) for name in ("operator", "reason", "problem", "verdicts")])


def apply(frame: Any, operator: Operator) -> Any:
    """A Daft frame with a column `error` → the same with the operator's columns, one row or more for each.

    Rows that have an error pass through, with nulls, but for their `id`. Columns that the operator gives anew are
    replaced.
    """
    daft = load_daft()
    from daft.functions import unnest

    gives = pa.struct([(name, _large(kind)) for name, kind in operator.gives.items()])
    answer = pa.struct([("values", pa.list_(gives)), ("error", ERROR)])

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(answer))
    def run(error: Any, ids: Any, *columns: Any) -> pa.Array:
        names, known = operator.takes, [column.to_pylist() for column in columns]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*known, strict=True)]
        answers = _answers(operator, error.to_pylist(), rows)
        if "id" in operator.gives:
            for found, name in zip(answers, ids.to_pylist(), strict=True):
                found["values"] = found["values"] or [{"id": name}]
        return pa.array(answers, type=answer)

    taken = [daft.col(name) for name in operator.takes]
    frame = frame.with_column("_answer", run(daft.col("error"), daft.col("id"), *taken))
    frame = frame.with_columns(
        {"error": daft.col("_answer")["error"], "_values": daft.col("_answer")["values"]}
    ).exclude("_answer", *operator.gives)
    frame = frame.explode("_values")
    return frame.select(*(name for name in frame.column_names if name != "_values"), unnest(daft.col("_values")))


def _large(kind: pa.DataType) -> pa.DataType:
    """A shard's pictures may be more than the 2 GiB at which an array of plain binaries ends."""
    return pa.large_binary() if pa.types.is_binary(kind) else kind


def _answers(operator: Operator, errors: Sequence[Any], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of every row, in their order, whatever the order is in which they are worked on."""

    def one(place: int) -> dict[str, Any]:
        error = errors[place]
        return {"values": None, "error": error} if error else operator.answer(rows[place])

    places = sorted(range(len(rows)), key=lambda place: str(rows[place].get(operator.grouped_by)))
    if operator.at_once == 1:
        answers = [*map(one, places)]
    else:
        with ThreadPoolExecutor(operator.at_once) as pool:
            answers = [*pool.map(one, places)]
    found = dict(zip(places, answers, strict=True))
    return [found[place] for place in range(len(rows))]

"""The stages joined: pictures are measured, curated, described, instructed, edited; edits are picked and assured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..basics.checks import check_name
from ..errors import SettingError
from .assure.measures import Boxes, ClipCompare, Compare, Ground
from .assure.rules import MEASURES, Assure, CategoryBounds
from .bounds import Bounds
from .curate.duplicates import near_duplicates
from .curate.rules import MEASURED, Curate, Measure, broken_rules
from .curate.sources import Source
from .edit.judge import Judge, Pick
from .edit.operators import Candidates, Edit, Judged
from .edit.protocol import PictureEditor
from .engine.operators import Operator
from .engine.shards import Shard, Store
from .engine.stages import Finished, Stage, finished, write_manifest
from .instruct.operators import CheckCaption, CheckRequest, Describe, Describer, Write, Writer

STAGES = ("measure", "curate", "describe", "instruct", "edit", "pick", "assure")
NO_TWIN = 256.0  # bits: as far from every earlier picture as can be
TWINS = pa.schema([("id", pa.string()), ("twin", pa.string()), ("twin_bits", pa.float64())])


@dataclass(frozen=True)
class Plan:
    """All that decides what comes out. For the drawn world and for photographs: `options.py` makes one of each.

    extra: operators that measure curated pictures by networks (aesthetic score, text, suitability), before the rules;
    editors: each with how many candidates it makes; captions: whether the source's pictures come with captions, to be
    checked; clip: as load_clip takes it, for CLIP's alignment (None: without);
    watched: bounds that drop nothing, only held against the truth, to see how good they would be. Raises SettingError.
    """

    curation: Mapping[str, Bounds]
    describer: Describer
    writer: Writer
    editors: tuple[tuple[PictureEditor, int], ...]
    judge: Judge
    bounds: CategoryBounds
    ground: Ground = field(default_factory=Boxes)
    extra: tuple[Operator, ...] = ()
    instructions: int = 1
    seed: int = 0
    captions: bool = False
    clip: str | None = None
    watched: CategoryBounds = field(default_factory=dict)

    def __post_init__(self) -> None:
        twins = self.curation.get("twin_bits", Bounds())
        if twins.high is not None or (twins.low or 0) > NO_TWIN:
            raise SettingError(
                f"twin_bits {twins} drops every picture: what resembles none is as far from all as can be",
                expected=f"a lower bound alone, of {NO_TWIN:g} bits at most",
                fix='write it such as "twin_bits=41:"',
            )

    def stages(self) -> dict[str, Stage]:
        """By name, in order."""
        compare = (Compare(self.ground), *((ClipCompare(self.clip),) if self.clip else ()))
        numbers = {name for each in (*compare, Judged) for name in each.gives} & {*MEASURES}
        stages = (
            Stage("measure", (Measure(), *self.extra), pictures=("picture",)),
            Stage("curate", (Curate(dict(self.curation), (*self.measured(), "twin_bits")),)),
            Stage("describe", (*((CheckCaption(self.describer),) if self.captions else ()), Describe(self.describer))),
            Stage("instruct", (Write(self.writer, self.instructions, self.seed), CheckRequest())),
            Stage("edit", (Candidates(self._counts()), Edit(tuple(e for e, _ in self.editors))), pictures=("output",)),
            Stage("pick", (Judged(self.judge),), choice=Pick()),
            Stage("assure", (*compare, Assure(self.bounds, tuple(sorted(numbers))))),
        )
        return {stage.name: stage for stage in stages}

    def measured(self) -> tuple[str, ...]:
        """The columns that are measured of pictures by themselves."""
        return (*MEASURED, *(name for each in self.extra for name in each.gives))

    def _counts(self) -> dict[str, int]:
        return {editor.name: count for editor, count in self.editors}


@dataclass
class Run:
    """What a run of the pipeline left: of every stage its shards, in order."""

    plan: Plan
    store: Store
    shards: dict[str, list[Shard]]

    def rows(
        self,
        stage: str,
        *,
        dropped: bool = False,
        pictures: tuple[str, ...] = (),
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Of one stage, in order, a shard in memory at a time. pictures, columns: see Store.rows."""
        for shard in self.shards[stage]:
            yield from self.store.rows(shard, dropped=dropped, pictures=pictures, columns=columns)

    def counts(self) -> dict[str, dict[str, int]]:
        """Stage → came, kept, dropped: rows, which are pictures, then instructions, then candidates, then edits."""
        return {
            name: {what: sum(getattr(shard, what) for shard in shards) for what in ("came", "kept", "dropped")}
            for name, shards in self.shards.items()
        }

    def seconds(self) -> dict[str, float]:
        """Stage → how long its shards took to make, whenever that was."""
        return {name: sum(shard.seconds for shard in shards) for name, shards in self.shards.items()}


def run(source: Source, plan: Plan, folder: Path, *, until: str = STAGES[-1], progress: bool = True) -> Run:
    """Run every stage over a source, shard by shard; shards in the folder that this plan would make are taken as made.

    until: the last stage to run, one of STAGES.
    Raises DataError for a source that cannot be read, DiskError for a full disk, SettingError for a plan that cannot be
    keyed and an unknown stage. Rows raise nothing: those that go no further are in the dropped tables, with reasons.
    """
    check_name(until, "until", STAGES)
    store, shards = Store(folder), {}
    stages = plan.stages()
    given: Iterable[Any] = source.shards()
    total = None
    for name, stage in stages.items():
        shards[name] = stage.run(given, store, total=total, progress=progress)
        twins = name == "measure"
        given = _with_twins(shards[name], store, plan) if twins else finished(shards[name], store)
        total = len(shards[name])
        if name == until:
            break
    write_manifest(store, [(stages[name], made) for name, made in shards.items()])
    return Run(plan, store, shards)


def _with_twins(measured: list[Shard], store: Store, plan: Plan) -> Iterator[Finished]:
    """The measured shards, with each picture's distance to the nearest that came before it and breaks no other rule.

    Only a shard whose verdicts change gets another key: pictures that are added behind leave those before as they are.
    """
    least = plan.curation.get("twin_bits", Bounds()).low
    others = {name: each for name, each in plan.curation.items() if name != "twin_bits"}
    ids, hashes, good, lengths = [], [], [], []
    for shard in measured:
        table = [*store.rows(shard, columns=("id", "hash", *plan.measured()))]
        ids += [row["id"] for row in table]
        hashes += [row["hash"] for row in table]
        good += [not broken_rules(row, others) for row in table]
        lengths.append(len(table))
    twins = near_duplicates(ids, hashes, math.ceil(least) - 1, good) if least else {}
    start = 0
    for shard, length in zip(measured, lengths, strict=True):
        names = ids[start : start + length]
        start += length
        told = ((name, *twins.get(name, ("", NO_TWIN))) for name in names)
        rows = [{"id": name, "twin": twin, "twin_bits": float(bits)} for name, twin, bits in told]
        yield Finished(shard, store, pa.Table.from_pylist(rows, schema=TWINS))

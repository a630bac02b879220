"""The run of a benchmark: row by row edited, kept, measured and written down; goes on where it was stopped."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from tqdm.auto import tqdm

from ..basics.checks import check_name, check_number
from ..basics.fingerprints import code_fingerprint, editor_fingerprint, fingerprint, function_fingerprint
from ..data.rows import Opened, Report
from ..editor import Editor
from ..errors import DataError, ImageError, SettingError, TextError
from ..images import load_image
from ..metrics.measured import MeasuredCard, Shown
from ..metrics.measures import (
    SOURCE_CAPTION,
    TARGET_CAPTION,
    Comparison,
    Measure,
    Tools,
    build_measures,
    evaluate_comparison,
)
from ..metrics.scorecard import COPY, NO_HOLD
from ..settings import Settings
from .edits import Benchmark, Row, folder_name, made_of, open_row, row_fingerprint, save_picture
from .journal import Journal, forget

Answer: TypeAlias = Callable[[Image.Image, str, int], Image.Image]  # source, instruction, number of the row → output
MOST_REASONS, MOST_SHOWN = 10, 8
SKIPPED = {"key", "group", "file", "extra", "skipped", "row"}  # what a row's line in the journal has
FINISHED = SKIPPED - {"skipped"} | {"instruction", "seconds", "scores", "failed", "cut"}


def copy_answer(source: Image.Image, instruction: str, number: int) -> Image.Image:
    """Do nothing."""
    return source


def editor_answers(
    editor: Editor, *, hold_threshold: float | None = None, seed: int = 0, **options: Any
) -> dict[str, Answer]:
    """*No hold* and the hold at λ (None: the model's own), of an editor; row i decodes with seed + i.

    options: others of `Editor.edit`. Outputs have the size of their source; what the grid cuts off comes from it.
    Raises SettingError for an unknown one, or one out of range.
    """
    for name in options:
        check_name(name, "setting", signature(editor.edit).parameters)
    known = {name: value for name, value in options.items() if name in signature(Settings.choose).parameters}
    own = Settings.choose(editor.defaults, 1, hold_threshold=hold_threshold, seed=seed, **known).hold_threshold
    weights = editor_fingerprint(editor)

    def at(threshold: float) -> Answer:
        def answer(source: Image.Image, instruction: str, number: int) -> Image.Image:
            result = editor.edit(source, instruction, hold_threshold=threshold, seed=seed + number, **options)
            return result.geometry.paste_back(result.image, source)

        answer.made_of = {"editor": weights, "hold_threshold": threshold, "seed": seed, **options}
        return answer

    return {NO_HOLD: at(0.0)} | ({f"hold {own:g}": at(own)} if own else {})


def run(
    benchmark: Benchmark,
    data: str | os.PathLike[str],
    answers: Mapping[str, Answer],
    folder: Path,
    *,
    tools: Tools | None = None,
    settings: Mapping[str, Any] | None = None,
    count: int | None = None,
    rescore: bool = False,
    anew: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> MeasuredCard:
    """Run a benchmark with any editors and save the results in `folder`; a run that was stopped goes on.

    data: a local folder or hub name; answers: name → function, *copy the source* is added; settings: what the answers
    depend on, so that a folder is not gone on with by others; count: rows at most (None: all); tools: None takes the
    benchmark's own networks; rescore: measure the pictures that are there again, with other networks perhaps; anew:
    forget all that runs wrote into the folder. seed: of the bootstrap. The card is of this run's rows alone: the folder
    may have more, of a run with a larger count or of more data.

    One table is of one model: beside the settings the folder keeps a fingerprint of what makes its numbers, of every
    answer (see `function_fingerprint`; editors of the lab say their weights), network, row and the code, and a run that
    differs in any of them is refused.

    Each answer's pictures lie in a folder of its name, in the layout of the benchmark's own scripts. rows.jsonl has a
    line for each row; bad rows are in it with their reason, and counted, and done again once they are other rows: those
    with an ImageError, a TextError or a DataError of their own or of an answer. Any other error of an answer stops the
    run, which can go on later. Raises DataError for data that cannot be read or is not what it was, SettingError for a
    folder begun otherwise.
    """
    if count is not None:
        check_number(count, "count", 1, sys.maxsize, "leave it out for all rows", whole=True)
    answers = {COPY: copy_answer, **{name: answer for name, answer in answers.items() if name != COPY}}
    tools = tools or Tools(**benchmark.networks)
    measures, absent = build_measures(benchmark.plan, tools, masks=benchmark.masks)
    folders = {folder_name(name) for name in answers}
    if len(folders) < len(answers) or "" in folders:
        raise SettingError(
            f"the answers {', '.join(answers)} would not each have a folder of its own for their pictures",
            expected="names with letters or digits, in which they differ",
            fix="rename one",
        )
    edits = {
        "benchmark": benchmark.name,
        "answers": {name: function_fingerprint(answer) for name, answer in answers.items() if name != COPY},
        "code": code_fingerprint(),
        **(settings or {}),
    }
    measured = {each.key: each.describe() for each in measures}
    measured |= {"networks": tools.fingerprints(), "code": code_fingerprint(__name__, Measure.__module__)}
    if anew:
        forget(folder, answers)
    journal = Journal(folder, edits, measured, afresh=rescore, anew=anew)
    with tqdm(desc=benchmark.name, unit="row", total=count, disable=not progress) as bar:
        marks: dict[str, str] = {}
        rows: dict[str, dict[str, Any]] = {}  # of this run
        for number, row in enumerate(islice(_once(benchmark.rows(data)), count)):
            mark = marks[row.key] = row_fingerprint(row, number, marks.get(row.after or "", ""))
            if not _is_done(row, mark, journal):
                line = _do(benchmark, row, number, answers, measures, tools, journal, rows, folder, mark, anew)
                journal.add(line | {"row": mark})
            rows[row.key] = journal.rows[row.key]
            bar.update()
            bar.set_postfix(skipped=sum("skipped" in done for done in rows.values()))
    card = make_card(benchmark, list(rows.values()), measures, absent, list(answers), folder, seed)
    card.save(folder)
    benchmark.finish([done for done in rows.values() if "scores" in done], measures, folder)
    return card


def make_card(
    benchmark: Benchmark,
    rows: list[dict[str, Any]],
    measures: list[Measure],
    absent: Mapping[str, str],
    answers: list[str],
    folder: Path,
    seed: int = 0,
) -> MeasuredCard:
    """The results of rows that are finished, as the journal has them."""
    done = [row for row in rows if "scores" in row]
    return MeasuredCard(
        title=f"{benchmark.name}: {len(done)} of {len(rows)} rows",
        measures=measures,
        answers=answers,
        scored=[row["scores"] for row in done],
        groups=benchmark.groups(done),
        headline=benchmark.headline,
        absent=absent,
        notes=list(_notes(benchmark, rows)),
        shown=list(_shown(done, answers, folder)),
        seed=seed,
    )


def _do(
    benchmark: Benchmark,
    row: Row,
    number: int,
    answers: Mapping[str, Answer],
    measures: list[Measure],
    tools: Tools,
    journal: Journal,
    before: Mapping[str, dict[str, Any]],
    folder: Path,
    mark: str,
    anew: bool,
) -> dict[str, Any]:
    """One row, finished: its line for the journal. before: the lines of this run's other rows so far; mark: its
    fingerprint."""
    line = {"key": row.key, "group": row.group, "file": row.file, "extra": dict(row.extra)}
    try:
        opened = open_row(row)
        line |= {"instruction": row.instruction, "seconds": {}, "scores": {}, "failed": {}, "cut": {}}
        for name, answer in answers.items():
            source = _source(row, opened, name, before, folder)
            path = folder / folder_name(name) / row.file
            from_this = fingerprint(mark, name, json.dumps(journal.edits, sort_keys=True))
            output, line["seconds"][name] = _answer(answer, source, row, number, path, from_this, anew)
            comparison = Comparison(
                output, source, row.instruction, opened.target, opened.mask, row.source_caption, row.target_caption
            )
            line["scores"][name], line["failed"][name] = evaluate_comparison(measures, comparison)
    except (ImageError, TextError, DataError) as error:  # any other is no row's fault
        return {name: line[name] for name in ("key", "group", "file", "extra")} | {"skipped": error.problem}
    line["cut"] = _cut(row, measures, tools)
    benchmark.keep(row, opened, folder)
    if opened.target is not None and all(other["group"] != row.group for other in before.values() if "scores" in other):
        save_picture(opened.target, folder / "shown" / f"{folder_name(row.key)}.png")
    return line


def _is_done(row: Row, mark: str, journal: Journal) -> bool:
    """Whether a row is in the journal; one that was bad and is another row now is not. Raises DataError for a row that
    was measured and is another one now."""
    done = journal.rows.get(row.key)
    if done is None or (done.get("row") != mark and "skipped" in done):
        return False
    if absent := (SKIPPED if "skipped" in done else FINISHED) - done.keys():
        raise DataError(
            f"the line of row {row.key} in {journal.file} has no {', '.join(sorted(absent))}",
            expected="a line as it was written",
            fix="remove that line: its row will be done again",
        )
    if done.get("row") != mark:
        raise DataError(
            f"row {row.key} is not what was measured: its instruction, a picture, a caption or its place has changed",
            expected="the data that the folder was begun with",
            fix="take another folder (--output), or begin again in this one (--anew, anew=True)",
        )
    return True


def _answer(
    answer: Answer, source: Image.Image, row: Row, number: int, path: Path, mark: str, anew: bool
) -> tuple[Image.Image, float | None]:
    """The output and the seconds it took. One that is there already, of a run that was stopped, is not made again,
    unless it says that it was made of something else. mark: a fingerprint of all that makes it."""
    if path.exists() and not anew and made_of(path) in (mark, None):
        return load_image(path), None
    began = time.perf_counter()
    output = answer(source, row.instruction, number).convert("RGB")
    seconds = time.perf_counter() - began
    save_picture(output, path, mark)
    return output, seconds


def _source(row: Row, opened: Opened, answer: str, lines: Mapping[str, Any], folder: Path) -> Image.Image:
    """What an answer has to edit: the row's source, or for a later turn the answer's own output before it."""
    if row.after is None:
        return opened.source
    before = lines.get(row.after, {})
    if "scores" not in before:
        raise DataError("the turn before it was skipped", expected="all turns before it", fix="it is left out")
    return load_image(folder / folder_name(answer) / before["file"])


def _cut(row: Row, measures: list[Measure], tools: Tools) -> dict[str, bool]:
    """Caption → whether CLIP sees only its beginning, of the captions that are compared."""
    if not any(each.name in ("CLIP-T", "CLIP-dir") for each in measures):
        return {}
    texts = {SOURCE_CAPTION: row.source_caption, TARGET_CAPTION: row.target_caption}
    return {name: tools.get("clip").too_long(text) for name, text in texts.items() if text}


def _once(rows: Iterator[Row]) -> Iterator[Row]:
    """All rows; one whose key came before is given another key and is bad, as is one whose picture would lie where
    another row's lies."""
    seen: set[str] = set()
    files: dict[str, str] = {}
    for number, row in enumerate(rows):
        if row.key in seen:
            row = replace(row, key=f"{row.key} (row {number})", problem=f"the key {row.key} came before")
        elif files.setdefault(row.file, row.key) != row.key:
            row = replace(row, problem=f"its output would lie where that of {files[row.file]} lies")
        seen.add(row.key)
        yield row


def _notes(benchmark: Benchmark, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield benchmark.about(rows)
    report = Report(rows=len(rows))
    for row in rows:
        if "skipped" in row:
            report.skip(row["skipped"], row["key"])
    yield from report.lines(MOST_REASONS)
    if len(report.skipped) > MOST_REASONS:
        yield f"  and {len(report.skipped) - MOST_REASONS} other reasons: see rows.jsonl"
    failed = Counter(
        (key, why) for row in rows for values in row.get("failed", {}).values() for key, why in values.items()
    )
    for (key, why), times in failed.most_common(MOST_REASONS):
        yield f"not measured: {times} × {key}: {why}"
    captions = [(name, cut) for row in rows for name, cut in row.get("cut", {}).items()]
    for name in (SOURCE_CAPTION, TARGET_CAPTION):
        cuts = [cut for which, cut in captions if which == name]
        if cuts:
            yield f"CLIP saw only the beginning of {sum(cuts)} of {len(cuts)} {name}s"
    for answer in {name: None for row in rows for name in row.get("seconds", {})}:
        times = [row["seconds"][answer] for row in rows if row.get("seconds", {}).get(answer) is not None]
        if times:
            yield f"{answer}: {sum(times) / len(times):.3f} s an edit"


def _shown(done: list[dict[str, Any]], answers: list[str], folder: Path) -> Iterator[Shown]:
    """The first finished row of each group, as far as they fit on a page."""
    first = {row["group"]: row for row in reversed(done)}
    for group in sorted(first)[:MOST_SHOWN]:
        row = first[group]
        files = {"source" if name == COPY else name: folder / folder_name(name) / row["file"] for name in answers}
        target = folder / "shown" / f"{folder_name(row['key'])}.png"
        files |= {"target": target} if target.exists() else {}
        yield Shown(f"{group}: {row['instruction']}", {name: load_image(file) for name, file in files.items()})

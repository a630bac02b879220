"""`python -m editmgt_lab.studies.choose`: choose what a model is used with by measuring it on the validation split.

One setting after the other, each with those before it as chosen: token temperature and guidance scale by success
without hold; then the picture and the blocks of the heat map by localisation; last, since it rests on all of these, the
hold: of the λ and rules whose success is at most 2 points below the best, that which leaks least in local categories,
and likewise the heat map to hold by. Options are listed from the cheapest or simplest on, and the first of those that
are as good as the best (TIES) is taken. With `--calls`, also temperature, steps and strength, to be seen. With `--only
PART`, one of these parts alone, with `--hold RULE` one rule: a point of success takes hundreds of edits to be seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..attention import MAPPED
from ..basics.fingerprints import weights_fingerprint
from ..decoding import HOLD_BY, HOLDS
from ..editor import Editor
from ..errors import CheckpointError, SettingError, command
from ..images import to_tensor
from ..loading import load
from ..metrics.arithmetic import summary
from ..metrics.report import align, cell, save_json
from ..metrics.truth import LOCAL_CATEGORIES, Truth, draw_truths, heat_of
from ..settings import DEFAULTS_FILE, Defaults
from ..world import EditSample
from .options import measuring, which_model

SWEEPS: dict[str, tuple[Any, ...]] = {
    "token_temperature": (1.0, 0.5, 0.3, 0.1),
    "guidance_scale": (1.0, 1.5, 2.0, 3.0),  # 1 is one pass instead of two
}
CALLS: dict[str, tuple[Any, ...]] = {
    "temperature": ((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (4.0, 0.0)),
    "steps": (8, 12, 16),
    "strength": (1.0, 0.9, 1.1, 1.25),  # 1 is the plain attention
}
PARTS: dict[str, tuple[str, ...]] = {  # name → settings that it chooses
    "sampling": tuple(SWEEPS),
    "heat": ("heat_from", "blocks"),
    "hold": ("hold_threshold", "hold", "hold_by"),
}
HOLD_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
MAY_LOSE = 0.02  # of success, for the hold
TIES = {"success": 0.005, "localisation": 0.001, "leakage": 0.0002}  # a smaller difference is none
COLUMNS = {  # name → head, factor, digits
    "success": ("success %", 100, 1),
    "score": ("edit score", 1, 2),
    "leakage": ("local leakage", 1, 4),
    "localisation": ("localisation", 1, 3),
}


@dataclass(frozen=True)
class Trial:
    """One option of one setting, tried out.

    values: metric → one for each edit, NaN where there is none (no leakage outside the local categories); seconds: an
    edit, for blocks all ranges together; chosen: whether this option was taken.
    """

    setting: str
    option: Any
    values: dict[str, list[float]]
    seconds: float
    chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """setting, option, chosen, seconds, and mean, low, high and count of every metric; ready for JSON."""
        means = {name: summary(self.values.get(name, [])) for name in COLUMNS}
        return {"setting": self.setting, "option": self.option, "chosen": self.chosen, "seconds": self.seconds} | means


def choose_settings(
    editor: Editor,
    *,
    split: str = "validation",
    count: int = 100,
    batch: int = 20,
    seed: int = 0,
    parts: Sequence[str] = tuple(PARTS),
    rules: Sequence[str] = HOLDS,
    calls: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any], list[Trial]]:
    """The settings that do best on the edits 0 … count - 1 of a split, and every trial that led there, in order.

    Edit i decodes with seed + i in every trial; a setting whose turn has not come is as in `Editor.edit`, and likewise
    one of a part of PARTS that is left out. rules: of HOLDS, to choose among. calls: try the CALLS as well. Raises
    SettingError for a count or batch below 1.
    """
    truths = list(draw_truths(editor, split=split, count=count, batch=batch))
    run = {"truths": truths, "seed": seed, "progress": progress}
    chosen: dict[str, Any] = {}
    table: list[Trial] = []

    def take(trials: Sequence[Trial], which: int) -> Any:
        table.extend(marked(trials, which))
        return trials[which].option

    for setting, options in SWEEPS.items() if "sampling" in parts else ():
        trials = [
            try_out(editor, setting, option, **run, hold_threshold=0.0, **chosen, **{setting: option})
            for option in options
        ]
        chosen[setting] = take(trials, best(trials, "success"))

    if "heat" in parts:
        trials = [
            trial
            for heat_from in MAPPED
            for trial in try_blocks(editor, **run, hold_threshold=0.0, heat_from=heat_from, **chosen)
        ]
        chosen["heat_from"], chosen["blocks"] = take(trials, best(trials, "localisation"))

    if "hold" in parts:
        held, trials = choose_hold(editor, rules, **run, **chosen)
        chosen |= held
        table += trials
    if calls:
        of_model = {name: chosen[name] for name in ("hold", "hold_by") if name in chosen}  # not of `Editor.edit`
        holding = editor.with_defaults(**of_model)
        fixed = {name: value for name, value in chosen.items() if name not in of_model}
        for setting, options in CALLS.items():
            table += [try_out(holding, setting, option, **run, **fixed, **{setting: option}) for option in options]
    return chosen, table


def choose_hold(
    editor: Editor, rules: Sequence[str], *, truths: Sequence[Truth], seed: int, progress: bool, **options: Any
) -> tuple[dict[str, Any], list[Trial]]:
    """λ and rule, of these rules of HOLDS, and the heat map to hold by; and every trial, in order.

    options: of `Editor.edit`; what they leave out is the model's own.
    """
    run = {"truths": truths, "seed": seed, "progress": progress, **options}
    by, other = reversed(HOLD_BY)  # the map over all steps first, which is then the one that is shown
    holds = [(0.0, rules[0]), *product(HOLD_THRESHOLDS, rules)]
    trials = [
        try_out(editor.with_defaults(hold=rule, hold_by=by), "hold", (threshold, rule), **run, hold_threshold=threshold)
        for threshold, rule in holds
    ]
    which = least_leakage(trials)
    hold_threshold, rule = trials[which].option
    by_other = try_out(
        editor.with_defaults(hold=rule, hold_by=other), "hold by", other, **run, hold_threshold=hold_threshold
    )
    maps = [replace(trials[which], setting="hold by", option=by), by_other]
    taken = least_leakage(maps)
    held = {"hold_threshold": hold_threshold, "hold": rule, "hold_by": maps[taken].option}
    return held, marked(trials, which) + marked(maps, taken)


def marked(trials: Sequence[Trial], which: int) -> list[Trial]:
    """The trials, this one of them as chosen."""
    return [replace(trial, chosen=i == which) for i, trial in enumerate(trials)]


def try_out(
    editor: Editor,
    setting: str,
    option: Any,
    *,
    truths: Sequence[Truth],
    seed: int,
    progress: bool,
    focus: Callable[[EditSample], list[str]] | None = None,
    **options: Any,
) -> Trial:
    """All edits with these options of `Editor.edit`; focus: the words of an edit to localise by, None is all."""
    values: dict[str, list[float]] = {name: [] for name in COLUMNS}
    seconds = 0.0
    for truth in tqdm(truths, desc=f"{setting} {option}", unit="batch", disable=not progress):
        began = time.perf_counter()
        words = None if focus is None else [focus(sample) for sample in truth.samples]
        result = truth.edit(editor, seed, focus=words, **options)
        seconds += time.perf_counter() - began
        for sample, scores in zip(truth.samples, truth.scores(to_tensor(result.images), result), strict=True):
            scores = scores if sample.category in LOCAL_CATEGORIES else replace(scores, leakage=math.nan)
            for name in COLUMNS:
                values[name].append(getattr(scores, name))
    return Trial(setting, option, values, seconds / len(values["success"]))


def try_blocks(
    editor: Editor, *, truths: Sequence[Truth], seed: int, progress: bool, heat_from: str, **options: Any
) -> list[Trial]:
    """Sets of blocks by localisation alone, the smallest first: every block, and the sets on the way from all blocks
    down to two, each without the block that it does best without. One decoding serves them all.

    Localisation is that of the heat map over all steps: most of an edit is decided before the last one.
    """
    began = time.perf_counter()
    answers = [
        truth.edit_with_maps(editor, seed, heat_from=heat_from, **options)[1]
        for truth in tqdm(truths, desc=f"blocks, {heat_from}: decoding", unit="batch", disable=not progress)
    ]
    seconds = (time.perf_counter() - began) / sum(len(truth.samples) for truth in truths)

    def localise(blocks: tuple[int, ...]) -> Trial:
        values: list[float] = []
        for truth, steps in zip(truths, answers, strict=True):
            heat = heat_of(editor, steps, blocks)
            values += [truth.localisation(heat, i) for i in range(len(truth.samples))]
        return Trial("heat from, blocks", (heat_from, blocks), {"localisation": values}, seconds)

    kept = tuple(range(len(editor.transformer.blocks)))
    with tqdm(desc=f"blocks, {heat_from}: localising", unit="round", disable=not progress) as bar:
        trials = [localise((block,)) for block in kept] + [localise(kept)] * (len(kept) > 1)
        while len(kept) > 2:
            bar.update()
            fewer = [localise(tuple(b for b in kept if b != left_out)) for left_out in kept]
            _, kept = fewer[best(fewer, "localisation")].option
            trials += fewer
    return sorted(trials, key=lambda trial: len(trial.option[1]))


def best(trials: Sequence[Trial], metric: str, sign: int = 1) -> int:
    """The first trial whose mean is as good as the best one's; sign: -1 where less is better.

    Edits without a value (NaN) are left out; they are the same in every trial.
    """
    means = [sign * (summary(trial.values[metric])["mean"] or 0.0) for trial in trials]
    return next(i for i, mean in enumerate(means) if mean >= max(means) - TIES[metric])


def least_leakage(trials: Sequence[Trial]) -> int:
    """Of the holds (λ, rule) that lose little success against the best, that which leaks least."""
    means = [summary(trial.values["success"])["mean"] or 0.0 for trial in trials]
    able = [i for i, mean in enumerate(means) if mean >= max(means) - MAY_LOSE]
    return able[best([trials[i] for i in able], "leakage", sign=-1)]


def check_editor_folder(folder: Path) -> None:
    """Raises CheckpointError for a folder that is no editor's."""
    if not (folder / "editmgt").is_dir():
        raise CheckpointError(
            f"{folder} is no editor's folder",
            expected="a folder with editmgt/ in it, such as data_samples/tiny",
            fix="check the path",
        )


def load_to_write(model: str, folder: Path, parts: Sequence[str]) -> Editor:
    """The model, where the folder holds the same weights, and the same defaults but for those that are to be chosen.

    parts: as in `choose_settings`. Raises CheckpointError for a folder that is no editor's, SettingError for another
    model's, of which nothing would have been measured.
    """
    check_editor_folder(folder)
    theirs = load(folder)
    to_be_chosen = {name: getattr(theirs.defaults, name) for part in parts for name in PARTS[part]}
    wanted = weights_fingerprint(theirs)
    del theirs  # before the model takes its room
    editor = load(model)
    if weights_fingerprint(editor.with_defaults(**to_be_chosen)) != wanted:
        raise SettingError(
            f"{folder} holds other weights or defaults than the model {model}",
            expected="the folder of the model that is measured",
            fix=f"add --model {folder}, or leave --write out",
        )
    return editor


def write_defaults(folder: Path, chosen: dict[str, Any]) -> None:
    """Put the chosen settings into an editor folder's lab.json. Raises CheckpointError, DiskError."""
    check_editor_folder(folder)
    replace(Defaults.read(folder), **chosen).write(folder)


def report(table: Sequence[Trial]) -> str:
    """Plain text: every trial, means with their 95% intervals, an arrow at those that were taken."""
    lines = [["setting", "option", "", *(head for head, _, _ in COLUMNS.values()), "s an edit"]]
    for trial in table:
        means = trial.to_dict()
        cells = [cell(means[name], factor, digits) for name, (_, factor, digits) in COLUMNS.items()]
        lines.append([trial.setting, str(trial.option), "←" if trial.chosen else "", *cells, f"{trial.seconds:.3f}"])
    return align(lines, left=3)


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the table, save it, write lab.json if asked."""
    counted, output = "edits of every trial; there are about thirty trials", Path("outputs") / "choices.json"
    parser = measuring(__doc__, count=100, counted=counted, output=output, split="validation")
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"one part alone: {', '.join(PARTS)}")
    parser.add_argument("--hold", choices=HOLDS, metavar="RULE", help=f"the hold by one rule alone: {', '.join(HOLDS)}")
    parser.add_argument("--calls", action="store_true", help="also try what a call may choose")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="editor folder whose lab.json takes the best")
    options = parser.parse_args(arguments)
    measured = {name: getattr(options, name) for name in ("split", "count", "seed")}
    parts = (options.only,) if options.only else tuple(PARTS)
    rules = (options.hold,) if options.hold else HOLDS
    if options.hold and "hold" not in parts:
        fix = "--only hold, or leave one of them out"
        raise SettingError(f"--hold {options.hold} beside --only {options.only}", expected="the part hold", fix=fix)
    editor = load_to_write(options.model, options.write, parts) if options.write else load(options.model)
    about = which_model(options.model, editor)
    wanted = {"batch": options.batch, "parts": parts, "rules": rules, "calls": options.calls}
    chosen, table = choose_settings(editor, **wanted, **measured)
    print(report(table))
    print("chosen:", ", ".join(f"{name} {value}" for name, value in chosen.items()))
    saved = {"settings": measured | about, "chosen": chosen, "trials": [trial.to_dict() for trial in table]}
    save_json(saved, options.output)
    print("saved:", options.output)
    if options.write:
        write_defaults(options.write, chosen)
        print("written:", options.write / DEFAULTS_FILE)


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m editmgt_lab.benchmarks NAME`: run a published benchmark, or go on with it."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from ..errors import SettingError, command
from ..loading import load
from ..metrics.backbones import PUBLISHED, TINY
from ..metrics.measures import Tools, tools_of
from ..plain_text import say
from . import BENCHMARKS, editor_answers, run

NETWORKS = (*PUBLISHED, "lpips")
EDITING = ("hold_threshold", "steps", "guidance_scale", "strength")


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the table and save it."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.benchmarks", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument(
        "--data", help="a local folder or hub name (else the published one); small-world: how many edits"
    )
    parser.add_argument("--split", help="else the one that is reported: see the benchmark's file")
    parser.add_argument("--count", type=int, help="rows at most; a later run with more goes on")
    parser.add_argument("--model", help="a name, folder or hub name as lab.load takes it [tiny]")
    parser.add_argument("--editor", metavar="MODULE:FUNCTION", help="instead: (picture, instruction, number) → picture")
    parser.add_argument("--hold-threshold", type=float, metavar="λ", help="else the model's own")
    parser.add_argument("--steps", type=int, help="else the model's own")
    parser.add_argument("--guidance-scale", type=float, help="else the model's own")
    parser.add_argument("--strength", type=float, help="γ of the attention injection, else the model's own")
    parser.add_argument("--seed", type=int, default=0)
    for name, source in PUBLISHED.items():
        own = f"tiny or none [small-world: {TINY}" if name == "clip" else "or none [small-world: none"
        parser.add_argument(f"--{name}", help=f"a folder, a hub name, {own}, else {source}]")
    parser.add_argument("--lpips", help="a folder, a hub name, or none [none]")
    parser.add_argument("--judge", metavar="MODULE:FUNCTION", help="for VIEScore: (pictures, question) → answer")
    parser.add_argument("--rescore", action="store_true", help="keep the pictures that are there, measure them again")
    parser.add_argument("--anew", action="store_true", help="forget what runs wrote into the folder, and begin again")
    parser.add_argument("--output", type=Path, help="folder to save to [outputs/benchmarks/NAME]")
    options = parser.parse_args(arguments)
    card = _run(options)
    say(card.table())
    say("saved:", options.output or Path("outputs") / "benchmarks" / options.name)


def _run(options: argparse.Namespace) -> Any:
    benchmark = BENCHMARKS[options.name](options.split)
    data = options.data or benchmark.hub
    if data is None:
        raise SettingError("no data was given", expected="how many edits to draw", fix="pass --data 100")
    named = {name: given for name in (*NETWORKS, "judge") if (given := getattr(options, name)) not in (None, "none")}
    unheard = sorted(named.keys() - tools_of(benchmark.plan))
    if unheard:
        raise SettingError(
            f"{benchmark.name} has no measure that would ask --{unheard[0]} {named[unheard[0]]}",
            expected=f"only what it measures with: {', '.join(sorted(tools_of(benchmark.plan)))}",
            fix="leave it out",
        )
    asked = {name: getattr(options, name) for name in EDITING}
    given = [name for name, value in {"model": options.model, **asked}.items() if value is not None]
    if options.editor and given:
        raise SettingError(
            f"--{given[0].replace('_', '-')} is for the lab's own editors, and --editor {options.editor} is none",
            expected="either --editor, or --model and how it edits",
            fix="leave one of them out, and set in the function itself how that edits",
        )
    networks = {name: getattr(options, name) or benchmark.networks.get(name, "none") for name in NETWORKS}
    tools = Tools(
        **{name: None if source == "none" else source for name, source in networks.items()},
        judge=_named(options.judge) if options.judge else None,
        judge_name=options.judge or "none",
    )
    if options.editor:
        answers, settings = {options.editor: _named(options.editor)}, {"editor": options.editor}
    else:
        model = options.model or "tiny"
        editor = load(model)
        tools.device = editor.device
        answers = editor_answers(editor, seed=options.seed, **asked)
        settings = {"model": str(Path(model).resolve()) if Path(model).is_dir() else model, **asked}
    return run(
        benchmark,
        data,
        answers,
        options.output or Path("outputs") / "benchmarks" / options.name,
        tools=tools,
        settings=settings | {"seed": options.seed, "split": benchmark.split},
        count=options.count,
        rescore=options.rescore,
        anew=options.anew,
        seed=options.seed,
    )


def _named(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingError(
            f"{name!r} cannot be imported: {error}", expected="MODULE:FUNCTION", fix="run where the module lies"
        ) from error
    if not callable(found):
        raise SettingError(f"{name!r} is no function", expected="MODULE:FUNCTION", fix="name what can be called")
    return found


if __name__ == "__main__":
    raise SystemExit(main())

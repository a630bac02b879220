"""`python -m editmgt_lab.finetuning`: teach an editor the pairs of a data set. Run it again to go on where it stopped.

On several processors put `accelerate launch -m editmgt_lab.finetuning` in place of `python -m …`.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState

from ..data.pairs import PairReader
from ..data.tokens import TokenPairs, token_pairs
from ..editor import Editor
from ..errors import SettingError, command
from ..loading import load
from ..plain_text import say
from ..training.run import Run
from ..world import SKILLS
from .drawn import old_pairs, skill_pairs
from .finetuner import Finetuner
from .settings import FinetuneSettings

VALIDATION_SHARE = 0.05  # of the pairs, for the validation loss alone


def read(
    editor: Editor, data: str, *, schema: str | None, split: str | None, limit: int | None, cache: Path
) -> TokenPairs:
    """Tokens of the pairs of a skill of the drawn world, a folder or a hub data set, which are kept in `cache`.

    Raises SettingError for a skill with a schema or a split, which it has not; DataError.
    """
    if data in SKILLS and not Path(data).exists():
        if schema or split:
            raise SettingError(
                f"{data} is a skill of the drawn world, beside {'--schema' if schema else '--split'}",
                expected="a data set of your own, which has them",
                fix="leave that out",
            )
        return skill_pairs(editor, data, limit)
    reader = PairReader(data, schema=schema, split=split, limit=limit)
    pairs = token_pairs(editor, reader, folder=cache)
    say(f"{len(pairs)} pairs\n{reader.report}")
    return pairs


def parted(pairs: TokenPairs) -> tuple[TokenPairs, TokenPairs | None]:
    """All but the last VALIDATION_SHARE of the pairs, and these; None where there are too few to spare one."""
    kept = len(pairs) - int(VALIDATION_SHARE * len(pairs))
    if kept == len(pairs):
        return pairs, None
    return pairs.subset(range(kept)), pairs.subset(range(kept, len(pairs)))


def finetune(options: argparse.Namespace, settings: FinetuneSettings) -> None:
    """Read, train, and write an adapter or a whole editor to the output folder."""
    state = PartialState(cpu=options.device == "cpu")
    editor = load(options.model, device=options.device or state.device)
    with state.main_process_first():  # the others find the tokens made
        data = {name: getattr(options, name) for name in ("schema", "split", "limit")}
        pairs, validation = parted(read(editor, options.data, **data, cache=options.folder / "tokens"))
    if options.anew and state.is_main_process:
        Run(options.folder).clear()
    state.wait_for_everyone()
    tuner = Finetuner(
        editor, pairs, settings, replay=old_pairs(editor, options.replay) if options.replay else None,
        validation=validation, folder=options.folder, other_code=options.other_code,
    )  # fmt: skip
    tuner.run()
    if state.is_main_process:
        tuner.save(options.output)
        print("The adapter is in" if settings.rank else "The editor is in", options.output)


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line; every setting is an option."""
    parser = argparse.ArgumentParser(
        prog="python -m editmgt_lab.finetuning", description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("data", help=f"a folder, a hub name, or a skill of the drawn world: {', '.join(SKILLS)}")
    parser.add_argument("--model", default="tiny", help="a name, folder or hub name as lab.load takes it")
    parser.add_argument("--device", help="else CUDA where there is one")
    parser.add_argument("--schema", help="else recognised by the columns")
    parser.add_argument("--split", help="only files whose name begins with it")
    parser.add_argument("--limit", type=int, help="pairs at most")
    parser.add_argument("--replay", type=int, default=0, help="old edits of the drawn world to mix in")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "finetuning", help="checkpoints and tokens")
    parser.add_argument("--output", type=Path, default=Path("runs") / "finetuned")
    parser.add_argument("--anew", action="store_true", help="forget the checkpoint in the folder and begin again")
    parser.add_argument("--other-code", action="store_true", help="go on although code or libraries have changed")
    for field in fields(FinetuneSettings):
        option = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(option, action="store_true")
        else:
            kind = int if field.default is None else type(field.default)
            parser.add_argument(option, type=kind, default=field.default)
    options = parser.parse_args(arguments)
    settings = {field.name: getattr(options, field.name) for field in fields(FinetuneSettings)}
    try:
        finetune(options, FinetuneSettings(**settings))
    except KeyboardInterrupt:
        print(f"Stopped. Run the same again to go on from the last checkpoint in {options.folder}.")


if __name__ == "__main__":
    raise SystemExit(main())

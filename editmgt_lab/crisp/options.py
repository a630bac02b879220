"""What the command is asked with, the plan that it makes, of the drawn world or of photographs, and its run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import SettingError
from ..metrics.backbones import TINY
from ..world import CATEGORIES, PIXELS, SPLITS
from .assure import rules as after
from .assure.measures import Boxes, ClipCompare
from .bounds import Bounds, with_settings
from .curate import rules as before
from .curate.aesthetic import Aesthetic
from .curate.sources import Source
from .curate.text import Writing
from .drawn.editors import FAULTS, SLOPPY, DrawnEditor, ManyFaults
from .drawn.models import DrawnDescriber, DrawnGround, DrawnJudge, DrawnWriter
from .drawn.pictures import draw
from .edit.editors import DiffusersEditor, HttpEditor, LabEditor
from .edit.protocol import PictureEditor
from .engine.operators import Operator
from .engine.runner import RUNNERS, start
from .engine.stages import ROWS
from .instruct.operators import Describer, Writer
from .models.client import Client, client_from_environment
from .models.roles import EndpointDescriber, EndpointJudge, EndpointWriter, Suitable
from .pipeline import STAGES, Plan, Run, run

DRAWN_PICTURES, DRAWN_SPLIT = 1000, "train"
EDITORS = "drawn, drawn:FAULT, faults, sloppy, lab, lab:MODEL, an address, or CLASS:FOLDER of a diffusers pipeline"


def parser() -> argparse.ArgumentParser:
    """The command line of `make crisp`."""
    made = argparse.ArgumentParser(
        prog="python -m editmgt_lab.crisp",
        description="From pictures to checked edits: curate, instruct, edit, assure. Run it again to go on.",
    )
    made.add_argument(
        "source", nargs="?", help="a folder, tables, .tar files or a hub name [the drawn world's pictures]"
    )
    made.add_argument("--output", type=Path, default=Path("outputs") / "crisp", help="folder [%(default)s]")
    made.add_argument("--count", type=int, help=f"pictures at most [{DRAWN_PICTURES} drawn ones, else all]")
    made.add_argument("--column", help="of tables, which holds the pictures")
    made.add_argument(
        "--caption", help="of tables, which says what a picture shows: one that contradicts it is dropped"
    )
    made.add_argument("--until", choices=STAGES, help="the last stage to run [all]")
    drawn = made.add_argument_group("the drawn world")
    drawn.add_argument("--split", choices=SPLITS, help=f"of its scenes [{DRAWN_SPLIT}]")
    drawn.add_argument("--size", type=int, help=f"px of its pictures [{PIXELS}]")
    drawn.add_argument(
        "--careless", type=float, help=f"share of instructions that make no sense [{DrawnWriter.careless}]"
    )
    rules = made.add_argument_group("rules")
    rules.add_argument("--preset", choices=("drawn", "photographs"), help="of all rules [by the source]")
    rules.add_argument("--rule", action="append", default=[], metavar="NAME=LOW:HIGH", help="one of curation, changed")
    rules.add_argument("--bounds", type=Path, help="JSON of stage 4's bounds: {category: {measure: [low, high]}}")
    rules.add_argument("--aesthetic", type=Path, help="a folder with CLIP and head.safetensors")
    rules.add_argument("--text", action="store_true", help="find writing and watermarks, with the extra [writing]")
    rules.add_argument(
        "--clip", help="a folder, a hub name, tiny or none, for alignment by CLIP [drawn: tiny, else none]"
    )
    work = made.add_argument_group("instructions and edits")
    work.add_argument("--instructions", type=int, default=1, help="for each picture [%(default)s]")
    work.add_argument("--categories", nargs="+", default=CATEGORIES, choices=CATEGORIES, help="[all]")
    work.add_argument(
        "--rounds", type=int, default=3, help="an instruction is written in, the last is kept [%(default)s]"
    )
    work.add_argument("--editor", action="append", default=[], help=f"{EDITORS}; more than one [drawn: faults]")
    work.add_argument("--candidates", type=int, default=2, help="of each editor [%(default)s]")
    work.add_argument("--seed", type=int, default=0, help="of instructions [%(default)s]")
    models = made.add_argument_group("a language and vision model, for all but the drawn world")
    models.add_argument("--endpoint", help="address of an OpenAI-compatible server, ending in /v1")
    models.add_argument("--endpoint-model", help="its name there")
    models.add_argument("--suitable", action="store_true", help="ask it whether a picture is suitable as well")
    engine = made.add_argument_group("engine")
    engine.add_argument("--runner", default="native", choices=RUNNERS, help="in this process or on Ray [%(default)s]")
    engine.add_argument("--address", help="of a Ray cluster")
    engine.add_argument("--shard", type=int, default=ROWS, help="pictures of a shard, which a kill costs [%(default)s]")
    return made


def plan_of(chosen: argparse.Namespace) -> Plan:
    """The plan that a command line asks for. Raises SettingError for settings that contradict each other."""
    preset = chosen.preset or ("photographs" if chosen.source else "drawn")
    drawn = preset == "drawn"
    client = _client(chosen)
    clip = chosen.clip or (TINY if drawn else "none")
    describer, writer = _models(chosen, client, drawn)
    _check_heard(chosen, drawn)
    editors = tuple((editor_of(text), chosen.candidates) for text in chosen.editor or ["faults"])
    extra: list[Operator] = [Aesthetic(chosen.aesthetic)] if chosen.aesthetic else []
    if chosen.text:
        extra.append(Writing())
    if chosen.suitable:
        if client is None:
            raise SettingError("--suitable has nobody to ask", expected="an --endpoint", fix="name one")
        extra.append(Suitable(client))
    if chosen.candidates < 1:
        raise SettingError(f"{chosen.candidates} candidates", expected="1 or more", fix="2 are usual")
    made = Plan(
        curation=with_settings(before.DRAWN if drawn else before.PHOTOGRAPHS, chosen.rule),
        describer=describer,
        writer=writer,
        editors=editors,
        judge=DrawnJudge() if client is None else EndpointJudge(client),
        bounds=after.load_bounds(chosen.bounds) if chosen.bounds else after.DRAWN if drawn else after.PHOTOGRAPHS,
        ground=DrawnGround() if client is None else Boxes(),
        extra=tuple(extra),
        instructions=chosen.instructions,
        seed=chosen.seed,
        captions=chosen.caption is not None,
        clip=None if clip == "none" else clip,
        watched=after.DRAWN_CLIP if clip == TINY else {},
    )
    _check_measured(chosen, made)
    return made


def run_asked(chosen: argparse.Namespace, plan: Plan, *, until: str = STAGES[-1]) -> tuple[Run, Path | None]:
    """The run of a plan over the source, and None; or over the drawn world's pictures, which are drawn where there is
    no source, and the folder with their truth."""
    start(chosen.runner, chosen.address)
    place, count, world = chosen.source, chosen.count, None
    if place is None:
        split, size = chosen.split or DRAWN_SPLIT, PIXELS if chosen.size is None else chosen.size
        count = DRAWN_PICTURES if count is None else count
        world = chosen.output / f"{split}_{size}"
        place = draw(world, count, split=split, size=size)
    source = Source(str(place), count, chosen.column, chosen.caption, chosen.shard)
    return run(source, plan, chosen.output / "shards", until=until), world


def _check_heard(chosen: argparse.Namespace, drawn: bool) -> None:
    """Raises SettingError for what was asked for and nobody would hear, and for an editor that nobody named."""
    unheard = {
        "split": chosen.source is not None,
        "size": chosen.source is not None,
        "careless": not drawn or chosen.endpoint is not None,
    }
    if deaf := [f"--{name}" for name, vain in unheard.items() if vain and getattr(chosen, name) is not None]:
        raise SettingError(
            f"nobody hears {', '.join(deaf)}",
            expected="--split and --size of pictures that this command draws, --careless for the drawn world's writer",
            fix="leave it out",
        )
    most = len({*chosen.categories})
    if chosen.instructions > most:
        raise SettingError(
            f"{chosen.instructions} instructions for a picture",
            expected=f"one of a category at most, so {most} of {', '.join(dict.fromkeys(chosen.categories))}",
            fix="ask for fewer, or for more categories",
        )
    if not drawn and not chosen.editor and (chosen.until is None or chosen.until in STAGES[STAGES.index("edit") :]):
        raise SettingError(
            "nobody edits photographs: the usual editor knows the drawn world alone",
            expected=f"an --editor, one of {EDITORS}",
            fix="name one, or stop before edits are made, by --until instruct",
        )


def _check_measured(chosen: argparse.Namespace, plan: Plan) -> None:
    """Raises SettingError where a bound that was asked for is on what this plan does not measure."""
    rules = {setting.partition("=")[0] for setting in chosen.rule}
    asked = {name for name in rules if plan.curation[name] != Bounds()} - {*plan.measured(), "twin_bits"}
    if chosen.bounds:
        bound = {name for of in plan.bounds.values() for name, each in of.items() if each != Bounds()}
        absent = {*(ClipCompare.gives if plan.clip is None else ()), *(("unexplained",) if chosen.endpoint else ())}
        asked |= bound & absent
    if asked:
        raise SettingError(
            f"nobody measures {', '.join(sorted(asked))}",
            expected="bounds on what is measured",
            fix="have it measured, by --text, --aesthetic, --suitable or --clip, or leave its bounds out",
        )


def editor_of(text: str) -> PictureEditor:
    """One of EDITORS. Raises SettingError."""
    kind, _, rest = text.partition(":")
    if text.startswith(("http://", "https://")):
        return HttpEditor(text)
    named = {"drawn": DrawnEditor(), "faults": ManyFaults(), "sloppy": ManyFaults(SLOPPY, "drawn, sloppy")}
    if text in named:
        return named[text]
    if kind == "drawn" and rest in FAULTS:
        return DrawnEditor(rest)
    if kind == "lab":
        return LabEditor(rest or "tiny")
    if rest and kind.isidentifier() and kind not in named:
        return DiffusersEditor(kind, rest)
    raise SettingError(f"unknown editor {text!r}", expected=EDITORS, fix="name one; faults: " + ", ".join(FAULTS))


def _client(chosen: argparse.Namespace) -> Client | None:
    if bool(chosen.endpoint) != bool(chosen.endpoint_model):
        raise SettingError(
            "an endpoint is its address and a model there", expected="--endpoint and --endpoint-model", fix="name both"
        )
    if not chosen.endpoint:
        return None
    return client_from_environment(chosen.endpoint, chosen.endpoint_model, chosen.output / "answers")


def _models(chosen: argparse.Namespace, client: Client | None, drawn: bool) -> tuple[Describer, Writer]:
    categories = tuple(dict.fromkeys(chosen.categories))
    if client:
        return EndpointDescriber(client), EndpointWriter(client, categories, chosen.rounds)
    if not drawn and chosen.until not in ("measure", "curate"):
        raise SettingError(
            "photographs can be described by a language model only",
            expected="--endpoint and --endpoint-model, or --until curate",
            fix="name a server, or stop after curation; --preset drawn is for pictures of the drawn world",
        )
    careless = DrawnWriter.careless if chosen.careless is None else chosen.careless
    return DrawnDescriber(), DrawnWriter(categories, chosen.rounds, careless)

"""Data sets in every schema and form, benchmarks' folders, and sources of pictures, with anything in their cells."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageChops

from editmgt_lab.benchmarks import AnyBench, EmuEdit, GEdit, MagicBrush, run
from editmgt_lab.benchmarks.edits import open_row
from editmgt_lab.crisp.curate.decode import decoded
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.data.pairs import SCHEMAS, PairReader
from editmgt_lab.errors import LabError
from editmgt_lab.metrics.measures import Tools

from ..bench import INSTRUCTION, SECRET, Bench
from ..case import Kind, Wrong, owed
from ..values import damaged, damages, json_value, real, text
from .pictures import FORMATS, MODES, difference, encoded

FORMS = ("parquet", "arrow", "stream", "jsonl", "json")
BY_NAME = ("jsonl", "json", "plain")  # of pictures that lie beside them
PATHS = ("../secret.png", "@secret", "link.png", "source/../../secret.png", "~/secret.png", "file:///etc/passwd",
    "/dev/zero",
         "http://127.0.0.1:1/x.png", "s3://x/y.png", "a.png", "A.PNG", "a.png\0", ".", "", "x" * 300)  # fmt: skip
BENCHMARKS = {"emu": EmuEdit, "magicbrush": MagicBrush, "anybench": AnyBench, "gedit": GEdit}
COLUMNS = {
    **{name: (each.source, each.target, each.instruction, each.category or "x") for name, each in SCHEMAS.items()},
    "emu": ("image", "edited_image", "instruction", "task", "idx", "hash", "input_caption", "output_caption"),
    "gedit": ("input_image", "input_image_raw", "instruction", "task_type", "key", "instruction_language",
    "Intersection_exist"),
    "magicbrush": ("source_img", "target_img", "instruction", "x", "img_id", "turn_index", "mask_img"),
    "anybench": ("image_file", "edited_file", "edit_instruction", "edit_type", "image_id", "input", "output"),
}  # fmt: skip
FILES = ("test-00000-of-00001", "train-00000-of-00001", "dev-00000-of-00001", "validation-00000-of-00001", "x")
DESCRIPTIONS = ("local_descriptions.json", "global_descriptions.json")
SPLITS = {"emu": 0, "magicbrush": 2, "anybench": 3}  # of FILES
ROWS = 2


def inverted() -> bytes:
    stream = io.BytesIO()
    ImageChops.invert(Bench.picture()).save(stream, "PNG")
    return stream.getvalue()


PICTURES = {"a.png": lambda: encoded("PNG", "RGB", 32, 32), "b.png": inverted}  # source and target


def make_set(dice: random.Random) -> Any:
    schema = dice.choice(list(SCHEMAS))
    recipe = table(dice, schema)
    if schema == "folder":
        recipe["form"] = "plain"
    elif dice.random() < 0.1:
        recipe["split"] = dice.choice(FILES)
    if dice.random() < 0.2:
        recipe["options"] = dice.choice(
            ({"schema": "magicbrush"}, {"split": "test"}, {"split": text(dice)}, {"limit": 1})
        )
    if dice.random() < 0.2:
        recipe["source"] = dice.choice(("tar", "files", "table"))
    return recipe


def make_benchmark(dice: random.Random) -> Any:
    recipe = table(dice, dice.choice(list(BENCHMARKS)))
    if recipe["form"] in BY_NAME and dice.random() < 0.8:  # which a benchmark's rows have no pictures by
        recipe["form"] = dice.choice(FORMS[:3])
    if recipe["schema"] in ("magicbrush", "anybench") and dice.random() < 0.4:
        recipe["form"] = "zip"
    recipe["run"] = dice.random() < 0.4
    if recipe["run"] and dice.random() < 0.4:
        recipe["journal"] = [dice.choice(("rows.jsonl", "settings.json")), damages(dice)]
    return recipe


def table(dice: random.Random, schema: str) -> dict[str, Any]:
    changes = []
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        column = dice.choice((*COLUMNS[schema], *COLUMNS[schema][:2] * 2))
        value = dice.choice((json_value(dice), text(dice), dice.choice(PATHS), dice.choice(PATHS[:4]), {"bytes": None,
            "path": dice.choice(PATHS)}, "gone",
                             {"picture": [dice.choice(FORMATS), dice.choice(MODES), damages(dice)]}))  # fmt: skip
        changes.append([dice.randrange(ROWS), column, value])
    recipe: dict[str, Any] = {"schema": schema, "form": dice.choice(FORMS), "changes": changes}
    if dice.random() < 0.35:
        recipe["damages"] = damages(dice)
    if dice.random() < 0.2:
        recipe["whole"] = json_value(dice)
    if dice.random() < 0.1:
        recipe["beside"] = [
            dice.choice((*FILES, dice.choice(("a b", "ä", "train-00000-of-00002", ".x", "x~")))),
            json_value(dice),
        ]
    return recipe


def rows_of(recipe: Any, bench: Bench, *, pictures: bool) -> list[Any]:
    """Good rows with the recipe's changes. pictures: as bytes, else as the names of files."""
    schema = recipe["schema"]
    source, target, instruction, category, *_ = COLUMNS[schema]
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        files: list[Any] = list(PICTURES)
        if pictures:
            files = [{"bytes": content(), "path": None} for content in PICTURES.values()]
        row = dict(zip((source, target), files, strict=True)) | {instruction: INSTRUCTION, category: "add"}
        row |= {
            "emu": {"idx": number, "hash": "h"}, "gedit": {"key": f"k{number}", "instruction_language": "en",
            "task_type": "ps_human", "input_image_raw": files[0]},
            "magicbrush": {"img_id": "i", "turn_index": number + 1}, "anybench": {"image_id": f"p{number}"},
        }.get(schema, {})  # fmt: skip
        rows.append(row)
    for place, column, value in recipe.get("changes", []):
        rows[place % ROWS].pop(column, None)
        if value == "gone":
            continue
        if isinstance(value, dict) and value.keys() == {"picture"}:
            form, mode, what = value["picture"]
            value = {"bytes": damaged(encoded(form, mode, 32, 32), what), "path": None} if pictures else "a.png"
        rows[place % ROWS][column] = str(bench.secret) if value == "@secret" else real(value)
    return rows


def write(folder: Path, recipe: Any, bench: Bench, split: str = FILES[1]) -> None:
    """The data set in its form, the tables' file under this name."""
    form = recipe["form"]
    if form in ("plain", "zip"):
        write_plain(folder, recipe, rows_of(recipe, bench, pictures=False))
        return
    rows = recipe.get("whole", rows_of(recipe, bench, pictures=form not in ("json", "jsonl")))
    file = folder / "data" / f"{split}.{'arrow' if form == 'stream' else form}"
    file.parent.mkdir()
    try:
        content = packed(rows, form)
    except (pa.ArrowException, AttributeError, KeyError, OverflowError, TypeError, ValueError):
        content = json.dumps(rows, default=str).encode("utf-8", "replace")  # what no column holds
    file.write_bytes(damaged(content, recipe.get("damages", [])))
    put_pictures(folder)
    if "beside" in recipe:
        name, value = recipe["beside"]
        (folder / f"{name or 'x'}.jsonl").write_text(json.dumps(value))


def packed(rows: Any, form: str) -> bytes:
    if form in ("json", "jsonl"):
        text = (
            json.dumps(rows)
            if form == "json"
            else "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows]))
        )
        return text.encode()
    made, stream = pa.Table.from_pylist(rows), io.BytesIO()
    if form == "parquet":
        pq.write_table(made, stream)
    else:
        with (pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream)(stream, made.schema) as writer:
            writer.write_table(made)
    return stream.getvalue()


def put_pictures(folder: Path) -> None:
    for part in ("", "source", "target", "images/i", "add"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, content in PICTURES.items():
            (folder / part / name).write_bytes(content())
        (folder / part / "link.png").symlink_to(folder.parent / "secret.png")


def write_plain(folder: Path, recipe: Any, rows: list[Any]) -> None:
    """The plain folder, and the benchmarks' zips unpacked."""
    put_pictures(folder)
    schema = recipe["schema"]
    if schema == "folder":
        name, content = "edits.jsonl", "\n".join(map(json.dumps, rows))
    elif schema == "magicbrush":
        names = {"source_img": "input", "target_img": "output", "mask_img": "mask"}
        turns = [{names.get(key, key): value for key, value in row.items()} for row in rows]
        key = next((str(row["img_id"]) for row in rows if row.get("img_id", "i") != "i"), "i")
        name, content = "edit_sessions.json", json.dumps(recipe.get("whole", {key: turns}))
        if "beside" in recipe:
            (folder / DESCRIPTIONS[len(turns) % 2]).write_text(json.dumps(recipe["beside"][1]))
    else:
        name, content = "add/edit_result.json", json.dumps(recipe.get("whole", rows))
    (folder / name).write_bytes(damaged(content.encode("utf-8", "surrogatepass"), recipe.get("damages", [])))


def due(recipe: Any) -> int:
    """How many good rows of a data set have to be found, whatever is wrong with others."""
    changes = recipe.get("changes", [])
    if recipe.keys() & {"damages", "whole", "beside", "options", "split", "source"}:
        return 0
    if changes and (recipe["form"] not in BY_NAME or any(value == "gone" for _, _, value in changes)):
        return 0  # a column has one type, and the first row says what columns there are
    return ROWS - len({place % ROWS for place, _, _ in changes})


def is_good(source: Image.Image, target: Image.Image | None) -> bool:
    known = Bench.picture()
    return not difference(source, known) and not (target and difference(target, ImageChops.invert(known)))


def secret(image: Image.Image | None) -> bool:
    """Whether a picture is the one outside the folder, or its negative."""
    if image is None or image.size != (32, 32):
        return False
    return image.convert("RGB").getpixel((16, 16)) in (SECRET, tuple(255 - value for value in SECRET))


def run_set(recipe: Any, bench: Bench) -> None:
    with bench.folder() as root:
        folder = root / "set"
        folder.mkdir()
        (root / "secret.png").write_bytes(bench.secret.read_bytes())
        if "source" in recipe:
            run_source(recipe, folder, bench)
            return
        write(folder, recipe, bench, recipe.get("split", FILES[1]))
        options = {name: real(value) for name, value in recipe.get("options", {}).items()}
        with owed(due(recipe) > 0):
            pairs = list(PairReader(folder, **options))
    if not pairs or any(pair.source.mode != "RGB" or not pair.instruction.strip() for pair in pairs):
        raise Wrong("a pair that is none")
    if any(secret(picture) for pair in pairs for picture in (pair.source, pair.target)):
        raise Wrong("a picture outside the folder was read")
    good = sum(is_good(pair.source, pair.target) and pair.instruction == INSTRUCTION for pair in pairs)
    if good < due(recipe):
        raise Wrong(f"{good} of {due(recipe)} good rows are right")


def run_source(recipe: Any, folder: Path, bench: Bench) -> None:
    """The pipeline's sources: a folder of files, a webdataset, a table."""
    if recipe["source"] == "tar":
        with tarfile.open(folder / "x.tar", "w") as tar:
            for place, column, value in recipe.get("changes", []):
                member = tarfile.TarInfo(
                    (str(value) if value in PATHS else f"{column}.png").replace("\0", "") or "x.png"
                )
                member.size = len(content := encoded("PNG", "RGB", 32, 32))
                if place:
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, "../secret.png", 0
                tar.addfile(member, io.BytesIO(content))
        (folder / "x.tar").write_bytes(damaged((folder / "x.tar").read_bytes(), recipe.get("damages", [])))
    elif recipe["source"] == "files":
        put_pictures(folder)
        (folder / "a.png").write_bytes(damaged(encoded("PNG", "RGB", 32, 32), recipe.get("damages", [])))
    else:
        write(folder, recipe | {"form": "parquet" if recipe["form"] == "plain" else recipe["form"]}, bench)
    for shard in Source(str(folder)).shards():
        for row in shard.read():
            if row["bytes"] is None:
                continue
            try:
                picture, *_ = decoded(row["bytes"])
            except LabError:
                continue  # which the pipeline counts
            if secret(picture):
                raise Wrong("a picture outside the folder was read")


def run_benchmark(recipe: Any, bench: Bench) -> None:
    benchmark, schema = BENCHMARKS[recipe["schema"]](), recipe["schema"]
    wanted = 0 if recipe.get("changes") or recipe["form"] in BY_NAME else due(recipe)
    with bench.folder() as root:
        data, out = root / "set", root / "out"
        data.mkdir()
        (root / "secret.png").write_bytes(bench.secret.read_bytes())
        write(data, recipe, bench, FILES[SPLITS.get(schema, 1)])
        with owed(wanted > 0 and "journal" not in recipe):
            found = run_whole(benchmark, data, out, recipe) if recipe.get("run") else opened_rows(benchmark, data)
        outside = {path.name for path in root.iterdir()} - {"set", "out", "secret.png"}
    if outside:
        raise Wrong(f"it wrote outside its folder: {outside}")
    if any(secret(picture) for picture in found):
        raise Wrong("a picture outside the folder was read")
    if (good := sum(is_good(picture, None) for picture in found)) < wanted:
        raise Wrong(f"{good} of {wanted} good rows are right")


def opened_rows(benchmark: Any, data: Path) -> list[Image.Image]:
    """All pictures of the rows that can be opened."""
    found = []
    for row in benchmark.rows(data):
        try:
            opened = open_row(row)
        except LabError:
            continue  # which the run counts
        found += [picture for picture in (opened.source, opened.target, opened.mask) if picture is not None]
    return found


def run_whole(benchmark: Any, data: Path, out: Path, recipe: Any) -> list[Image.Image]:
    """All pictures that the run writes, those of the answer inverted once more, as the sources were."""

    def do() -> None:
        run(benchmark, data, {"invert": lambda source, *_: ImageChops.invert(source)}, out,
            tools=Tools(), progress=False)  # fmt: skip

    do()
    if "journal" in recipe:
        name, what = recipe["journal"]
        (out / name).write_bytes(damaged((out / name).read_bytes(), what))
        do()
    files = [file for file in out.rglob("*.png") if file.is_file()]
    written = {file: Image.open(io.BytesIO(file.read_bytes())).convert("RGB") for file in files}
    return [ImageChops.invert(each) if "invert" in file.parts else each for file, each in written.items()]


KINDS = {"data sets": Kind(make_set, run_set, 8), "benchmarks": Kind(make_benchmark, run_benchmark, 4)}

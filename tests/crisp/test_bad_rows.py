"""A bad row of every kind through the whole command: each is counted with its reason, and stops nothing."""

import io
import json

import pyarrow as pa
import pytest
from PIL import Image

from editmgt_lab.crisp.__main__ import main
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.crisp.drawn.models import DrawnDescriber
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Shard
from editmgt_lab.crisp.instruct.operators import CheckCaption
from editmgt_lab.errors import DataError, SettingError
from editmgt_lab.world import BACKGROUNDS, KINDS, PLACES, Item, Scene, render
from tests.crisp.drawn_server import served
from tests.support.parquet import IMAGE, column, png, write

SCHEMA = [("image", IMAGE), ("text", pa.string())]


def drawn(background, colour="red"):
    """A ball and something else, at other places on every background, or the pictures would be near duplicates."""
    number = [*BACKGROUNDS].index(background)
    other = Item(KINDS[1 + number], "yellow", PLACES[(number + 4) % 9], "big")
    return render(Scene(background, (Item("ball", colour, PLACES[number % 9], "big"), other)), 64)


def as_file(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


# What came → (its picture's bytes, its caption, the stage that drops it, the reason); None: it is not dropped.
ROWS = {
    "good": (png(drawn("meadow")), "a red ball on a meadow", None, None),
    "without a caption": (png(drawn("wood")), None, None, None),
    "CMYK": (as_file(drawn("forest", "orange").convert("CMYK"), "TIFF"), "forest, big orange ball", None, None),
    "animated": (
        as_file(drawn("desert"), "PNG", save_all=True, append_images=[drawn("desert", "blue")], duration=100),
        "desert, big red ball", None, None,
    ),
    "no picture": (None, "a red ball", "measure", "there is no picture"),
    "1 px": (png(Image.new("RGB", (1, 1))), "a red ball", "curate", "short side too low"),
    "100 megapixels": (as_file(Image.new("1", (10000, 10000)), "PNG"), None, "measure", "size too high"),
    "truncated": (png(drawn("brick"))[:1000], None, "measure", "the picture cannot be opened"),
    "no file of a picture": (b"<html>404</html>", None, "measure", "the picture cannot be opened"),
    "contradicted": (png(drawn("sky")), "a blue cat", "describe", "the caption contradicts the picture"),
    "another colour": (png(drawn("beach")), "beach, green ball", "describe", "the caption contradicts the picture"),
    "Chinese": (png(drawn("snow")), "一个红球", "instruct", "the instruction is in another script"),
    "Arabic": (png(drawn("sea")), "sea", "instruct", "the instruction is in another script"),
    "emoji": (png(drawn("night")), "", "instruct", "the instruction is in another script"),
}  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    DrawnDescriber().describe(drawn("meadow"))  # what a reader draws once, before eight threads would at a time
    rows = [{"image": column(content), "text": said} for content, said, _, _ in ROWS.values()]
    write(folder / "table" / "rows.parquet", SCHEMA, rows)
    with served() as address:
        arguments = [str(folder / "table"), "--preset", "drawn", "--caption", "text", "--editor", "drawn",
                     "--endpoint", address, "--endpoint-model", "drawn", "--output", str(folder)]  # fmt: skip
        assert main([*arguments, "--rounds", "1", "--categories", "color"]) == 0
    return folder


def rows_of(folder, *, dropped):
    store = Store(folder / "shards")
    stages = json.loads((folder / "shards" / "manifest.json").read_text())
    for stage in stages:
        for shard in stage["shards"]:
            for row in store.rows(Shard(**shard), dropped=dropped):
                yield stage["stage"], row


def test_each_bad_row_is_dropped_where_it_should_be_with_its_reason(output):
    names = {f"rows.parquet#{number}": name for number, name in enumerate(ROWS)}
    lost = {}
    for stage, row in rows_of(output, dropped=True):
        if stage != "pick":  # where the second of two equal candidates goes
            lost[names[row["origin"]]] = (stage, row["reason"])
    assert lost == {name: (stage, reason) for name, (_, _, stage, reason) in ROWS.items() if stage}
    passed = {names[row["origin"]] for stage, row in rows_of(output, dropped=False) if stage == "assure"}
    assert passed == {name for name, row in ROWS.items() if row[2] is None}


def test_the_numbers_and_the_card_count_them(output):
    told = json.loads((output / "crisp.json").read_text())
    reasons = {each["stage"]: each["reasons"] for each in told["funnel"]}
    for stage in ("measure", "curate", "describe", "instruct"):
        wanted = [reason for _, _, where, reason in ROWS.values() if where == stage]
        assert reasons[stage] == {reason: wanted.count(reason) for reason in wanted}
    card = (output / "dataset" / "README.md").read_text()
    assert "1 × CMYK → RGB" in card and "first of 2 frames" in card
    assert told["statistics"]["rows"] == sum(row[2] is None for row in ROWS.values())


@pytest.mark.parametrize(
    ("said", "absent"),
    [
        ("a big red ball", []),
        ("meadow, Red Ball center", []),
        ("a happy afternoon", []),
        ("a kite and a ball", ["kite"]),
        ("green ball on the beach", ["beach", "green ball"]),
        ("footballs", []),
    ],
)
def test_a_caption_is_held_against_what_is_seen(said, absent):
    assert DrawnDescriber().absent(drawn("meadow"), said) == absent
    answer = CheckCaption(DrawnDescriber()).answer({"picture": png(drawn("meadow")), "given": said})
    assert bool(answer["error"]) == bool(absent) and all(name in answer["error"]["problem"] for name in absent)


def test_captions_are_columns_of_tables(tmp_path):
    write(tmp_path / "a.parquet", SCHEMA, [{"image": column(drawn("sea")), "text": "sea"}])
    ((row,),) = [shard.read() for shard in Source(str(tmp_path), caption="text").shards()]
    assert row["given"] == "sea"
    keys = {next(Source(str(tmp_path), caption=name).shards()).key for name in ("text", None)}
    assert len(keys) == 2
    with pytest.raises(DataError, match="has the columns image, text"):
        [*Source(str(tmp_path), caption="words").shards()]
    (tmp_path / "folder").mkdir()
    drawn("sea").save(tmp_path / "folder" / "a.png")
    with pytest.raises(SettingError, match="no table, and has no captions"):
        [*Source(str(tmp_path / "folder"), caption="text").shards()]
    with pytest.raises(SettingError, match="no table, and has no pictures in 'image'"):
        [*Source(str(tmp_path / "folder"), column="image").shards()]
    for wrong, told in (({"rows": 0}, "shards of 0 pictures"), ({"limit": 0}, "0 pictures"), ({"limit": -1}, "-1")):
        with pytest.raises(SettingError, match=told):
            Source(str(tmp_path), **wrong)

"""The whole pipeline on drawn pictures: what comes out, what was dropped and why, and that it is the same again."""

import io
import json
import shutil
import zlib
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from editmgt_lab.crisp import options
from editmgt_lab.crisp.__main__ import main
from editmgt_lab.crisp.assure import rules
from editmgt_lab.crisp.assure.measures import Boxes, ClipCompare, alignment, direction, pixel_changes
from editmgt_lab.crisp.bounds import Bounds
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.crisp.drawn.choose import best_lower_bound, choose_bounds
from editmgt_lab.crisp.drawn.editors import DrawnEditor, ManyFaults
from editmgt_lab.crisp.drawn.models import DrawnJudge
from editmgt_lab.crisp.drawn.pictures import GOOD, draw, read_truth
from editmgt_lab.crisp.drawn.table import WATCHED, hold_against_truth
from editmgt_lab.crisp.edit.editors import DiffusersEditor, HttpEditor, LabEditor
from editmgt_lab.crisp.edit.judge import TIE, Pick, Scores
from editmgt_lab.crisp.instruct.captions import Caption, Request, Thing
from editmgt_lab.crisp.models.http import Patience
from editmgt_lab.crisp.pipeline import STAGES, run
from editmgt_lab.crisp.results.card import card, funnel, funnel_figure, refinement, summary
from editmgt_lab.crisp.results.publish import publish
from editmgt_lab.crisp.results.statistics import Statistics, statistics
from editmgt_lab.crisp.results.statistics import main as statistics_main
from editmgt_lab.data.pairs import PairReader
from editmgt_lab.errors import DataError, EndpointError, SettingError
from editmgt_lab.world import CATEGORIES, render, sample_scene

COUNT = 70  # pictures: two shards


def plan(*arguments):
    return options.plan_of(options.parser().parse_args(arguments))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    draw(folder, COUNT, split="validation", size=64, progress=False)
    return folder


@pytest.fixture(scope="module")
def made(world, daft):
    return run(Source(str(world / "pictures")), plan(), world / "shards", progress=False)


@pytest.fixture(scope="module")
def published(made, world):
    return publish(made, world, progress=False)


def test_no_row_is_lost_between_stages(made):
    counts = made.counts()
    assert tuple(counts) == STAGES and counts["measure"]["came"] == COUNT
    for name, stage in counts.items():
        assert stage["kept"] + stage["dropped"] >= stage["came"], name
    one_to_one = [name for name in STAGES if name not in ("instruct", "edit")]
    assert all(counts[name]["kept"] + counts[name]["dropped"] == counts[name]["came"] for name in one_to_one)
    for before, after in zip(STAGES, STAGES[1:], strict=False):
        assert counts[after]["came"] == counts[before]["kept"]
    assert counts["pick"]["kept"] == counts["instruct"]["kept"]  # one edit for every instruction
    assert counts["assure"]["kept"] > 20
    ids = [row["id"] for stage in ("pick", "assure") for row in made.rows(stage)]
    assert len({*ids}) * 1 == counts["pick"]["kept"]


def test_the_bad_pictures_do_not_come_through(made, world):
    truths = read_truth(world)
    assert {truths[row["origin"]]["kind"] for row in made.rows("curate")} == {GOOD}
    dropped = [row for stage in ("measure", "curate") for row in made.rows(stage, dropped=True)]
    assert dropped and all(row["reason"] and row["problem"] and json.loads(row["verdicts"]) for row in dropped)


def test_stage_4_keeps_the_good_and_drops_the_bad_and_chance_does_neither(made, world):
    found = hold_against_truth(made, world, progress=False)
    filters = {(each.stage, each.name): each for each in found.filters}
    whole = filters["assure", "all"]
    assert whole.good > 20 and whole.bad > 20
    assert whole.recall >= 0.9 and whole.bad_kept <= 0.1
    chance = [whole.control_good / whole.good, whole.control_bad / whole.bad]
    assert abs(chance[0] - chance[1]) < 0.3 and min(chance) > 0.2
    assert filters["instruct", "all"].recall >= 0.9 and filters["instruct", "all"].bad_kept <= 0.1
    assert filters["curate", "all"].recall >= 0.9 and filters["curate", "all"].bad_kept <= 0.1
    pairs, right = found.picks
    assert pairs >= 15 and right / pairs >= 0.85
    assert found.faults["none"][1] > 0 and found.faults["nothing"][1] == 0
    assert "the judge prefers" in found.table() and json.dumps(found.to_dict())
    single = [each for each in found.filters if each.stage == "assure" and each.name != "all"]
    assert not {"clip_alignment", "clip_direction"} & {each.name for each in single}
    assert max(each.bad_kept for each in single) > whole.bad_kept  # no rule does it alone


def test_an_embedding_is_watched_and_drops_nothing(made, world):
    rows = [*made.rows("assure"), *made.rows("assure", dropped=True)]
    assert all(-1 <= row[name] <= 1 for row in rows for name in ("clip_alignment", "clip_direction"))
    assert not any("CLIP" in row["problem"] for row in made.rows("assure", dropped=True))
    filters = {
        each.name: each for each in hold_against_truth(made, world, progress=False).filters if each.stage == WATCHED
    }
    assert set(filters) == {"clip_alignment", "clip_direction"}
    way = filters["clip_direction"]
    assert way.kept_good / way.good > way.kept_bad / way.bad + 0.3, "it tells them apart"
    assert way.control_good / way.good < way.kept_good / way.good


def test_which_clip_is_asked():
    assert plan().clip == "tiny" and plan().watched == rules.DRAWN_CLIP
    assert plan("--clip", "none").clip is None and not plan("--clip", "none").watched
    assert not plan("--clip", "some/folder").watched, "its bounds would be others"
    assert plan("photographs", "--until", "curate").clip is None
    operators = plan().stages()["assure"].operators
    assert [each.name for each in operators] == ["compare", "clip", "assure"]
    assert ClipCompare("tiny").stamp and ClipCompare("tiny") != ClipCompare("tiny", stamp="other weights")
    assert not {"clip_alignment", "clip_direction"} & {name for of in plan().bounds.values() for name in of}


def test_the_best_lower_bound_parts_the_good_from_the_bad():
    assert best_lower_bound([0.1, 0.2, 0.5, 0.6], [False, False, True, True]).low == 0.5
    alike = best_lower_bound([0.1, 0.3, 0.2, 0.4], [False, False, True, True])
    assert alike.low == 0.2, "of two that part them as well the one that keeps more"
    assert best_lower_bound([0.1, 0.2], [True, True]) is None
    rows = [({"type": "add", "clip_direction": value}, SimpleNamespace(good=value > 0.4)) for value in (0.1, 0.3, 0.5)]
    (bounds,) = choose_bounds(rows).values()
    assert set(bounds) == {"clip_direction"} and 0.3 < bounds["clip_direction"].low <= 0.5


def test_a_second_run_makes_nothing_and_another_bound_only_the_last_stage(made, world):
    again = run(Source(str(world / "pictures")), plan(), world / "shards", progress=False)
    assert again.shards == made.shards
    bounds = {name: of | {"whole": Bounds(high=0.0)} for name, of in rules.DRAWN.items()}
    strict = run(Source(str(world / "pictures")), replace(plan(), bounds=bounds), world / "shards", progress=False)
    assert all(strict.shards[name] == made.shards[name] for name in STAGES[:-1])
    assert strict.counts()["assure"]["kept"] == 0
    with pytest.raises(DataError, match="no edit passed"):
        publish(strict, world / "nothing", progress=False)


def test_pictures_added_behind_leave_the_shards_before_them(made, world, tmp_path):
    shutil.copytree(world / "pictures", tmp_path / "pictures")
    more = draw(tmp_path, COUNT + 10, split="validation", size=64, progress=False)
    with pytest.raises(SettingError, match="unknown until 'curation'"):
        run(Source(str(more)), plan(), world / "shards", until="curation", progress=False)
    found = run(Source(str(more)), plan(), world / "shards", until="curate", progress=False)
    assert found.counts()["measure"]["came"] == COUNT + 10
    (first, last), (kept, changed) = made.shards["curate"], found.shards["curate"]
    assert kept == first and changed != last


def test_a_picture_that_is_dropped_takes_none_with_it(tmp_path):
    scene = render(sample_scene(3, split="validation"), 256)
    (tmp_path / "pictures").mkdir()
    scene.resize((48, 48)).save(tmp_path / "pictures" / "a_thumb.png")
    for name in ("b.png", "c.png"):
        scene.save(tmp_path / "pictures" / name)
    found = run(Source(str(tmp_path / "pictures")), plan(), tmp_path / "shards [1]", until="curate", progress=False)
    assert [row["origin"] for row in found.rows("curate")] == ["b.png"]
    reasons = {row["origin"]: row["problem"] for row in found.rows("curate", dropped=True)}
    assert "short side too low" in reasons["a_thumb.png"] and "earlier picture" in reasons["c.png"]


def test_a_shard_without_a_picture_that_opens_stops_nothing(world, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    shutil.copy(next((world / "pictures").glob("*.png")), tmp_path / "b.png")
    found = run(Source(str(tmp_path), rows=1), plan(), tmp_path / "shards", until="curate", progress=False)
    assert [shard.came for shard in found.shards["curate"]] == [0, 1]


def test_the_data_set_is_read_as_it_is(made, published):
    dataset, _ = published
    reader = PairReader(dataset)
    pairs = list(reader)
    assert reader.schema == "crispedit" and len(pairs) == made.counts()["assure"]["kept"]
    assert not reader.report.skipped and not reader.report.files
    rows = {(row["instruction"], row["type"]) for row in made.rows("assure")}
    assert {(pair.instruction, pair.category) for pair in pairs} == rows
    assert {path.name.rpartition("_")[0] for path in dataset.glob("*.parquet")} == {row[1] for row in rows}


def test_losers_say_which_rule_and_by_how_much(made, published):
    _, losers = published
    rows = [row for path in sorted(losers.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    won = {row["instruction_id"]: row["output"] for row in made.rows("assure", pictures=("output",))}
    lost = [r for stage in ("pick", "assure") for r in made.rows(stage, dropped=True, pictures=("output",))]
    lost = [row for row in lost if not row["reason"].startswith("error in") and row["reason"] != TIE]
    assert 0 < len(rows) == sum(row["output"] != won.get(row["instruction_id"]) for row in lost)
    assert all(row["output_img"] != row["chosen_img"] for row in rows)
    assert all(row["rule"] and row["stage"] in ("pick", "assure") for row in rows)
    measured = [row for row in rows if row["by"] is not None]
    assert all(row["by"] == pytest.approx(abs(row["value"] - row["bound"])) for row in measured)
    assured = [row for row in rows if row["stage"] == "assure"]
    assert assured and all(row["chosen_img"] is None for row in assured)
    assert any(row["chosen_img"] for row in rows)
    pair = next(row for row in rows if row["chosen_img"])
    sizes = {Image.open(io.BytesIO(pair[name]["bytes"])).size for name in ("input_img", "output_img", "chosen_img")}
    assert sizes == {(64, 64)}


def test_the_card_and_the_funnel_tell_what_the_tables_hold(made, published):
    told = statistics(published[0], progress=False)
    text = card(made, told, findings="the findings")
    assert f"# {told.rows} edits" in text and "the findings" in text and "another candidate is better" in text
    stages = {each["stage"]: each for each in funnel(made)}
    assert sum(stages["assure"]["reasons"].values()) == stages["assure"]["dropped"]
    assert funnel_figure(made).axes and len(refinement(made)) == 3
    assert json.dumps(summary(made, told), allow_nan=False)


def test_statistics_of_a_published_set(published, tmp_path, capsys):
    told = statistics(published[0], progress=False)
    assert told.long_sides == {64: told.rows} and told.unreadable == 0 == told.sizes_differ
    assert sum(told.categories.values()) == told.rows and told.intervals() == [(64, 65, told.rows)]
    assert statistics_main([str(published[0]), "--output", str(tmp_path), "--limit", "5"]) == 0
    assert "5 pairs" in capsys.readouterr().out and (tmp_path / "statistics.png").exists()
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="has the columns a"):
        statistics(tmp_path / "x.jsonl", progress=False)


def test_intervals_of_the_long_side_hold_every_row():
    told = Statistics(6, 0, {"add": 6}, {1000: 1, 1279: 2, 1280: 2, 1799: 1})
    assert told.intervals() == [(1000, 1100, 1), (1100, 1200, 0), (1200, 1300, 4), (1300, 1400, 0), (1400, 1500, 0),
                                 (1500, 1600, 0), (1600, 1700, 0), (1700, 1800, 1)]  # fmt: skip
    assert len(told.figure().axes) == 2 and Statistics(0, 0, {}, {}).intervals() == []


def test_the_pick_is_the_best_of_each_instruction():
    rows = [{"id": f"{i}", "instruction_id": name, "overall": score, "success": 1.0, "reading": None}
            for i, (name, score) in enumerate([("a", 2.0), ("a", 7.0), ("b", 3.0), ("a", 7.0)])]  # fmt: skip
    kept = {row["id"]: error for row, error in Pick().choose(rows)}
    assert [name for name, error in kept.items() if not error] == ["1", "2"]
    assert json.loads(kept["0"]["verdicts"])[0]["by"] == 5.0
    assert kept["3"]["reason"] == TIE and json.loads(kept["3"]["verdicts"])[0]["by"] is None
    rows[1]["success"] = 2.0
    kept = {row["id"]: error for row, error in Pick().choose(rows)}
    (verdict,) = json.loads(kept["3"]["verdicts"])
    assert verdict["rule"] == "another candidate is better" and verdict["unit"] == "of 10 for success"
    assert (verdict["value"], verdict["bound"], verdict["by"]) == (1.0, 2.0, 1.0)


@dataclass(frozen=True)
class Alike:
    """A judge to whom every edit is as good as every other."""

    def judge(self, source, output, caption, request):
        return Scores(8.0, 8.0, 8.0)


def test_a_tie_is_no_preference(world, tmp_path):
    mine = replace(plan(), judge=Alike())
    found = run(Source(str(world / "pictures"), limit=12), mine, tmp_path, progress=False)
    assert {row["reason"] for row in found.rows("pick", dropped=True)} == {TIE}
    _, losers = publish(found, tmp_path / "published", progress=False)
    rows = [row for path in losers.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert not any(row["stage"] == "pick" or row["chosen_img"] for row in rows)


def test_the_card_counts_the_conversions_that_are_published(tmp_path):
    """Of two instructions for one picture, one picture; of one that curation drops, none."""
    (tmp_path / "pictures").mkdir()
    scene = render(sample_scene(3, split="validation"), 64)
    scene.convert("RGBA").save(tmp_path / "pictures" / "a.png")
    scene.resize((20, 20)).convert("RGBA").save(tmp_path / "pictures" / "b.png")
    mine = plan("--editor", "drawn", "--careless", "0", "--clip", "none", "--instructions", "2")
    found = run(Source(str(tmp_path / "pictures")), mine, tmp_path / "shards", progress=False)
    assert [row["note"] for row in found.rows("measure")] == ["RGBA → RGB"] * 2
    told = statistics(publish(found, tmp_path / "published", progress=False)[0], progress=False)
    assert told.rows == 2 and "- 1 × RGBA → RGB\n" in card(found, told)


def test_measures_of_an_edit():
    red, blue = (Image.new("RGB", (64, 64), name) for name in ("red", "blue"))
    half = red.copy()
    half.paste(blue.crop((0, 0, 32, 64)), (0, 0))
    box = Thing("ball", ("red",), "left", (0.0, 0.0, 0.5, 1.0))
    before, after = Caption("snow", (box,)), Caption("snow", ())
    region = Boxes().region(red, before, Request("remove", "remove the ball", "ball", after))
    told = pixel_changes(red, half, region)
    assert told["inside"] == pytest.approx(2 / 3) and told["outside"] == 0 == told["worst"]
    assert told["whole"] == pytest.approx(1 / 3)
    elsewhere = pixel_changes(red, half, ~region)
    assert elsewhere["worst"] == pytest.approx(2 / 3) and elsewhere["inside"] == 0
    answer = {"background": "snow", "style": None, "things": [{**asdict(box), "box": [0.5, 1.0, 0.0, 0.0]}]}
    assert Caption.of(answer) == before, "two corners are a box, whichever comes first"
    everything = Boxes().region(red, before, Request("style", "…", None, replace(before, style="sepia")))
    assert everything.all() and pixel_changes(red, half, everything)["outside"] is None
    assert alignment(after, after) == 1 and alignment(before, after) == pytest.approx(2 / 3)
    assert direction(after, before, after) == 1 and direction(before, before, after) == 0


def test_bounds_are_data(tmp_path):
    path = tmp_path / "bounds.json"
    rules.save_bounds(rules.DRAWN, path)
    assert rules.load_bounds(path) == {name: dict(of) for name, of in rules.DRAWN.items()}
    path.write_text('{"add": {"beauty": [1, 2]}}')
    with pytest.raises(SettingError, match="bounds for beauty"):
        rules.load_bounds(path)
    path.write_text("{}")
    with pytest.raises(SettingError, match="holds no bounds"):
        rules.load_bounds(path)
    path.write_text('{"add": 3}')
    with pytest.raises(SettingError, match="holds no bounds"):
        rules.load_bounds(path)
    for pair in ('"12"', "[NaN, 1]", "[true, 2]", '["0.02", null]', "[1]", "[0, Infinity]"):
        path.write_text(f'{{"add": {{"outside": {pair}}}}}')
        with pytest.raises(SettingError):
            rules.load_bounds(path)
    path.write_text("[" * 100_000)
    with pytest.raises(SettingError, match="holds no bounds"):
        rules.load_bounds(path)
    for of in (rules.DRAWN, rules.PHOTOGRAPHS):
        assert {name for each in of.values() for name in each} <= {*rules.MEASURES}


@pytest.mark.parametrize("category", CATEGORIES)
def test_an_edit_of_a_photograph_that_was_not_made_is_dropped_without_clip(category):
    nothing = dict.fromkeys(("inside", "outside", "worst", "whole"), 0.0) | {"success": 0.0, "preservation": 10.0}
    done = nothing | {"inside": 0.3, "whole": 0.3, "success": 8.0}
    unjudged = done | {"success": None}
    for row, dropped in ((done, False), (unjudged, False), (nothing, True)):
        assert bool(rules.broken_after({"type": category} | row, rules.PHOTOGRAPHS)) == dropped


def test_our_own_editor_takes_part(tiny_folder, world, tmp_path):
    """The tiny editor of random weights makes rubbish: all of it is an edit, and none of it passes."""
    mine = replace(plan(), editors=((LabEditor(str(tiny_folder), steps=2), 1), (DrawnEditor(), 1)))
    found = run(Source(str(world / "pictures"), limit=6), mine, tmp_path, progress=False)
    assert {row["editor"] for row in found.rows("assure")} == {"drawn"}
    tried = {row["editor"] for dropped in (False, True) for row in found.rows("pick", dropped=dropped)}
    assert len(tried) == 2
    assert mine.editors[0][0] != LabEditor(str(tiny_folder), steps=2, stamp="other weights")


def test_an_editor_that_fails_costs_its_candidate(world, tmp_path):
    nobody = HttpEditor("http://127.0.0.1:9/edit", patience=Patience(attempts=1))
    mine = replace(plan(), editors=((nobody, 1), (DrawnEditor(), 1)))
    found = run(Source(str(world / "pictures"), limit=6), mine, tmp_path, progress=False)
    counts = found.counts()
    assert counts["edit"]["dropped"] == counts["instruct"]["kept"] == counts["pick"]["kept"] > 0
    assert all("gave no answer" in row["problem"] for row in found.rows("edit", dropped=True))


@dataclass(frozen=True)
class Sleepy:
    """A judge that does not answer about every other picture that it is asked of."""

    judged: DrawnJudge

    def judge(self, source, output, caption, request):
        if zlib.crc32(output.tobytes()) % 2:
            raise EndpointError("it sleeps", expected="a judge", fix="wake it")
        return self.judged.judge(source, output, caption, request)


def test_a_candidate_that_nobody_could_judge_is_no_loser(world, tmp_path):
    found = run(
        Source(str(world / "pictures"), limit=12), replace(plan(), judge=Sleepy(plan().judge)), tmp_path, progress=False
    )
    reasons = {row["reason"] for row in found.rows("pick", dropped=True)}
    assert "failure in judge" in reasons
    _, losers = publish(found, tmp_path / "published", progress=False)
    rows = [row for path in losers.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert rows and not any("judge" in row["rule"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--editor", "magic"], "unknown editor"),
        (["--editor", "drawn:sneeze"], "unknown editor"),
        (["--editor", "faults:drift"], "unknown editor"),
        (["--editor", "sloppy:x"], "unknown editor"),
        (["--editor", "Step1XEditPipeline:folder"], "no release of diffusers"),
        (["--editor", "NoSuchPipeline:folder"], "no pipeline NoSuchPipeline"),
        (["--editor", "faults", "--editor", "faults"], "a name of its own"),
        (["--endpoint", "http://localhost/v1"], "an address and a model|its address and a model"),
        (["--suitable"], "nobody to ask"),
        (["somewhere"], "a language model only"),
        (["--candidates", "0"], "0 candidates"),
        (["--instructions", "0"], "0 instructions"),
        (["--rule", "beauty=1:2"], "sets no rule"),
        (["--rule", "twin_bits=nan:"], "a bound of nan"),
        (["--endpoint", "http://[::1", "--endpoint-model", "m"], "is no address"),
        (["--careless", "2"], "careless 2.0"),
        (["--instructions", "8"], "8 instructions for a picture"),
        (["--instructions", "2", "--categories", "add", "add"], "so 1 of add"),
        (["PHOTOS", "--until", "curate", "--split", "test", "--size", "64"], "nobody hears --split, --size"),
        (["PHOTOS", "--until", "curate", "--careless", "0.9"], "nobody hears --careless"),
        (["--endpoint", "http://host/v1", "--endpoint-model", "m", "--careless", "0"], "nobody hears --careless"),
        (["PHOTOS", "--endpoint", "http://host/v1", "--endpoint-model", "m"], "nobody edits photographs"),
        (["--rule", "twin_bits=41:100"], "drops every picture"),
        (["--rule", "twin_bits=257:"], "drops every picture"),
        (["--aesthetic", "nowhere"], "holds no head.safetensors"),
        (["--rule", "text=:0.001"], "nobody measures text"),
        (["--rule", "suitable=1:", "--rule", "aesthetic=5:"], "nobody measures aesthetic, suitable"),
    ],
)
def test_wrong_settings_say_what_to_do(arguments, said, tmp_path):
    with pytest.raises(SettingError, match=said):
        plan(*arguments, "--output", str(tmp_path)).stages()


def test_a_category_named_twice_is_one():
    assert plan("--categories", "add", "color", "add").writer.categories == ("add", "color")


def test_photographs_may_be_described_without_an_editor(tmp_path):
    asked = ("PHOTOS", "--endpoint", "http://host/v1", "--endpoint-model", "m", "--output", str(tmp_path))
    assert plan(*asked, "--until", "instruct") and plan(*asked, "--editor", "http://host/edit")


def test_chosen_bounds_are_on_what_is_measured(tmp_path):
    endpoint = ("--endpoint", "http://host/v1", "--endpoint-model", "m", "--output", str(tmp_path))
    assert plan("--rule", "suitable=0.5:", "--rule", "twin_bits=10:", "--suitable", *endpoint).curation
    assert plan("--rule", "text=").curation["text"] == Bounds()
    path = tmp_path / "bounds.json"
    path.write_text('{"add": {"clip_alignment": [0.7, null], "outside": [null, 0.1], "clip_direction": [null, null]}}')
    assert plan("--bounds", str(path)).bounds
    with pytest.raises(SettingError, match="nobody measures clip_alignment\n"):
        plan("--bounds", str(path), "--clip", "none")
    assert plan("--bounds", str(path), *endpoint).bounds
    path.write_text('{"add": {"unexplained": [null, 0.1]}}')
    with pytest.raises(SettingError, match="nobody measures unexplained"):
        plan("--bounds", str(path), *endpoint)


def test_editors_are_named_on_the_command_line():
    assert options.editor_of("drawn") == DrawnEditor() and options.editor_of("faults") == ManyFaults()
    assert options.editor_of("drawn:half done") == DrawnEditor("half done")
    assert options.editor_of("lab") == LabEditor() and options.editor_of("lab:some/folder").model == "some/folder"
    assert options.editor_of("http://host/edit") == HttpEditor("http://host/edit")
    assert options.editor_of("FluxKontextPipeline:a/b") == DiffusersEditor("FluxKontextPipeline", "a/b")


def test_the_command_writes_everything_and_stops_where_it_is_told(tmp_path, capsys):
    arguments = ["--count", "12", "--output", str(tmp_path), "--split", "validation"]
    assert main([*arguments, "--until", "curate"]) == 0
    assert not (tmp_path / "dataset").exists() and "curate" in capsys.readouterr().out
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "assure" in said and "keeps of good" in said
    assert {path.name for path in tmp_path.iterdir()} >= {
        "dataset",
        "losers",
        "crisp.json",
        "funnel.png",
        "statistics.png",
    }
    assert "## The filters against the truth" in (tmp_path / "dataset" / "README.md").read_text()
    told = json.loads((tmp_path / "crisp.json").read_text())
    assert told["statistics"]["rows"] == told["funnel"][-1]["kept"] > 0
    assert main([str(tmp_path / "nowhere"), "--output", str(tmp_path), "--until", "curate"]) == 2
    assert "there is no data set" in capsys.readouterr().err


def test_an_output_in_the_source_is_refused(tmp_path, capsys, monkeypatch):
    """Its shards are tables, which a second run would take for the source."""
    render(sample_scene(3, split="validation"), 64).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for source, output in ((".", "outputs/crisp"), (str(tmp_path), "."), ("../" + tmp_path.name, "x/../y")):
        assert main([source, "--until", "curate", "--output", output]) == 2
        assert "lies in the source" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    beside = tmp_path.parent / f"{tmp_path.name} beside"
    assert main([".", "--until", "curate", "--output", str(beside)]) == 0 and (beside / "shards").is_dir()


@pytest.mark.parametrize("part", ["dataset", "losers", "shards", "answers", "dataset/deep", "linked"])
def test_a_source_in_a_folder_that_the_run_writes_is_refused(tmp_path, capsys, part):
    folder = tmp_path / "out" / part
    folder.mkdir(parents=True)
    render(sample_scene(3, split="validation"), 64).save(folder / "a.png")
    if part == "linked":
        (tmp_path / "out" / "dataset").symlink_to(folder)
    for source in (folder, folder / "a.png"):
        assert main([str(source), "--preset", "drawn", "--editor", "drawn", "--output", str(tmp_path / "out")]) == 2
        assert "lies in" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_the_numbers_of_a_single_edit_are_json(tmp_path):
    (tmp_path / "pictures").mkdir()
    render(sample_scene(3, split="validation"), 64).save(tmp_path / "pictures" / "a.png")
    arguments = ["--preset", "drawn", "--editor", "drawn", "--careless", "0", "--clip", "none"]
    assert main([str(tmp_path / "pictures"), *arguments, "--output", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "crisp.json").read_text(), parse_constant=pytest.fail)
    assert told["statistics"]["rows"] == 1
    assert [each["spread"] for each in told["rounds"]] == [None] * 3

"""Sizes and categories of any data set of edits, also of one that is damaged; and their two panels."""

import json

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from editmgt_lab.crisp.results.statistics import Statistics, main, statistics
from editmgt_lab.errors import DataError, SettingError
from tests.data.test_pairs import CRISP, crisp_row
from tests.support.parquet import write


def counted(source):
    return statistics(source, progress=False)


def test_a_damaged_file_costs_its_rows_alone(tmp_path, picture, capsys):
    for number in range(3):
        write(tmp_path / f"color_{number}.parquet", CRISP, [crisp_row(picture, number)] * 2)
    whole = (tmp_path / "color_0.parquet").read_bytes()
    for number in (0, 1):
        (tmp_path / f"color_{number}.parquet").write_bytes(whole[: len(whole) // 2])
    told = counted(tmp_path)
    assert (told.rows, told.lost, told.long_sides, told.categories) == (2, 2, {32: 2}, {"color": 2})
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    assert "2 files could not be read to their end" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "statistics.json").read_text())["lost"] == 2
    (tmp_path / "color_2.parquet").unlink()
    with pytest.raises(DataError, match="color_0.parquet cannot be read"):
        counted(tmp_path)


def test_a_bad_line_of_a_plain_folder_is_a_row_without_a_source(tmp_path, picture):
    for part in ("source", "target"):
        (tmp_path / part).mkdir()
        picture(40, 32).save(tmp_path / part / "a.png")
    row = json.dumps({"source": "a.png", "target": "a.png", "instruction": "x", "category": "add"})
    (tmp_path / "edits.jsonl").write_text("\n".join(["no JSON", row, '{"source": ', row]))
    told = counted(tmp_path)
    assert (told.rows, told.unreadable, told.lost, told.long_sides) == (4, 2, 0, {40: 2})
    assert told.categories == {"add": 2, "unnamed": 2}


def test_pictures_that_a_table_names_are_measured(tmp_path, picture):
    row = {"source_img": "a/s.png", "target_img": "a/t.png", "instruction": "make it blue"}
    (tmp_path / "a").mkdir()
    picture(48, 32).save(tmp_path / "a/s.png")
    picture(64, 32).save(tmp_path / "a/t.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    for source in (tmp_path, tmp_path / "rows.jsonl"):
        told = counted(source)
        assert (told.unreadable, told.long_sides, told.sizes_differ) == (0, {48: 1}, 1)


def test_what_the_reader_takes_is_counted_as_it_is_read(tmp_path, picture):
    """A plain folder by its file; a first line that is no object; test files as well; and nothing at all."""
    for part in ("plain/source", "plain/target", "lines"):
        (tmp_path / part).mkdir(parents=True)
    for place in ("plain/source/a.png", "plain/target/a.png", "lines/a.png"):
        picture(40, 32).save(tmp_path / place)
    (tmp_path / "plain/edits.jsonl").write_text('{"source": "a.png", "target": "a.png", "instruction": "x"}')
    (tmp_path / "lines/test.jsonl").write_text('[]\n{"source_img": "a.png", "target_img": "a.png", "instruction": "x"}')
    assert counted(tmp_path / "plain/edits.jsonl") == counted(tmp_path / "plain")
    told = counted(tmp_path / "lines")
    assert (told.rows, told.unreadable, told.long_sides) == (2, 1, {40: 1})
    write(tmp_path / "empty/a.parquet", CRISP, [])
    (tmp_path / "plain/edits.jsonl").write_text("")
    for source, said in (("empty", "they hold no rows"), ("plain", "holds no rows")):
        with pytest.raises(DataError, match=said):
            counted(tmp_path / source)
    for limit in (0, -1):
        with pytest.raises(SettingError, match="limit is"):
            statistics(tmp_path / "lines", limit=limit, progress=False)


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 2500, "~no such user/x"])
def test_a_name_that_no_folder_can_have_is_no_data_set(name):
    with pytest.raises(DataError, match="there is no data set"):
        counted(name)


def boxes(texts, figure):
    return [text.get_window_extent(figure.canvas.get_renderer()) for text in texts if text.get_text()]


@pytest.mark.parametrize("count", [3, 12, 25])
def test_no_words_of_the_panels_touch(count):
    shares = {f"category {i}": 2 if i else 100 for i in range(count)}
    figure = Statistics(148, 0, shares, {512: 100, 1024: 48}).figure()
    FigureCanvasAgg(figure).draw()
    right = figure.axes[1]
    names = right.get_legend().get_texts()
    told = boxes([*names, *right.texts, right.title], figure)
    assert [name.get_text() for name in names] == [f"{name}: {n}" for name, n in shares.items()]
    assert not any(a.overlaps(b) for i, a in enumerate(told) for b in told[:i])
    assert all(figure.bbox.x1 >= each.x1 and figure.bbox.y1 >= each.y1 and each.y0 >= 0 for each in told)
    percents = [float(each.get_text().strip("%")) for each in right.texts if each.get_text()]
    assert percents and min(percents) >= 5


def test_one_size_is_a_line_of_text_and_none_says_so():
    for sides, said in (({128: 7}, "all long sides: 128 px\n7 pairs"), ({}, "no source can be read")):
        left, _ = Statistics(7, 0, {"add": 7}, sides).figure().axes
        assert [text.get_text() for text in left.texts] == [said] and not left.patches
    assert Statistics(7, 0, {"add": 7}, {128: 3, 64: 4}).figure().axes[0].patches

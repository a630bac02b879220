"""Masks: what each kind is understood as, the right region for it, and what is refused; no spot is lost on the way."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from editmgt_lab.benchmarks.edits import Row, open_row
from editmgt_lab.benchmarks.magicbrush import edit_region
from editmgt_lab.data.rows import BadRow, open_edit
from editmgt_lab.errors import ImageError, LabError, SettingError
from editmgt_lab.images import fit_together
from editmgt_lab.images.masks import FAINT, READINGS, Mask, fit_mask, read_mask
from editmgt_lab.inputs import free_cells
from editmgt_lab.metrics.measures import INSIDE, Comparison
from editmgt_lab.views.hold_studio.hold_studio import random_cells

SIZE = (64, 64)
BOX = (8, 16, 40, 48)  # left, top, right, bottom of the region
REGION = np.zeros((64, 64), bool)
REGION[16:48, 8:40] = True
CLEAR, BLACK, WHITE = (0, 0, 0, 0), (0, 0, 0, 255), (255, 255, 255, 255)


@pytest.fixture
def source(picture):
    return picture(*SIZE)


def box(mode, ground, colour):
    image = Image.new(mode, SIZE, ground)
    image.paste(colour, BOX)
    return image


def erased(image, opacity=0):
    """A copy of the picture with the region rubbed out."""
    copy = image.convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(opacity, BOX)
    copy.putalpha(alpha)
    return copy


def file(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def clear_black(image):
    """A PNG of 16 bits whose black is transparent; only newer versions of Pillow write one themselves."""
    data, chunk = file(image), b"tRNS" + bytes(2)
    header = data.index(b"IHDR") + 4 + 13 + 4  # its name, its content, its checksum
    return data[:header] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[header:]


def understood(mask, source=None, **how):
    """How it was read, and whether the region is exactly the box."""
    read = read_mask(mask, source, **how)
    assert isinstance(read, Mask) and read.reading in READINGS and read.image.mode == "L" and read.size == SIZE
    assert np.array_equal(np.asarray(read.image) > 127, REGION), read.reading
    return read.reading


def palette():
    mask = box("P", 0, 1)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    return mask


def white_is_zero():
    data = file(ImageOps.invert(box("L", 0, 255)), "TIFF")
    place = data.index(bytes([6, 1, 3, 0, 1, 0, 0, 0])) + 8
    return data[:place] + bytes([0, 0]) + data[place + 2 :]


OPAQUE = {
    "L": box("L", 0, 255),
    "RGB": box("RGB", "black", "white"),
    "RGBA": box("RGBA", BLACK, WHITE),
    "LA": box("LA", (0, 255), (255, 255)),
    "1": box("1", 0, 1),
    "palette": palette(),
    "CMYK": box("RGB", "black", "white").convert("CMYK"),
    "16 bits": Image.fromarray((REGION * 65535).astype(np.uint16)),
    "16 bits in a file": file(Image.fromarray((REGION * 65535).astype(np.uint16))),
    "32 bits": Image.fromarray((REGION * 255).astype(np.int32)),
    "floats": Image.fromarray(REGION.astype(np.float32)),
    "white is zero": white_is_zero(),
    "bool array": REGION,
    "float array": REGION.astype(np.float64),
    "float array of one channel": REGION[..., None].astype(np.float32),
    "float array that overshoots": REGION * np.float32(1.0000002),
    "uint8 array": (REGION * 255).astype(np.uint8),
    "uint8 array of 0 and 1": REGION.astype(np.uint8),
    "int64 array of 0 and 1": REGION.astype(np.int64),
    "three channels of 0 and 1": np.repeat(REGION[..., None], 3, axis=2).astype(np.uint8),
    "off-white on off-black": box("L", 9, 240),
    "faint all over": box("RGBA", (0, 0, 0, 102), (255, 255, 255, 102)),
    "hardly transparent anywhere": box("RGBA", (0, 0, 0, 255), (255, 255, 255, 256 - FAINT)),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_white_is_the_region(name, source):
    assert understood(OPAQUE[name]) == understood(OPAQUE[name], source) == "white"


def test_a_jpeg_and_a_blurred_mask(source):
    for mask in (file(box("RGB", "black", "white"), "JPEG", quality=60), file(box("L", 0, 255), "JPEG", quality=40)):
        assert understood(mask, source) == "white"
    soft = box("L", 0, 255).filter(ImageFilter.GaussianBlur(6))
    read = read_mask(soft, source)
    assert read.reading == "white" and np.array_equal(np.asarray(read.image), np.asarray(soft))  # it keeps its greys
    for shade in ("black", "grey", "white"):
        assert read_mask(soft, Image.new("RGB", SIZE, shade)).reading == "white"


STROKES = {
    "white on clear black": box("RGBA", CLEAR, WHITE),
    "white on clear white": box("RGBA", (255, 255, 255, 0), WHITE),
    "LA": box("LA", (0, 0), (255, 255)),
    "LA on clear white": box("LA", (255, 0), (255, 255)),
    "red": box("RGBA", CLEAR, (255, 0, 0, 255)),
    "half transparent": box("RGBA", CLEAR, (204, 50, 50, 102)),
    "in a file": file(box("RGBA", CLEAR, WHITE)),
    "WebP": file(box("RGBA", CLEAR, WHITE), "WEBP", lossless=True),
    "a clear colour of a palette": file(palette(), transparency=0),
    "a clear grey": file(box("L", 0, 255), transparency=0),
    "a clear grey of 16 bits": clear_black(Image.fromarray((REGION * 65535).astype(np.uint16))),
    "array": np.asarray(box("RGBA", CLEAR, WHITE)),
}


@pytest.mark.parametrize("name", STROKES)
def test_strokes_on_a_transparent_layer(name, source):
    assert understood(STROKES[name]) == understood(STROKES[name], source) == "strokes"


def test_a_soft_brush_keeps_its_edge(source):
    alpha = box("L", 0, 120).filter(ImageFilter.GaussianBlur(2))
    mask = Image.new("RGBA", SIZE, "white")
    mask.putalpha(alpha)
    read = read_mask(mask, source)
    values = np.asarray(read.image)
    assert read.reading == "strokes" and values.max() == 255 and len(np.unique(values)) > 5
    assert abs(int((values > 127).sum()) - REGION.sum()) < 40


def test_a_region_erased_out_of_the_picture(source):
    assert understood(erased(source), source) == understood(erased(source)) == "erased"
    assert understood(erased(source, 60), source) == "erased", "with a soft eraser"
    assert understood(file(erased(source)), source) == "erased"
    cleared = np.array(erased(source))
    cleared[REGION] = 0  # as a canvas leaves it
    assert understood(cleared, source) == "erased"
    grey = source.convert("L")
    mask = Image.merge("LA", (grey, erased(source).getchannel("A")))
    assert understood(mask, grey) == "erased"


def test_a_copy_from_a_jpeg_or_of_another_size_is_still_one(source):
    worn = Image.open(io.BytesIO(file(source, "JPEG", quality=50)))
    assert understood(erased(worn), source) == "erased"
    assert understood(erased(source), source.resize((256, 256), Image.Resampling.BICUBIC)) == "erased"


def test_a_region_painted_white_over_the_picture(source):
    mask = source.copy()
    mask.paste("white", BOX)
    read = read_mask(mask, source)
    assert read.reading == "painted over"
    found = np.asarray(read.image) > 127
    assert (found <= REGION).all() and found.sum() > 0.95 * REGION.sum()
    grey = mask.convert("L")
    assert read_mask(grey, source.convert("L")).reading == "painted over"


def test_a_white_plate_inside_an_erased_region_belongs_to_it():
    plate = Image.new("RGB", SIZE, (40, 90, 40))
    plate.paste("white", (4, 12, 60, 60))
    assert understood(erased(plate), plate) == "erased"
    assert np.array_equal(np.asarray(edit_region(erased(plate), plate)) > 127, REGION)
    row = {"key": "1", "file": "1.png", "group": "g", "instruction": "put a cake on the plate", "source": plate}
    opened = open_row(Row(**row, target=plate, mask=file(erased(plate)), read_mask=edit_region))
    assert np.array_equal(np.asarray(opened.mask) > 127, REGION)


def test_black_is_meant_where_it_is_said(source):
    mask = ImageOps.invert(box("L", 0, 255))
    assert understood(mask, source, reading="black") == "black"
    assert np.array_equal(np.asarray(read_mask(mask, source).image) > 127, ~REGION)
    assert understood(box("RGBA", CLEAR, BLACK), source, reading="black") == "black"


AMBIGUOUS = {
    "black and transparent": box("RGBA", CLEAR, BLACK),
    "transparent in black": box("RGBA", BLACK, CLEAR),
    "colours": box("RGB", "black", "red"),
}


@pytest.mark.parametrize("name", ["black and transparent", "transparent in black", "colours"])
def test_what_can_be_read_in_two_ways_is_refused(name, source):
    with pytest.raises(ImageError, match=r"(?s)expected:.*one way only.*to do:.*white on black.*read_mask"):
        read_mask(AMBIGUOUS[name], source)


def test_more_that_is_refused(source, picture):
    three = box("RGBA", CLEAR, WHITE)
    three.paste(BLACK, (44, 0, 64, 64))
    with pytest.raises(ImageError, match="black, white and transparent"):
        read_mask(three, source)
    with pytest.raises(ImageError, match="neither one colour nor the picture"):
        read_mask(erased(picture(*SIZE, 1)), source)
    with pytest.raises(ImageError, match="has colours"):
        read_mask(picture(*SIZE, 1), source)
    with pytest.raises(ImageError, match="transparent everywhere"):
        read_mask(Image.new("RGBA", SIZE, CLEAR), source)
    drawing = box("RGB", "black", "white")
    with pytest.raises(ImageError, match="so is the picture"):
        read_mask(drawing, drawing)
    assert understood(drawing, Image.new("RGB", SIZE, "black")) == "white", "of a picture at night"
    assert understood(drawing, Image.new("RGB", SIZE, "white")) == "white", "of a blank page"


def test_white_strokes_on_a_white_picture_are_refused_unless_it_is_said_what_they_are():
    page = Image.new("RGB", SIZE, "white")
    strokes = box("RGBA", CLEAR, WHITE)
    with pytest.raises(ImageError, match="the picture has the same there"):
        read_mask(strokes, page)
    assert understood(strokes, page, reading="strokes") == "strokes"
    ball = page.copy()
    ImageDraw.Draw(ball).ellipse((12, 20, 36, 44), fill="blue")
    assert understood(erased(ball), ball) == "erased"  # below what is erased the ball is still there


@pytest.mark.parametrize("name", ["black and transparent", "transparent in black"])
def test_what_is_refused_can_be_said(name, source):
    reading = {"black and transparent": "strokes", "transparent in black": "erased"}[name]
    assert understood(AMBIGUOUS[name], source, reading=reading) == reading


@pytest.mark.parametrize("reading", ["strokes", "erased"])
def test_what_is_opaque_all_over_has_no_strokes(source, reading):
    with pytest.raises(ImageError, match=f"opaque all over, and is to be read as '{reading}'"):
        read_mask(box("L", 0, 255), source, reading=reading)


def test_a_mask_that_was_read_stays_as_it_is(source):
    read = read_mask(box("RGBA", CLEAR, BLACK), reading="strokes")
    assert read_mask(read, source) is read
    fitted = fit_together(source, None, read, pixels=64, multiple=8)
    assert fitted.reading == "strokes" and np.array_equal(np.asarray(fitted.mask) > 127, REGION)


def test_another_reading_and_things_that_are_no_masks(source):
    with pytest.raises(SettingError, match="'inverted'"):
        read_mask(box("L", 0, 255), reading="inverted")
    for thing in (None, 3, torch.zeros(8, 8)):
        with pytest.raises(ImageError, match="is not a picture"):
            read_mask(thing)
    for array in (np.full((4, 4), np.nan), np.full((4, 4), 7.0), np.zeros((3, 4, 5))):
        with pytest.raises(ImageError, match="array"):
            read_mask(array)


def test_a_mask_is_upright_and_reading_it_changes_nothing(source):
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = file(box("L", 0, 255).transpose(Image.Transpose.ROTATE_180), exif=exif)
    assert understood(turned, source) == "white"
    mask = erased(source)
    before = mask.tobytes()
    read_mask(mask, source).image.paste(0, (0, 0, *SIZE))
    assert mask.tobytes() == before


# Resizing: no spot is lost


@pytest.mark.parametrize("size", [(64, 64), (37, 91), (200, 150)])
def test_every_pixel_is_as_bright_as_the_brightest_that_it_covers(size):
    mask = np.random.default_rng(0).integers(0, 256, (100, 150), np.uint8)
    edges = [np.linspace(0, old, new + 1) for old, new in zip((150, 100), size, strict=True)]
    found = np.asarray(fit_mask(Image.fromarray(mask), size))
    for x, y in np.random.default_rng(1).integers(0, min(size), (50, 2)):
        (left, right), (top, bottom) = edges[0][x : x + 2], edges[1][y : y + 2]
        covered = mask[int(top + 1e-6) : int(np.ceil(bottom - 1e-6)), int(left + 1e-6) : int(np.ceil(right - 1e-6))]
        assert found[y, x] == covered.max()


def test_whole_pixels_are_exact():
    mask = Image.fromarray(np.random.default_rng(0).integers(0, 2, (8, 12), np.uint8) * 255)
    assert np.array_equal(np.asarray(fit_mask(mask, mask.size)), np.asarray(mask))
    larger = mask.resize((36, 24), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(fit_mask(mask, (36, 24))), np.asarray(larger))
    assert np.array_equal(np.asarray(fit_mask(larger, (12, 8))), np.asarray(mask))
    part = np.asarray(fit_mask(larger, (4, 4), (12, 6, 24, 18)))
    assert np.array_equal(part, np.asarray(mask)[2:6, 4:8])


@pytest.mark.parametrize("place", [(1005, 1005), (0, 3999), (2047, 31), (3333, 1777)])
def test_one_pixel_of_a_large_mask_frees_its_token(place):
    large = Image.new("L", (4000, 4000))
    large.putpixel(place, 255)
    source = Image.new("RGB", (100, 100), "grey")
    cells = free_cells([fit_together(source, None, large, pixels=64, multiple=8)], 4)[0]
    assert cells.nonzero().tolist() == [[place[1] // 250, place[0] // 250]]
    large.paste(255, (3000, 3000, 3500, 3500))
    cells = free_cells([fit_together(source, None, large, pixels=64, multiple=8)], 4)[0]
    assert cells[place[1] // 250, place[0] // 250] and cells[12:14, 12:14].all() and cells.sum() == 5


def test_the_same_where_a_benchmark_measures_and_a_data_set_opens():
    spot = Image.new("L", (1000, 1000))
    spot.paste(255, (505, 505, 508, 508))
    source = Image.new("RGB", (100, 100), "grey")
    opened = open_row(Row(key="1", file="1.png", group="g", instruction="x", source=source, mask=spot))
    assert np.argwhere(np.asarray(opened.mask)).tolist() == [[50, 50]]
    inside = Comparison(source, source, "x", source, spot).part(INSIDE, (20, 20))
    assert inside.nonzero().tolist() == [[10, 10]]


def test_a_data_set_reads_masks_as_the_editor_does(source):
    for mask in (box("RGBA", CLEAR, WHITE), erased(source), box("L", 0, 255)):
        opened = open_edit("make it blue", source, source, mask)
        assert opened.mask.mode == "L" and np.array_equal(np.asarray(opened.mask) > 127, REGION)
    with pytest.raises(BadRow, match="black and transparent") as caught:
        open_edit("make it blue", source, source, box("RGBA", CLEAR, BLACK))
    assert caught.value.reason == "the mask is unclear"


def test_what_was_read_is_not_read_in_another_way():
    mask = read_mask(box("L", 0, 255))
    assert read_mask(mask) is mask is read_mask(mask, reading="white")
    with pytest.raises(SettingError, match="was read as 'white', and reading is 'black'"):
        read_mask(mask, reading="black")


# In an edit


@pytest.mark.parametrize(
    "mask", [box("RGBA", CLEAR, WHITE), box("LA", (0, 0), (255, 255)), REGION], ids=["RGBA", "LA", "array"]
)
def test_an_edit_stays_inside_the_mask_and_says_how_it_was_read(editor, picture, mask):
    result = editor.edit(picture(*SIZE), "make the ball blue", mask=mask, steps=2, seed=0, guidance_scale=1)
    free = REGION[::8, ::8] if result.tokens.shape[-1] == 8 else REGION[::4, ::4]
    assert torch.equal(result.held[0] | torch.from_numpy(free), torch.ones_like(result.held[0]))
    assert torch.equal(result.tokens[0][~free], result.source_tokens[0][~free])
    assert result.readings == ["strokes" if isinstance(mask, Image.Image) else "white"]


def test_an_ambiguous_mask_is_refused_before_a_network_runs(editor, picture, monkeypatch):
    monkeypatch.setattr(editor.vq.encoder, "forward", lambda *_: pytest.fail("a network ran"))
    with pytest.raises(LabError, match="black and transparent"):
        editor.edit(picture(*SIZE), "make the ball blue", mask=box("RGBA", CLEAR, BLACK))


def test_a_mask_that_frees_nothing_says_why(editor, picture):
    for mask, problem in (
        (Image.new("L", (130, 64)), "is black everywhere"),
        (Image.new("L", (130, 64), 60), "is nowhere brighter than 24%"),
    ):
        with pytest.raises(ImageError, match=problem):
            editor.edit(picture(130, 64), "make the ball blue", mask=mask)
    fitted = fit_together(picture(130, 64), pixels=32, multiple=8)
    assert fitted.geometry.crop[0] > 0  # so there is a margin
    edge = Image.new("L", (130, 64))
    edge.paste(255, (0, 0, fitted.geometry.crop[0], 64))
    with pytest.raises(ImageError, match="but for the margin that the grid cuts off"):
        editor.edit(picture(130, 64), "make the ball blue", mask=edge)


@pytest.mark.parametrize("size", [(64, 64), (7, 7), (90, 61), (1000, 613)])
def test_a_random_hold_frees_as_many_cells_as_it_should(size):
    image = Image.new("RGB", size, "grey")
    geometry = fit_together(image, pixels=64, multiple=8).geometry
    width, height = geometry.size
    free = np.random.default_rng(0).random((height // 4, width // 4)) < 0.3
    fitted = fit_together(image, None, random_cells(free, geometry), pixels=64, multiple=8)
    assert int(free_cells([fitted], 4).sum()) == free.sum()

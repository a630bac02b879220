import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from editmgt_lab.errors import ImageError, SettingError, ShapeError
from editmgt_lab.images import fit, fit_together, fitting, load_image, to_images, to_tensor
from editmgt_lab.images.opening import MAX_PIXELS
from tests.support.pictures import png_header


def gradient(width=60, height=40):
    """Red grows to the right, green downwards: every pixel knows where it was."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], -1).round().astype(np.uint8))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_takes_an_image_a_path_bytes_and_an_array(tmp_path, monkeypatch):
    image = gradient()
    image.save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    data = encoded(image)
    for picture in (image, tmp_path / "a.png", "~/a.png", data, memoryview(data), np.asarray(image)):
        loaded = load_image(picture)
        assert loaded.mode == "RGB"
        assert np.array_equal(np.asarray(loaded), np.asarray(image))


def test_the_loaded_picture_is_a_new_one():
    image = gradient()
    load_image(image).paste("black", (0, 0, 60, 40))
    assert image.getpixel((59, 39)) == (255, 255, 90)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    upright = gradient()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(encoded(stored, exif=exif))
    assert np.array_equal(np.asarray(loaded), np.asarray(upright))


def test_transparency_lies_over_white():
    image = gradient().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert load_image(image).getcolors() == [(60 * 40, (255, 255, 255))]
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert load_image(half).getpixel((0, 0)) == (127, 127, 127)
    grey = Image.merge("LA", [Image.new("L", (2, 2), 30), Image.new("L", (2, 2), 255)])
    assert load_image(grey).getpixel((0, 0)) == (30, 30, 30)


def test_a_transparent_palette_colour_lies_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    loaded = load_image(encoded(image, transparency=1))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (3, 2), 77), (77, 77, 77)),
        (Image.new("1", (3, 2), 1), (255, 255, 255)),
        (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.fromarray(np.full((2, 3), 0x8080, np.uint16)), (128, 128, 128)),
        (Image.fromarray(np.full((2, 3), 65535, np.int32)), (255, 255, 255)),
        (Image.fromarray(np.full((2, 3), 0.5, np.float32)), (128, 128, 128)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_rgb(image, colour):
    assert load_image(image).getcolors() == [(6, colour)]


def test_sixteen_bits_survive_a_file():
    image = Image.fromarray(np.full((2, 3), 0x4040, np.uint16))
    assert load_image(encoded(image)).getcolors() == [(6, (64, 64, 64))]


@pytest.mark.parametrize(
    ("array", "colour"),
    [
        (np.full((2, 3, 1), 200, np.uint8), (200, 200, 200)),
        (np.full((2, 3, 4), 0, np.uint8), (255, 255, 255)),
        (np.full((2, 3, 3), 0.2), (51, 51, 51)),
        (np.ones((2, 3), bool), (255, 255, 255)),
        (np.full((2, 3, 3), 51, np.int64), (51, 51, 51)),
        (np.full((2, 3), 1, np.uint8), (1, 1, 1)),
    ],
)
def test_arrays(array, colour):
    assert load_image(array).getcolors() == [(6, colour)]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8)),
        np.zeros((0, 4, 3)),
        np.zeros(5),
        np.full((2, 2), -1.0),
        np.full((2, 2), np.nan),
        np.full((2, 2), 70_000),
        np.array([["a"]]),
    ],
)
def test_arrays_that_are_no_pictures(array):
    with pytest.raises(ImageError, match="array"):
        load_image(array)


@pytest.mark.parametrize("top", [1.0000002, 1.02, 1.09])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_overshoot_are_clipped(top, dtype):
    array = np.full((8, 8, 3), 0.9, dtype)
    array[0, 0], array[0, 1] = top, 1 - top
    loaded = np.asarray(load_image(array))
    assert (
        (abs(loaded[1:].astype(int) - 229.5) <= 0.5).all() and (loaded[0, 0] == 255).all() and (loaded[0, 1] == 0).all()
    )
    assert np.array_equal(np.asarray(load_image(Image.fromarray(array[..., 0].astype(np.float32)))), loaded)


def test_a_float_picture_enlarged_with_a_cubic_filter():
    edge = Image.fromarray(np.repeat([[0, 0.9, 0.9, 1, 0, 1]], 6, axis=0).astype(np.float32))
    larger = np.asarray(edge.resize((60, 60), Image.Resampling.BICUBIC))
    assert larger.max() > 1 and larger.min() < 0
    expected = np.rint(larger.clip(0, 1) * 255)
    assert np.abs(np.asarray(load_image(larger))[..., 0] - expected).max() <= 1


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (np.array([[255.4, 230, -3]]), 255),
        (np.array([[256, 230, -2]], np.int32), 255),
        (np.array([[255.0, 230.0, 0.0]], np.float32), 255),
        (np.array([[65535.0, 59110.0, 0.0]]), 65535),
        (np.array([[65535, 59110, 0]], np.int64), 65535),
        (np.array([[127, 100, -1]], np.int8), 255),
        (np.array([[1, 1, 0]], np.int64), 1),
    ],
)
def test_the_range_is_the_one_that_the_values_fill(array, white):
    expected = np.rint(array.astype(float).clip(0, white) * 255 / white)
    assert np.array_equal(np.asarray(load_image(array))[..., 0], expected)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0, 1.5]]),
        np.array([[-1.0, 1.0]]),
        np.array([[0, 400.0]]),
        np.array([[0, 400]], np.int32),
        np.array([[0, 3]], np.int64),
        np.array([[0, 200]], np.uint16),
        np.array([[0, 2**31]], np.uint32),
        np.array([[0.5, np.nan]], np.float32),
        np.array([[0.5, np.inf]]),
        np.array([[0.5, -np.inf]], np.float16),
        np.array([[0.5 + 0j]]),
        np.array([[None, 1]]),
    ],
    ids=str,
)
def test_values_of_no_range_are_refused_and_not_black(array):
    with pytest.raises(ImageError, match="array of .* no brightnesses(?s:.*)to do:"):
        load_image(array)


def test_black_is_black():
    for dtype in (np.uint8, np.uint16, np.int32, np.int64, np.float32, bool):
        assert load_image(np.zeros((4, 4), dtype)).getcolors() == [(16, (0, 0, 0))]


@pytest.mark.parametrize("top", [300, 65535])
def test_16_bits_are_the_same_in_either_order_of_bytes(top):
    values = np.linspace(0, top, 64).reshape(8, 8).round()
    little, big = (load_image(values.astype(order)) for order in ("<u2", ">u2"))
    assert little.tobytes() == big.tobytes() and little.getpixel((7, 7)) == (round(top / 257),) * 3


def white_is_zero(image):
    """The bytes of a grey TIFF, its tag PhotometricInterpretation changed from 1 to 0."""
    data = encoded(image, "TIFF")
    place = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    return data[:place] + struct.pack("<H", 0) + data[place + 2 :]


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.array([[0, 128, 255]], np.uint8)),
        Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)),
        Image.fromarray(np.array([[0, 128 / 255, 1]], np.float32)),
        Image.fromarray(np.array([[0, 128, 255]], np.uint8) > 0),
    ],
    ids=["8 bits", "16 bits", "floats", "1 bit"],
)
def test_a_tiff_whose_zero_is_white(image, tmp_path):
    middle = 0 if image.mode == "1" else 127
    assert [load_image(white_is_zero(image)).getpixel((x, 0))[0] for x in range(3)] == [255, middle, 0]
    (tmp_path / "a.tif").write_bytes(white_is_zero(image))
    with Image.open(tmp_path / "a.tif") as opened:
        assert load_image(opened).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(encoded(image, "TIFF")).getpixel((0, 0)) == (0, 0, 0)


def test_a_transparent_grey_of_sixteen_bits_lies_over_white():
    png, name = encoded(Image.fromarray(np.array([[1000, 0x4040]], np.uint16))), b"tRNS"
    chunk = struct.pack(">I4sHI", 2, name, 1000, zlib.crc32(name + struct.pack(">H", 1000)))  # not every Pillow has it
    loaded = load_image(png[:33] + chunk + png[33:])  # behind the header
    assert [loaded.getpixel((x, 0))[0] for x in (0, 1)] == [255, 64]


def test_a_picture_that_would_come_out_black_is_named():
    with pytest.raises(ImageError, match="the picture's bytes: an array of uint16 from 200 to 200"):
        load_image(encoded(Image.fromarray(np.full((2, 2), 200, np.uint16))))


def test_what_is_loaded_carries_nothing_along():
    image = gradient().convert("P")
    image.info |= {"dpi": (300, 300), "transparency": 3, "icc_profile": b"no profile"}
    with pytest.warns(UserWarning, match="colour profile"):
        assert load_image(image).info == {}


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "notes.png").write_text("not a picture at all", encoding="utf-8")
    with pytest.raises(ImageError, match=r"notes\.png cannot be read"):
        load_image(tmp_path / "notes.png")
    for nothing in (b"", b"text"):
        with pytest.raises(ImageError, match="cannot be read"):
            load_image(nothing)


def test_a_path_without_a_picture(tmp_path):
    for path in (tmp_path / "gone.png", tmp_path, "https://example.org/cat.png"):
        with pytest.raises(ImageError, match="no picture file"):
            load_image(path)


def test_a_thing_that_is_no_picture():
    with pytest.raises(ImageError, match="NoneType is not a picture"):
        load_image(None)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP"])
def test_a_truncated_file(kind, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(ImageError, match="cannot be read.*(?s:.*)cut short"):
        load_image(data[: len(data) // 2])
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    try:
        opened = Image.open(tmp_path / "half")
    except OSError:
        return  # a truncated TIFF does not even open
    with opened, pytest.raises(ImageError, match="cannot be read"):
        load_image(opened)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 9_000), (8_001, 8_000)])
def test_a_decompression_bomb_is_refused_from_its_header(size):
    with pytest.raises(ImageError, match="too large"):  # it has no pixels: decoding it would be another error
        load_image(png_header(*size))


def test_opening_leaves_the_filters_of_warnings_alone(monkeypatch):
    """They are the process's, and pictures are opened in threads."""
    file = encoded(gradient())
    with monkeypatch.context() as patched:
        patched.setattr(warnings, "catch_warnings", None)
        image = load_image(file)
    np.testing.assert_array_equal(image, gradient())


def test_large_pictures_that_are_open_already():
    with pytest.raises(ImageError, match="8001×8000 px"):
        load_image(Image.new("1", (8_001, 8_000)))
    with pytest.raises(ImageError, match="too large"):
        load_image(np.broadcast_to(np.uint8(0), (1, MAX_PIXELS + 1)))


def test_an_empty_picture():
    with pytest.raises(ImageError, match="empty"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((64, 64), (64, 64)),
        ((1000, 1000), (64, 64)),
        ((3, 3), (64, 64)),
        ((600, 400), (80, 56)),
        ((400, 600), (56, 80)),
        ((1920, 1080), (88, 48)),
        ((5000, 100), (400, 8)),
    ],
)
def test_fit_keeps_the_area_and_the_aspect(size, fitted):
    image, geometry = fit(gradient(*size), pixels=64, multiple=8)
    assert image.size == geometry.size == fitted
    assert geometry.original == size
    left, top, right, bottom = geometry.crop
    kept = (right - left) / (bottom - top)
    assert kept == pytest.approx(fitted[0] / fitted[1], rel=0.02)  # not squeezed
    assert left == 0 or top == 0  # cropped along one side at most
    assert abs(left - (size[0] - right)) <= 1 and abs(top - (size[1] - bottom)) <= 1  # from the centre
    assert (right - left) * (bottom - top) >= 0.9 * size[0] * size[1]


@pytest.mark.parametrize("pixels, multiple", [(64, 8), (1024, 32)])
def test_every_aspect_ratio_stays_near_the_area(pixels, multiple):
    for tenths in range(10, 90):
        width, height = fit(Image.new("RGB", (tenths * 20, 200)), pixels=pixels, multiple=multiple)[0].size
        assert width % multiple == height % multiple == 0
        assert 0.6 < width * height / pixels**2 < 1.5


def test_a_picture_on_the_grid_is_left_as_it_is():
    image = gradient(64, 64)
    assert np.array_equal(np.asarray(fit(image, pixels=64, multiple=8)[0]), np.asarray(image))


@pytest.mark.parametrize(("pixels", "multiple"), [(64, 16), (256, 16), (1024, 32)])
def test_what_was_fitted_stays_as_it_is(pixels, multiple):
    """So an edit can be edited on, and be repeated from the picture that it was made of."""
    sizes = {(round(600 * aspect**0.5), round(600 / aspect**0.5)) for aspect in np.geomspace(0.1, 10, 400)}
    fitted = {fitting._plan(size, pixels, multiple).size for size in [*sizes, (1000, 1414), (348, 1225)]}
    assert len(fitted) > 8
    for size in fitted:
        again = fitting._plan(size, pixels, multiple)
        assert again.size == size and again.whole


def test_a_square_smaller_than_a_cell_is_refused():
    with pytest.raises(SettingError, match="4 px, and a cell of the grid 16 px"):
        fit(gradient(), pixels=4, multiple=16)
    with pytest.raises(SettingError, match="image_size is '64'"):
        fit(gradient(), pixels="64", multiple=16)
    assert fit(gradient(60, 60), pixels=250, multiple=16)[0].size == (256, 256)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (10, 650)])
def test_a_picture_too_narrow_for_the_grid(size):
    with pytest.raises(ImageError, match="too narrow"):
        fit(Image.new("RGB", size), pixels=64, multiple=8)


def test_the_bound_that_is_said_is_the_one_that_is_kept():
    assert fit(Image.new("RGB", (4, 1024 * 4)), pixels=1020, multiple=32)[0].size[0] == 32
    with pytest.raises(ImageError, match="at most 1024 times"):
        fit(Image.new("RGB", (4, 1025 * 4)), pixels=1020, multiple=32)


def test_source_target_and_mask_line_up():
    source = gradient(90, 61)
    mask = Image.fromarray(np.asarray(source)[..., 0] > 128)
    fitted = fit_together(source, source.copy(), mask, pixels=64, multiple=8)
    assert np.array_equal(np.asarray(fitted.source), np.asarray(fitted.target))
    assert fitted.mask.mode == "L" and fitted.mask.size == fitted.source.size == fitted.geometry.size
    assert set(np.unique(fitted.mask)) == {0, 255}
    expected = np.asarray(fitted.source)[..., 0] > 128
    assert ((np.asarray(fitted.mask) > 0) == expected).mean() > 0.97


@pytest.mark.parametrize("size", [(180, 122), (45, 30), (270, 183)])
def test_a_target_of_another_size_lines_up_too(size):
    source = gradient(90, 61)
    target = source.resize(size, Image.Resampling.BICUBIC)
    fitted = fit_together(source, target, pixels=64, multiple=8)
    difference = np.abs(np.asarray(fitted.source, float) - np.asarray(fitted.target, float))
    assert fitted.target.size == fitted.source.size and fitted.mask is None
    assert difference.mean() < 2


@pytest.mark.parametrize("name", ["target", "mask"])
@pytest.mark.parametrize("size", [(61, 90), (90, 64), (180, 130), (45, 33)])
def test_another_aspect_cannot_line_up(name, size):
    with pytest.raises(ImageError, match=f"the {name} is {size[0]}×{size[1]} px and the source 90×61 px"):
        fit_together(gradient(90, 61), **{name: Image.new("RGB", size)}, pixels=64, multiple=8)


def test_an_edit_goes_back_where_it_was():
    original = gradient(300, 170)
    fitted, geometry = fit(original, pixels=64, multiple=8)
    restored = geometry.paste_back(Image.new("RGB", fitted.size, "black"), original)
    assert restored.size == original.size
    left, top, right, bottom = geometry.crop
    pixels = np.asarray(restored).copy()
    assert not pixels[top:bottom, left:right].any()
    pixels[top:bottom, left:right] = np.asarray(original)[top:bottom, left:right]
    assert np.array_equal(pixels, np.asarray(original))
    with pytest.raises(ImageError, match="another one"):
        geometry.paste_back(fitted, fitted)
    with pytest.raises(ImageError, match="a list is not a picture"):
        geometry.paste_back([fitted], original)
    with pytest.raises(ImageError, match="the edit is 8×64 px"):
        geometry.paste_back(Image.new("RGB", (8, 64)), original)


def test_tensors_and_back():
    images = [gradient(24, 16), gradient(24, 16).transpose(Image.Transpose.ROTATE_180)]
    tensor = to_tensor(images)
    assert tensor.shape == (2, 3, 16, 24) and tensor.dtype == torch.float32
    assert tensor[0, 0, 0, -1] == 1 and tensor[0, 0, -1, 0] == 0 and tensor[0, 1, -1, 0] == 1
    assert to_tensor(images[1]).shape == (1, 3, 16, 24)
    for back, image in zip(to_images(tensor), images, strict=True):
        assert np.array_equal(np.asarray(back), np.asarray(image))


def test_values_outside_are_clamped_and_bf16_is_taken():
    tensor = torch.tensor([-0.5, 0.5, 1.5], dtype=torch.bfloat16, requires_grad=True)
    assert to_images(tensor.view(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 128, 255)


def test_batches_that_are_none():
    with pytest.raises(ImageError, match="24×16 px, 16×24 px"):
        to_tensor([gradient(24, 16), gradient(16, 24)])
    with pytest.raises(ImageError, match="empty"):
        to_tensor([])
    for shape in ((3, 8, 8), (1, 8, 8, 3)):
        with pytest.raises(ShapeError):
            to_images(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_not_shown_as_black(value):
    tensor = torch.full((2, 3, 4, 4), 0.5)
    tensor[1, 0, 0, 0] = value
    with pytest.raises(ImageError, match="1 of 96 values of these pictures are not finite"):
        to_images(tensor)

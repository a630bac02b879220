"""Colour profiles: what a viewer shows is what the model sees, and a broken profile never makes a picture black."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from editmgt_lab.images import load_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XYZ = {  # of the three primaries, adapted to D50
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}


def s15(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(space, tags):
    """A profile of version 2 for a screen, from its tags."""
    table, data, place = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    size = place + len(data)
    head = struct.pack(">I4sI4s4s4s12s4s", size, bytes(4), 0x02100000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    head += bytes(28) + s15(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def matrix(primaries, tones=2.2):
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {name: b"XYZ " + bytes(4) + s15(*values) for name, values in zip(names, primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(tones) if isinstance(tones, float) else tones)
    return profile(b"RGB ", tags | {b"wtpt": b"XYZ " + bytes(4) + s15(0.9642, 1, 0.8249)})


def grey_profile(gamma):
    return profile(b"GRAY", {b"kTRC": curve(gamma), b"wtpt": b"XYZ " + bytes(4) + s15(0.9642, 1, 0.8249)})


def inks():
    """CMYK to L*a*b* by a table of two steps an ink: cyan ink is drawn as red, to be told from PIL's own way."""
    corners = []
    for c, _, _, k in np.ndindex(2, 2, 2, 2):
        corners += [0 if k else 136 if c else 255, 128 + (80 if c and not k else 0), 128 + (67 if c and not k else 0)]
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += bytes(range(256)) * 4 + bytes(corners) + bytes(range(256)) * 3
    made = profile(b"CMYK", {b"A2B0": table, b"wtpt": b"XYZ " + bytes(4) + s15(0.9642, 1, 0.8249)})
    return made[:12] + b"prtr" + made[16:20] + b"Lab " + made[24:]


def shown(image, icc, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, icc_profile=icc, **options)
    return load_image(data.getvalue())


def colour(mode, value):
    return Image.new(mode, (8, 8), value)


def linear(value):
    value = value / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def encoded(value):
    value = min(max(value, 0), 1)
    return 255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", XYZ)
@pytest.mark.parametrize("value", [(200, 100, 90), (90, 180, 120), (60, 70, 200), (128, 128, 128), (255, 255, 255)])
def test_a_wide_profile_is_converted_to_srgb(name, value):
    """Against the arithmetic: linear light, the primaries, sRGB's own matrix for D50."""
    to_xyz = np.array(XYZ[name]).T
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    light = np.linalg.solve(srgb, to_xyz @ np.array([(each / 255) ** 2.2 for each in value]))
    found = shown(colour("RGB", value), matrix(XYZ[name])).getpixel((3, 3))
    assert np.allclose(found, [encoded(each) for each in light], atol=2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_every_kind_of_file(kind):
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    icc = matrix(XYZ["Display P3"])
    found = shown(colour("RGB", (200, 60, 60)), icc, kind, **options).getpixel((3, 3))
    assert np.allclose(found, shown(colour("RGB", (200, 60, 60)), icc).getpixel((3, 3)), atol=3)
    assert found[0] > 210 and found[1] < 60  # more of both than was stored: it is a wide red


def test_an_open_picture_is_converted_once_and_loses_its_profile():
    image = colour("RGB", (200, 60, 60))
    image.info["icc_profile"] = matrix(XYZ["Display P3"])
    once = load_image(image)
    assert once.getpixel((0, 0)) != (200, 60, 60) and "icc_profile" not in once.info
    assert load_image(once).getpixel((0, 0)) == once.getpixel((0, 0))
    assert image.getpixel((0, 0)) == (200, 60, 60) and image.info["icc_profile"]


def test_srgbs_own_profile_changes_nothing():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    assert np.array_equal(np.asarray(shown(noise, SRGB)), np.asarray(noise))


def test_alpha_and_palettes_keep_their_colours():
    icc = matrix(XYZ["Adobe RGB"])
    right = shown(colour("RGB", (60, 160, 60)), icc).getpixel((0, 0))
    assert right != (60, 160, 60)
    clear = colour("RGBA", (60, 160, 60, 255))
    clear.putpixel((0, 0), (60, 160, 60, 0))
    found = shown(clear, icc)
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((3, 3)) == right
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([60, 160, 60])
    assert shown(palette, icc).getpixel((3, 3)) == right


def test_a_grey_profile():
    expected = encoded((100 / 255) ** 1.0)
    for image, kind in ((colour("L", 100), "PNG"), (colour("L", 100), "JPEG"), (colour("LA", (100, 255)), "PNG")):
        assert np.allclose(shown(image, grey_profile(1.0), kind).getpixel((3, 3)), expected, atol=2)
    sixteen = Image.fromarray(np.full((8, 8), 100 * 257, np.uint16))
    assert np.allclose(shown(sixteen, grey_profile(1.0), "TIFF").getpixel((3, 3)), expected, atol=2)


def test_a_grey_picture_with_a_profile_of_colours():
    found = shown(colour("L", 100), matrix(XYZ["Adobe RGB"], tones=1.0)).getpixel((3, 3))
    assert np.allclose(found, encoded(100 / 255), atol=2)


def test_inks():
    found = shown(colour("CMYK", (255, 0, 0, 0)), inks(), "TIFF").getpixel((3, 3))
    assert found[0] > 200 and found[1] < 60, f"the profile's red, not PIL's cyan: {found}"
    assert min(shown(colour("CMYK", (0, 0, 0, 0)), inks(), "TIFF").getpixel((3, 3))) > 240
    assert max(shown(colour("CMYK", (0, 0, 0, 255)), inks(), "TIFF").getpixel((3, 3))) < 15
    plain = io.BytesIO()
    colour("CMYK", (255, 0, 0, 0)).save(plain, "TIFF")
    assert load_image(plain.getvalue()).getpixel((3, 3)) == (0, 255, 255)


def test_lab_pictures():
    lab = Image.new("LAB", (8, 8), (136, 208, 195))  # L* 53, a* 80, b* 67: sRGB's red
    found = load_image(lab).getpixel((3, 3))
    assert found[0] > 240 and max(found[1:]) < 30


BROKEN = {
    "no profile": b"not a profile at all",
    "cut short": matrix(XYZ["Display P3"])[:200],
    "for inks": inks(),
    "for grey": grey_profile(1.0),
    "all black": matrix(((0, 0, 0),) * 3),
    "all white": matrix(XYZ["Display P3"], b"curv" + bytes(4) + struct.pack(">IHH", 2, 65535, 65535)),
    "all but white is black": matrix(XYZ["Display P3"], 200.0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_profile_is_left_out_with_a_warning(name):
    with pytest.warns(UserWarning, match="colour profile cannot be used"):
        assert shown(colour("RGB", (200, 60, 30)), BROKEN[name]).getpixel((3, 3)) == (200, 60, 30)


def test_no_warning_without_need():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for icc in (None, SRGB, matrix(XYZ["Display P3"])):
            shown(colour("RGB", (200, 60, 30)), icc)

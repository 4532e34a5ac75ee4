import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from respan_common.errors import (
    CapacityError,
    InputError,
    RespanError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from respan_orchestrator.tiff import TiffImage

IJ = {"imagej": True}


def ramp(*shape: int, dtype="uint16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write(folder: Path, values: np.ndarray, name: str = "a.tif", **options) -> Path:
    options = {"photometric": "minisblack"} | options
    tifffile.imwrite(folder / name, values, **options)
    return folder / name


def read_all(image: TiffImage) -> np.ndarray:
    channels, depth, *_ = image.shape_czyx
    planes = [[image.read(c + 1, z) for z in range(depth)] for c in range(channels)]
    return np.array(planes)


def axes_of(axes: str) -> dict:
    return {"metadata": {"axes": axes}}


ZYX, ZCYX, CZYX = (5, 16, 18), (5, 2, 16, 18), (2, 5, 16, 18)
LAYOUTS = {
    "plain": (ZYX, {}, "ZYX"),
    "no metadata": (ZYX, {"metadata": None}, "ZYX"),
    "2D": ((16, 18), {}, "YX"),
    "single plane": ((1, 16, 18), axes_of("ZYX"), "ZYX"),
    "imagej": (ZYX, IJ | axes_of("ZYX"), "ZYX"),
    "imagej channels": (ZCYX, IJ | axes_of("ZCYX"), "ZCYX"),
    "imagej CYX": ((3, 16, 18), IJ | axes_of("CYX"), "CYX"),
    "imagej compressed": (ZCYX, IJ | axes_of("ZCYX") | {"compression": "zlib"}, "ZCYX"),
    "imagej slices filed as channels": ((12, 16, 18), IJ, "ZYX"),
    "ome": (ZYX, {"ome": True} | axes_of("ZYX"), "ZYX"),
    "ome CZYX": (CZYX, {"ome": True} | axes_of("CZYX"), "CZYX"),
    "ome ZCYX": (ZCYX, {"ome": True} | axes_of("ZCYX"), "ZCYX"),
    "ome bigtiff": (CZYX, {"ome": True, "bigtiff": True} | axes_of("CZYX"), "CZYX"),
    "big endian": (ZYX, {"byteorder": ">"}, "ZYX"),
    "one header": (ZYX, {"truncate": True}, "ZYX"),
    "one header, big endian": (ZCYX, {"truncate": True, "byteorder": ">"}, "ZCYX"),
    "bigtiff": (ZYX, {"bigtiff": True}, "ZYX"),
    "lzw": (ZYX, {"compression": "lzw"}, "ZYX"),
    "zstd": (ZYX, {"compression": "zstd"}, "ZYX"),
    "deflate with predictor": (ZYX, {"compression": "zlib", "predictor": True}, "ZYX"),
    "tiles": (ZYX, {"tile": (16, 16)}, "ZYX"),
    "volumetric tiles": (ZYX, {"tile": (16, 16, 16), "volumetric": True}, "ZYX"),
    "unnamed ZCYX": (ZCYX, {}, "ZCYX"),
    "unnamed CZYX": (CZYX, {}, "CZYX"),
    "unnamed ZYXC": ((5, 16, 18, 2), {}, "ZYXC"),
    "unnamed ZYXC compressed": ((5, 16, 18, 2), {"compression": "zlib"}, "ZYXC"),
    "three slices filed as colors": (
        (3, 16, 18),
        {"photometric": "rgb", "planarconfig": "separate"},
        "ZYX",
    ),
    "colors": ((5, 16, 18, 3), {"photometric": "rgb"}, "ZYXC"),
    "named TZCYX": ((1, 5, 2, 16, 18), axes_of("TZCYX"), "TZCYX"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_own_planes(tmp_path, layout):
    shape, options, axes = LAYOUTS[layout]
    values = ramp(*shape)
    expected = np.einsum(
        f"{axes.lower()}->" + "".join(a for a in "czyx" if a in axes.lower()), values
    )
    if "C" not in axes:
        expected = expected[None]
    if "Z" not in axes:
        expected = expected[:, None]
    with TiffImage(write(tmp_path, values, **options)) as image:
        assert image.shape_czyx == expected.shape
        assert np.array_equal(read_all(image), expected)
        assert read_all(image).dtype == np.uint16


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "uint32", "int32"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_grey_values_keep_their_type_and_sign(tmp_path, dtype, byteorder):
    values = ramp(3, 16, 18, dtype=dtype)
    if dtype != "uint8" and not dtype.startswith("u"):
        values -= 400
    path = write(tmp_path, values, byteorder=byteorder)
    with TiffImage(path) as image:
        assert image.dtype == np.dtype(dtype)
        assert image.dtype.isnative
        assert np.array_equal(read_all(image)[0], values)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_cut_file_is_refused_or_lost_nothing(tmp_path, layout):
    shape, options, _ = LAYOUTS[layout]
    whole = write(tmp_path, ramp(*shape), **options)
    with TiffImage(whole) as image:
        expected = read_all(image)
    content = whole.read_bytes()
    for cut in range(1, len(content), len(content) // 60 + 1):
        part = tmp_path / "cut.tif"
        part.write_bytes(content[:cut])
        try:
            with TiffImage(part) as image:
                found = read_all(image)
        except (VolumeFormatError, InputError):
            continue
        assert np.array_equal(found, expected), f"{cut} of {len(content)} bytes"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "0 bytes"),
        (b"hello, this is text\n", "not a TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a TIFF"),
        (b"II*\x00", "damaged"),
        (b"II*\x00\xff\xff\xff\x7f", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not a TIFF"),
    ],
)
def test_what_is_no_tiff_is_refused_by_name(tmp_path, content, complaint):
    (tmp_path / "bad file.tif").write_bytes(content)
    with pytest.raises(VolumeFormatError, match=rf"bad file\.tif.*{complaint}"):
        TiffImage(tmp_path / "bad file.tif")


def test_no_file_is_not_found(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="there is no image"):
        TiffImage(tmp_path / "nothing.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("side", [100_000, 2_000_000_000])
def test_an_absurd_header_is_refused_without_asking_for_memory(tmp_path, compression, side):
    path = write(tmp_path, ramp(16, 18), compression=compression, metadata=None)
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")]
    with path.open("r+b") as file:
        for tag in places:
            file.seek(tag.offset + 2)
            file.write(struct.pack("<HII", 4, 1, side))
    with pytest.raises((VolumeFormatError, CapacityError, InputError), match=r"a\.tif"):
        TiffImage(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_with_their_slice(tmp_path, bad):
    values = ramp(5, 16, 18, dtype="float32")
    values[3, 2, 1] = bad
    with (
        TiffImage(write(tmp_path, values)) as image,
        pytest.raises(VolumeFormatError, match=r"a\.tif: channel 1, slice 4 has 1 values"),
    ):
        read_all(image)


def test_flipped_bits_in_compressed_data_never_pass_silently(tmp_path):
    path = write(tmp_path, ramp(5, 64, 64), compression="zlib")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        content[tif.pages[2].dataoffsets[0] + 20] ^= 0xFF
    path.write_bytes(content)
    with TiffImage(path) as image, pytest.raises(VolumeFormatError, match="damaged"):
        read_all(image)


@pytest.mark.parametrize(
    ("values", "options", "complaint"),
    [
        (np.zeros((5, 8, 9)), {}, "type float64.*Image > Type"),
        (np.zeros((5, 8, 9), "complex64"), {}, "complex64"),
        (np.zeros((5, 8, 9), bool), {}, "bool"),
        (ramp(3, 5, 8, 9), IJ | axes_of("TZYX"), "3 time points.*a file of its own"),
        (ramp(5, 8, 9), IJ | axes_of("TYX"), r"5 time points.*Parameters: axes \(ZYX\)"),
        (ramp(4, 4, 8, 9), {}, "unclear which axis.*Parameters: axes"),
        (ramp(2, 3, 4, 8, 9), {}, "unclear what the axes"),
        (
            ramp(2, 8, 9, 3, dtype="uint8"),
            {"ome": True, "photometric": "rgb"} | axes_of("CYXS"),
            "split",
        ),
    ],
)
def test_an_image_that_cannot_be_analyzed_is_refused_with_a_way_out(
    tmp_path, values, options, complaint
):
    path = write(tmp_path, values, **options)
    with pytest.raises(InputError, match=rf"(?s)a\.tif.*{complaint}"):
        TiffImage(path)


def test_two_images_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for _ in range(2):
            tif.write(ramp(5, 8, 9), metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="holds 2 images"):
        TiffImage(tmp_path / "a.ome.tif")


def test_the_settings_decide_which_axis_is_which(tmp_path):
    time = write(tmp_path, ramp(5, 8, 9), "t.tif", **IJ, **axes_of("TYX"))
    tie = write(tmp_path, ramp(4, 4, 8, 9), "tie.tif")
    single = write(tmp_path, ramp(5, 8, 9), "single.tif", **IJ, **axes_of("ZYX"))
    plain = write(tmp_path, ramp(5, 8, 9), "plain.tif")
    found = {}
    for path, axes in ((time, "ZYX"), (tie, "CZYX"), (single, "ZCYX"), (plain, "ZCYX")):
        with TiffImage(path, axes) as image:
            found[path.stem] = image.shape_czyx
            assert image.notes == []
    assert found == {
        "t": (1, 5, 8, 9),
        "tie": (4, 4, 8, 9),
        "single": (1, 5, 8, 9),
        "plain": (1, 5, 8, 9),
    }
    with pytest.raises(InputError, match="Parameters: axes says"):
        TiffImage(tie, "ZYX")


def test_a_guess_is_noted(tmp_path):
    with TiffImage(write(tmp_path, ramp(5, 2, 16, 18))) as image:
        assert "taken as ZCYX" in image.notes[0]


PX = {"resolution": (10.0, 5.0)}
SPACINGS = {
    "imagej": (
        IJ | PX | {"metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.5}},
        (0.5, 0.2, 0.1),
    ),
    "imagej micron": (
        IJ | PX | {"metadata": {"axes": "ZYX", "unit": "micron", "spacing": -0.5}},
        (0.5, 0.2, 0.1),
    ),
    "imagej escape": (
        IJ | PX | {"metadata": {"axes": "ZYX", "unit": "\\u00B5m", "spacing": 0.5}},
        (0.5, 0.2, 0.1),
    ),
    "imagej nm": (
        IJ
        | {"resolution": (0.01, 0.01), "metadata": {"axes": "ZYX", "unit": "nm", "spacing": 300}},
        (0.3, 0.1, 0.1),
    ),
    "imagej without unit": (IJ | PX | {"metadata": {"axes": "ZYX", "spacing": 0.5}}, (None,) * 3),
    "imagej pixel": (
        IJ | {"metadata": {"axes": "ZYX", "unit": "pixel", "spacing": 1.0}},
        (None,) * 3,
    ),
    "ome": (
        {
            "ome": True,
            "metadata": {
                "axes": "ZYX",
                "PhysicalSizeX": 0.1,
                "PhysicalSizeY": 0.2,
                "PhysicalSizeZ": 500,
                "PhysicalSizeZUnit": "nm",
            },
        },
        (0.5, 0.2, 0.1),
    ),
    "ome placeholder": (
        {
            "ome": True,
            "metadata": {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeZ": 1},
        },
        (None,) * 3,
    ),
    "ome without z": (
        {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1}},
        (None, None, 0.1),
    ),
    "centimeter": ({"resolution": (1e5, 5e4), "resolutionunit": "CENTIMETER"}, (None, 0.2, 0.1)),
    "72 dpi": ({"resolution": (72, 72), "resolutionunit": "INCH"}, (None,) * 3),
    "96 dpi": ({"resolution": (96, 96), "resolutionunit": "INCH"}, (None,) * 3),
    "no unit": (PX | {"resolutionunit": "NONE"}, (None,) * 3),
    "tifffile": (PX | {"metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.5}}, (0.5, 0.2, 0.1)),
    "nothing": ({}, (None,) * 3),
}


@pytest.mark.parametrize("case", SPACINGS)
def test_the_voxel_size_is_what_the_file_says_or_absent(tmp_path, case):
    options, expected = SPACINGS[case]
    with TiffImage(write(tmp_path, ramp(5, 8, 9), **options)) as image:
        assert image.spacing.zyx == tuple(
            edge if edge is None else pytest.approx(edge, rel=1e-6) for edge in expected
        )


def test_channels_have_their_ome_names(tmp_path):
    metadata = {"axes": "CZYX", "Channel": {"Name": ["YFP", "PSD95"]}}
    with TiffImage(write(tmp_path, ramp(2, 5, 8, 9), ome=True, metadata=metadata)) as image:
        assert image.channel_names == ["YFP", "PSD95"]
    with TiffImage(write(tmp_path, ramp(5, 8, 9))) as image:
        assert image.channel_names == ["C1"]


def test_noise_in_the_header_never_escapes_as_a_bug(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path, ramp(3, 8, 9), compression="zlib")
    content = path.read_bytes()
    for _ in range(200):
        noisy = bytearray(content)
        for place in rng.integers(0, len(noisy), 4):
            noisy[place] = rng.integers(0, 256)
        path.write_bytes(noisy)
        try:
            with TiffImage(path) as image:
                if np.prod(image.shape_czyx) < 1_000_000:
                    read_all(image)
        except RespanError:
            pass

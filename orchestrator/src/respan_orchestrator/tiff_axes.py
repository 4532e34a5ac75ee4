"""Which axis of a TIFF is which. Names and sizes only: nothing is read."""

from __future__ import annotations

from respan_common.errors import InputError

_UNKNOWN = "QI"  # tifffile's letters for an axis that nothing names
_MOST_CHANNELS = 8
_DECIDES = "(Parameters: axes decides)"
_WAY_OUT = "say which axis is which with Parameters: axes, such as ZCYX, slowest axis first"


def name_axes(
    letters: str, shape: tuple[int, ...], wanted: str = ""
) -> tuple[str, tuple[int, ...], list[str]]:
    """Axes of a series in the letters T, Z, C, Y, X; axes of size 1 may be missing.

    Parameters
    ----------
    letters
        The axes as tifffile names them, slowest first.
    shape
        Their sizes.
    wanted
        What the settings say; empty: nothing.

    Returns
    -------
    Letters, sizes, and what had to be guessed.

    Raises
    ------
    InputError
        If it is ambiguous, or there are axes that the analysis does not know.
    """
    notes: list[str] = []
    if wanted:
        axes = _as_wanted(letters, shape, wanted)
    elif letters == "SYX":
        # Python programs file a (z, y, x) array of 3 or 4 slices as the colors of one plane.
        axes, notes = "ZYX", [f"{shape[0]} colors of one plane were taken as z slices {_DECIDES}"]
    else:
        axes, notes = _as_found(_without_color(letters, shape), shape)
    kept = [
        (axis, size) for axis, size in zip(axes, shape, strict=True) if size > 1 or axis in "YX"
    ]
    axes, shape = "".join(axis for axis, _ in kept), tuple(size for _, size in kept)
    _refuse_others(axes, shape)
    return axes, shape, notes


def _as_wanted(letters: str, shape: tuple[int, ...], wanted: str) -> str:
    if len(wanted) == len(shape):
        return wanted
    # Settings count for a whole sub-folder: ZCYX also fits its images with a single channel.
    if len(wanted) > len(shape) and set(letters) <= set(wanted):
        return letters
    unnamed = "".join(axis for axis in letters if axis not in _UNKNOWN)
    if len(wanted) == len(shape) + 1 and "C" in wanted and set(unnamed) == {"Y", "X"}:
        return wanted.replace("C", "")
    raise InputError(
        f"the file has {len(shape)} axes of sizes {shape} ({letters}), but Parameters: axes says "
        f"{wanted}"
    )


def _without_color(letters: str, shape: tuple[int, ...]) -> str:
    """Samples of a pixel (red, green, blue) are channels."""
    sizes = dict(zip(letters, shape, strict=True))
    if "S" in letters and "C" in letters and sizes["S"] > 1 and sizes["C"] > 1:
        raise InputError(f"the file has channels and colors ({letters} {shape}); split the colors")
    return letters if "C" in letters and sizes.get("S", 1) == 1 else letters.replace("S", "C")


def _as_found(letters: str, shape: tuple[int, ...]) -> tuple[str, list[str]]:
    unknown = [place for place, axis in enumerate(letters) if axis in _UNKNOWN and shape[place] > 1]
    if len(unknown) == 2 and "Z" not in letters and "C" not in letters:
        return _smallest_is_channel(shape)
    if len(unknown) == 1:
        free = next((axis for axis in "ZC" if axis not in letters), "")
        if free:
            return letters[: unknown[0]] + free + letters[unknown[0] + 1 :], []
    if unknown:
        raise InputError(f"it is unclear what the axes of sizes {shape} are; {_WAY_OUT}")
    return _channels_that_are_slices(letters, shape)


def _smallest_is_channel(shape: tuple[int, ...]) -> tuple[str, list[str]]:
    smallest = min(shape)
    if shape.count(smallest) > 1 or len(shape) != 4:
        raise InputError(f"it is unclear which axis of {shape} is the channel; {_WAY_OUT}")
    rest = iter("ZYX")
    axes = "".join("C" if size == smallest else next(rest) for size in shape)
    note = f"the file does not name its axes; those of sizes {shape} were taken as {axes}"
    return axes, [f"{note} {_DECIDES}"]


def _channels_that_are_slices(letters: str, shape: tuple[int, ...]) -> tuple[str, list[str]]:
    """A stack whose slices are filed as channels, as some programs save a (z, y, x) array."""
    count = dict(zip(letters, shape, strict=True)).get("C", 1)
    has_depth = "Z" in letters and shape[letters.index("Z")] > 1
    if has_depth or count <= _MOST_CHANNELS:
        return letters, []
    axes = letters.replace("Z", "Q").replace("C", "Z")
    note = f"the file names {count} channels and a single plane; they were taken as z slices"
    return axes, [f"{note} {_DECIDES}"]


def _refuse_others(axes: str, shape: tuple[int, ...]) -> None:
    sizes = dict(zip(axes, shape, strict=True))
    if len(sizes) < len(axes) or not {"Y", "X"} <= set(axes):
        raise InputError(f"axes {axes} of sizes {shape} are no image; {_WAY_OUT}")
    if sizes.get("T", 1) > 1:
        raise InputError(
            f"the file has {sizes['T']} time points; save each as a file of its own, or, "
            f"if they are z slices, say so with Parameters: axes "
            f"({axes.replace('T', 'Z') if 'Z' not in axes else axes})"
        )
    others = "".join(axis for axis in axes if axis not in "TZCYX")
    if others:
        raise InputError(f"the file has axes {others} beside z, channel, y, x; {_WAY_OUT}")

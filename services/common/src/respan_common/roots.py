"""Which folders a request may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from respan_common.errors import InputError


def resolve(uri: str, roots: Sequence[Path], what: str = "uri") -> Path:
    """Path that a request names, with `..` and symbolic links resolved.

    Parameters
    ----------
    uri
        A path or a file:// URI.
    roots
        Folders of which one must hold the path, links followed.
    what
        Name of the request's field, for the message.

    Raises
    ------
    InputError
        If the path is empty or lies outside every root.
    """
    if not uri:
        raise InputError(f"{what} is empty: name a path under {_listed(roots)}")
    try:
        path = _as_path(uri).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL, too long, a loop of links
        raise InputError(f"{what} {uri!r} is not a path: {error}") from error
    if any(path.is_relative_to(root.resolve()) for root in roots):
        return path
    raise InputError(
        f"{what} '{uri}' lies outside the folders that this service may open ({_listed(roots)}); "
        "move it there or add its folder to RESPAN_DATA_ROOTS or RESPAN_MODEL_ROOTS"
    )


def _as_path(uri: str) -> Path:
    # A URI writes a blank as %20; a plain path may hold a real per cent sign.
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(str(root) for root in roots) or "none"

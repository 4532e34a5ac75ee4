"""Which folders and buckets a request may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from respan_common.buckets import BucketPath, Location, is_bucket_uri
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


def resolve_store(
    uri: str, roots: Sequence[Path], volumes: BucketPath | None, what: str = "uri"
) -> Location:
    """Store that a request names: below one of the folders, or in the bucket's folder.

    Raises
    ------
    InputError
        If it lies anywhere else.
    """
    if not is_bucket_uri(uri):
        return resolve(uri, roots, what)
    try:
        place = BucketPath.parse(uri)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    if volumes is not None and place != volumes and place.is_relative_to(volumes):
        return place
    raise InputError(
        f"{what} '{uri}' lies outside what this service may open in buckets "
        f"({volumes or 'nothing'}); set RESPAN_VOLUMES, in services and orchestrator alike"
    )


def _as_path(uri: str) -> Path:
    # A URI writes a blank as %20; a plain path may hold a real per cent sign.
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(str(root) for root in roots) or "none"

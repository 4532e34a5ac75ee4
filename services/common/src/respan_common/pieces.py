"""Pieces of an unfinished stage, claimed and ticked off by whoever works on them.

    pieces = Pieces(draft_folder(store, stage))
    with pieces.claimed(tokens) as mine:
        if mine:
            ...
            pieces.mark_done(tokens)

Several processes, on one machine or on many that share a disk, may work on one draft: a claim is a
lock file, which the kernel frees when its holder dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from respan_common.locks import exclusive_if_free
from respan_common.records import FOLDER


@dataclass(frozen=True)
class Pieces:
    """Pieces of the draft in one folder; a piece is named by a token, a line of text."""

    folder: Path

    @property
    def marker(self) -> Path:
        """File with the digest of the work that the draft is for."""
        return self.folder / FOLDER / "key"

    def belong_to(self, digest: str) -> bool:
        """Whether the draft is for this very work."""
        try:
            return self.marker.read_text(encoding="utf-8") == digest
        except FileNotFoundError:
            return False

    def done(self) -> set[str]:
        """Tokens of all finished pieces, by whomever."""
        try:
            lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return set()
        # A full disk may have cut the last line short, and "block 1" is not "block 12".
        return {line.removesuffix("\n") for line in lines if line.endswith("\n")}

    def mark_done(self, tokens: Iterable[str]) -> None:
        """Remember that pieces are finished and on disk."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write("".join(f"{token}\n" for token in tokens))

    @contextmanager
    def claimed(self, tokens: Iterable[str]) -> Iterator[bool]:
        """Hold pieces that nobody else holds; gives whether all of them could be had."""
        claims = self.folder / FOLDER / "claims"
        claims.mkdir(exist_ok=True)
        with ExitStack() as held:
            # One order for everybody, and no waiting: nobody can stand in another's way for ever.
            yield all(
                held.enter_context(exclusive_if_free(claims / token.replace(" ", "_")))
                for token in sorted(tokens)
            )

    @property
    def _log(self) -> Path:
        return self.folder / FOLDER / "done.log"

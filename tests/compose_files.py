"""Compose files as what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML with the tags that Compose adds to it: what !reset or !override marks is nothing."""


_Loader.add_multi_constructor("!", lambda loader, tag, node: None)


def read_compose(path: Path) -> dict[str, Any]:
    """Content of a compose file."""
    content = yaml.load(path.read_text(), Loader=_Loader)
    assert isinstance(content, dict)
    return content

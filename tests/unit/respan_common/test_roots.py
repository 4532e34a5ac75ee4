from __future__ import annotations

import pytest

from respan_common.errors import InputError
from respan_common.roots import resolve


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "My Images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return folder


def test_a_path_under_a_root_is_resolved(root):
    wanted = root / "My Images" / "a.ome.zarr"
    assert resolve(str(wanted), [root]) == wanted
    assert resolve(str(root / "My Images" / ".." / "b"), [root]) == root / "b"


def test_a_file_uri_may_write_a_blank_as_percent_twenty(root):
    assert resolve((root / "My Images").as_uri(), [root]) == root / "My Images"
    assert resolve(f"file://{root}/My Images", [root]) == root / "My Images"


def test_a_plain_path_keeps_its_per_cent_signs(root):
    assert resolve(f"{root}/50%20", [root]) == root / "50%20"


@pytest.mark.parametrize(
    "uri", ["{root}/../elsewhere", "/etc/passwd", "{root}x", "elsewhere", ".."]
)
def test_a_path_outside_every_root_is_refused(root, uri):
    with pytest.raises(InputError, match="outside"):
        resolve(uri.format(root=root), [root])


def test_an_encoded_way_out_is_refused(root):
    with pytest.raises(InputError, match="outside"):
        resolve(f"file://{root}/%2e%2e/elsewhere", [root])


def test_a_link_that_leaves_the_root_is_refused(root):
    (root / "out").symlink_to(root.parent / "elsewhere")
    with pytest.raises(InputError, match="outside"):
        resolve(str(root / "out" / "x"), [root])


def test_a_root_may_itself_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert resolve(str(tmp_path / "link" / "x"), [tmp_path / "link"]) == root / "x"


def test_an_empty_path_names_its_field_and_the_roots(root):
    with pytest.raises(InputError, match=r"params\.model is empty.*data"):
        resolve("", [root], "params.model")


def test_without_roots_nothing_may_be_opened(root):
    with pytest.raises(InputError, match="none"):
        resolve(str(root), [])


@pytest.mark.parametrize("uri", ["/data/\0", "/" + "x" * 5000])
def test_what_is_no_path_is_the_callers_fault(root, uri):
    with pytest.raises(InputError):
        resolve(uri, [root])

"""Zips from anywhere: what is unpacked, and what is refused before a byte is written."""

import stat
import zipfile

import pytest

from respan_common.errors import ModelError
from respan_orchestrator import model_archives
from respan_orchestrator.model_archives import unpack

PLAIN = {"m/plans.json": b"{}", "m/fold_all/checkpoint_final.pth": b"weights"}


def entry(name, kind=0, **values):
    found = zipfile.ZipInfo(name)
    found.external_attr = (kind | 0o644) << 16
    for key, value in values.items():
        setattr(found, key, value)
    return found


def write(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*PLAIN.items(), *entries]:
            archive.writestr(name, content)
    return path


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_only_what_a_model_may_need_is_unpacked(tmp_path):
    entries = [
        ("m/fold_all/validation/case1.nii", b"large"),
        ("m/setup.py", b"print()"),
        ("__MACOSX/m/._plans.json", b"junk"),
        ("m/.DS_Store", b"junk"),
    ]
    found = unpack(write(tmp_path / "a.zip", entries), tmp_path / "out")
    files = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    assert files == set(PLAIN)


def test_backslashes_of_windows_are_folders(tmp_path):
    archive = write(tmp_path / "a.zip", [("w\\dataset.json", b"{}")])
    assert (unpack(archive, tmp_path / "out") / "w" / "dataset.json").is_file()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../plans.json", "outside"),
        ("m/../../plans.json", "outside"),
        ("..\\plans.json", "outside"),
        ("/etc/plans.json", "outside"),
        ("\\\\server\\plans.json", "outside"),
        ("C:\\plans.json", "outside"),
        ("m/a\nb.json", "control characters"),
        ("m/more.zip", "archive inside"),
        ("m/more.tar.gz", "archive inside"),
        ("M/plans.json", "upper and lower case"),
        ("m/Plans.json", "upper and lower case"),
        ("m/plans.json/x.json", "two entries of one name"),
        (entry("m/link.json", stat.S_IFLNK), "link or a device"),
        (entry("m/fifo.json", stat.S_IFIFO), "link or a device"),
        (entry("m/device.json", stat.S_IFCHR), "link or a device"),
        (entry("m/socket.json", stat.S_IFSOCK), "link or a device"),
    ],
)
def test_an_entry_that_does_harm_is_refused_and_nothing_is_written(tmp_path, name, problem):
    archive = write(tmp_path / "a.zip", [(name, b"/etc/passwd")])
    before = everything(tmp_path)
    with pytest.raises(ModelError, match=problem) as refused:
        unpack(archive, tmp_path / "out")
    assert str(archive) in str(refused.value)
    assert everything(tmp_path) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path):
    archive = write(tmp_path / "a.zip", [("m/plans.json", b"{'other': 1}")])
    with pytest.raises(ModelError, match="two entries of one name"):
        unpack(archive, tmp_path / "out")


def test_a_password_is_told(tmp_path):
    archive = write(tmp_path / "a.zip", [("m/card.json", b"{}")])
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # flags in the last entry of the directory
    archive.write_bytes(content)
    with pytest.raises(ModelError, match="password"):
        unpack(archive, tmp_path / "out")


def test_a_bomb_is_refused_by_what_it_says_it_becomes(tmp_path, monkeypatch):
    monkeypatch.setattr(model_archives, "_SMALL_BYTES", 2**20)
    archive = write(tmp_path / "a.zip", [("m/card.json", bytes(2**22))])
    with pytest.raises(ModelError, match="would become"):
        unpack(archive, tmp_path / "out")


def test_a_bomb_that_lies_is_cut_at_what_it_says(tmp_path):
    archive = write(tmp_path / "a.zip", [("m/card.json", bytes(2**22))])
    content = archive.read_bytes()
    size = (2**22).to_bytes(4, "little")
    archive.write_bytes(content.replace(size, (9).to_bytes(4, "little")))
    with pytest.raises(ModelError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")
    written = tmp_path / "out" / "m" / "card.json"
    assert not written.exists() or written.stat().st_size <= 9


def test_more_than_the_disk_holds_is_refused_before_it_is_full(tmp_path, monkeypatch):
    usage = model_archives.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(model_archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="free some space"):
        unpack(write(tmp_path / "a.zip", []), tmp_path / "out")


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(model_archives, "_MOST_ENTRIES", 2)
    with pytest.raises(ModelError, match="3 files, too many"):
        unpack(write(tmp_path / "a.zip", [("m/card.json", b"{}")]), tmp_path / "out")


def test_a_damaged_zip_is_told(tmp_path):
    archive = write(tmp_path / "a.zip", [])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x03\x04") + 40] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(ModelError, match="copy it again"):
        unpack(archive, tmp_path / "out")

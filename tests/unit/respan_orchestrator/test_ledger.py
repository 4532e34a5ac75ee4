import os

from respan_orchestrator.ledger import Ledger


def test_a_file_is_written_once_for_the_same_work(tmp_path):
    log, file = tmp_path / "export.log", tmp_path / "a.tif"
    Ledger(log, "key").once(file, lambda: file.write_text("first"))
    Ledger(log, "key").once(file, lambda: file.write_text("second"))
    assert file.read_text() == "first"
    Ledger(log, "other").once(file, lambda: file.write_text("third"))
    assert file.read_text() == "third"


def test_a_file_that_changed_or_is_gone_does_not_count(tmp_path):
    log, file = tmp_path / "export.log", tmp_path / "a.tif"
    Ledger(log, "key").once(file, lambda: file.write_text("first"))
    os.utime(file, ns=(0, 0))
    assert Ledger(log, "key").facts(file) is None
    file.unlink()
    assert Ledger(log, "key").facts(file) is None


def test_facts_come_back_and_a_half_written_line_does_not(tmp_path):
    log = tmp_path / "export.log"
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.touch()
        Ledger(log, "key").add(file, {"cut": [3]})
    log.write_text(log.read_text()[:-5])
    again = Ledger(log, "key")
    assert again.facts(files[0]) == {"cut": [3]}
    assert again.facts(files[1]) is None


def test_a_finished_export_leaves_no_list(tmp_path):
    ledger = Ledger(tmp_path / "export.log", "key")
    ledger.close()
    assert not list(tmp_path.iterdir())

import os

import pytest
from tests.unit.respan_common.crew_work import prepare

from respan_common.errors import CancelledError, CapacityError
from respan_common.processes import Crew


def nothing():
    return None


@pytest.mark.parametrize("size", [1, 2])
def test_every_piece_is_done_once(tmp_path, size):
    with Crew(prepare, tmp_path, size) as crew:
        assert sorted(crew.done("a", range(5), nothing)) == [0, 1, 2, 3, 4]
        assert list(crew.done("b", [7], nothing)) == [7]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *[f"a {n}" for n in range(5)],
        "b 7",
    ]
    workers = {int(path.read_text()) for path in tmp_path.iterdir()}
    assert (os.getpid() in workers) == (size == 1)


@pytest.mark.parametrize("size", [1, 2])
def test_an_error_in_a_piece_reaches_the_caller(tmp_path, size):
    with Crew(prepare, tmp_path, size) as crew, pytest.raises(ValueError, match="piece 3 is bad"):
        list(crew.done("fail", [3], nothing))


def test_a_killed_process_is_a_lack_of_memory(tmp_path):
    with Crew(prepare, tmp_path, 2) as crew, pytest.raises(CapacityError, match="RESPAN_THREADS"):
        list(crew.done("die", [0], nothing))


def test_a_caller_who_gives_up_stops_everything(tmp_path):
    def gone():
        raise CancelledError("gone")

    with Crew(prepare, tmp_path, 2) as crew, pytest.raises(CancelledError):
        list(crew.done("a", range(1000), gone))
    assert len(list(tmp_path.iterdir())) < 1000

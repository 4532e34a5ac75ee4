from __future__ import annotations

import json
import threading

import pytest

from respan_common import call_context


def test_names_hold_inside_a_block_and_no_longer():
    with call_context.concerning(run="r", image="cell 1 µm"), call_context.concerning(stage="s"):
        assert call_context.about() == {"run": "r", "image": "cell 1 µm", "stage": "s"}
    assert call_context.about() == {}


def test_names_survive_the_wire_whatever_their_letters():
    with call_context.concerning(run="r", image="Zelle ä 樹突\n"):
        header = call_context.as_header()
        expected = call_context.about()
    assert call_context.from_header(header) == expected


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[1]", b"{", b'"x"', b"1"])
def test_what_is_not_a_header_names_nothing(value):
    assert call_context.from_header(value) == {}


def test_a_caller_can_neither_invent_names_nor_flood_the_log():
    sent = json.dumps({"image": "x" * 10_000, "level": "ERROR"}).encode()
    assert call_context.from_header(sent) == {"image": "x" * 200}


def test_names_of_one_thread_are_not_those_of_another():
    seen = []
    with call_context.concerning(run="r"):
        other = threading.Thread(target=lambda: seen.append(call_context.about()))
        other.start()
        other.join()
    assert seen == [{}]


def test_a_process_that_is_given_names_has_them_in_every_thread():
    seen = []
    call_context.concern({"run": "r"})
    try:
        other = threading.Thread(target=lambda: seen.append(call_context.about()))
        other.start()
        other.join()
        call_context.concern({"image": "i"})
        assert call_context.about() == {"image": "i"}
    finally:
        call_context.concern({})
    assert seen == [{"run": "r"}]

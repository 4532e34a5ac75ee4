"""What an address in the settings stands for."""

import socket

import pytest
from pydantic import ValidationError

from respan_orchestrator.addresses import Replica, replicas_at
from respan_orchestrator.settings import OrchestratorSettings


@pytest.fixture
def names(monkeypatch):
    """A name server that knows these, and no others."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host, port, **_):
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [
            (families[":" in number], socket.SOCK_STREAM, 6, "", (number, int(port)))
            for number in known[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.mark.parametrize("address", ["segmentation:50051", "dns:///segmentation:50051"])
def test_a_name_is_all_the_machines_behind_it_which_keep_its_certificate(names, address):
    names["segmentation"] = ["10.0.0.7", "10.0.0.5", "10.0.0.7"]
    assert replicas_at(address) == [
        Replica("10.0.0.5:50051", "segmentation:50051"),
        Replica("10.0.0.7:50051", "segmentation:50051"),
    ]


def test_a_machine_with_addresses_of_both_kinds_is_one(names):
    names["one"] = ["10.0.0.5", "fd00::5"]
    assert replicas_at("one:1") == [Replica("one:1")]
    names["two"] = ["fd00::5", "fd00::6"]
    assert replicas_at("two:1") == [
        Replica("[fd00::5]:1", "two:1"),
        Replica("[fd00::6]:1", "two:1"),
    ]


def test_a_list_has_each_of_its_members_once(names):
    names["a"] = ["10.0.0.1"]
    assert replicas_at(" a:1, 10.0.0.2:7,a:1,, ") == [Replica("a:1"), Replica("10.0.0.2:7")]


def test_what_cannot_be_resolved_stays_as_it_is(names):
    assert replicas_at("unheard-of:1,unix:/run/x") == [
        Replica("unheard-of:1"),
        Replica("unix:/run/x"),
    ]


def test_no_address_is_no_replica():
    assert replicas_at("") == []


def test_an_address_without_a_port_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("RESPAN_SEGMENTATION_ADDRESS", "a:1,b")
    with pytest.raises(ValidationError, match="'b' has no port"):
        OrchestratorSettings()

"""Where a service's replicas are: what an address in the settings stands for."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

_HOST_AND_PORT = re.compile(r"(?:dns:///)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d+)")


@dataclass(frozen=True)
class Replica:
    """One process of a service."""

    address: str
    """What to connect to."""
    authority: str = ""
    """host:port that its certificate is for, where the address is one of many behind that name."""


def replicas_at(addresses: str) -> list[Replica]:
    """All processes behind an address or a list of them, each once; asks the name server.

    A name that cannot be resolved stays as it is: whoever calls it says that nothing answers.
    """
    each = (part.strip() for part in addresses.split(","))
    return list(dict.fromkeys(replica for part in each if part for replica in _behind(part)))


def _behind(address: str) -> list[Replica]:
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:  # gRPC knows other kinds, such as unix:
        return [Replica(address)]
    name = ":".join(match.groups())
    found = _resolved(*match.groups())
    if len(found) < 2:
        return [Replica(name)]
    return [Replica(one, name) for one in found]


def _resolved(host: str, port: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    families = {
        family: list(dict.fromkeys(str(place[0]) for kind, *_, place in found if kind == family))
        for family in (socket.AF_INET, socket.AF_INET6)
    }
    # A machine with an address of each kind is one machine.
    if numbers := families[socket.AF_INET]:
        return [f"{number}:{port}" for number in sorted(numbers)]
    return [f"[{number}]:{port}" for number in sorted(families[socket.AF_INET6])]

"""Which replica of a service does what: the one with the least to do."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from respan_orchestrator import clients
from respan_orchestrator.addresses import Replica, replicas_at
from respan_orchestrator.clients import CONNECT_TIMEOUT_S, StageUnavailableError
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.side_by_side import pause

_AGAIN_S = 1.0


class Replicas:
    """Replicas of all services, and how many calls of this process each of them has."""

    def __init__(self, settings: OrchestratorSettings) -> None:
        self._settings = settings
        self._calls: Counter[Replica] = Counter()
        self._choosing = threading.Lock()

    @contextmanager
    def least_busy(self, service: str, address: Callable[[], str]) -> Iterator[Replica]:
        """A replica with the least to do; it counts as busy while the block goes on.

        Parameters
        ----------
        address
            Gives the service's address, or list of them, as it is at the moment.

        Raises
        ------
        StageUnavailableError
            If none of several answers.
        """
        replica = self._take(self._answering(service, address))
        try:
            yield replica
        finally:
            self.give_back(replica)

    def take_idle(self, service: str, address: str, besides: Collection[Replica]) -> Replica | None:
        """A replica that has nothing to do; it counts as busy until it is given back."""
        others = [replica for replica in replicas_at(address) if replica not in besides]
        idle = {
            replica: load
            for replica, load in self._loads(service, others).items()
            if not load and not self._calls[replica]
        }
        return self._take(idle) if idle else None

    def give_back(self, replica: Replica) -> None:
        """Say that a call has ended."""
        with self._choosing:
            self._calls[replica] -= 1

    def _take(self, loads: Mapping[Replica, int]) -> Replica:
        with self._choosing:
            # What this process has just sent, a replica may not have counted yet.
            least = min(
                loads,
                key=lambda one: (max(loads[one], self._calls[one]), self._calls[one], _luck()),
            )
            self._calls[least] += 1
            return least

    def _answering(self, service: str, address: Callable[[], str]) -> Mapping[Replica, int]:
        """What each replica that answers has to do; waits until one does."""
        end = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            replicas = replicas_at(address())
            if len(replicas) == 1:  # no choice: whoever calls it waits for it
                return {replicas[0]: 0}
            if loads := self._loads(service, replicas):
                return loads
            if time.monotonic() > end:
                each = ", ".join(replica.address for replica in replicas)
                raise StageUnavailableError(
                    f"none of the {service} services answers ({each}): is one up?"
                )
            pause(_AGAIN_S)

    def _loads(self, service: str, replicas: list[Replica]) -> dict[Replica, int]:
        if not replicas:
            return {}
        ask = partial(clients.load, service, settings=self._settings)
        with ThreadPoolExecutor(len(replicas)) as threads:
            answers = zip(replicas, threads.map(ask, replicas), strict=True)
            return {replica: load for replica, load in answers if load is not None}


def _luck() -> float:
    """Runs that choose at the same time should not all choose the same."""
    return random.random()

"""One stage of one image, done by one replica or by all that are idle.

Replicas that get the same request share the image: one leads, the others do pieces of its work and
end when it ends. If the leader is lost, a helper leads on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from respan_orchestrator import clients
from respan_orchestrator.addresses import Replica
from respan_orchestrator.clients import Event, Listener, Request, Result, StageFailedError
from respan_orchestrator.services import ServicePool
from respan_orchestrator.side_by_side import Threads

_LOOK_S = 5.0
"""How often to look for replicas that have become idle."""
_REST_S = 5.0
"""How long helpers may take to notice that all is done; cut off, they would lose their models."""


def follow(request: Request, pool: ServicePool, listener: Listener) -> Result:
    """Send a request to the least busy replica, and have idle ones help if they can.

    Raises
    ------
    StageFailedError
        As `clients.follow`.
    """
    with pool.least_busy(request.service) as replica:
        if not pool.shares(request):
            return clients.follow(request, replica, pool.settings, listener)
        return _Sharing(request, pool, listener).followed(replica)


class _Sharing:
    """Replicas at one request."""

    def __init__(self, request: Request, pool: ServicePool, listener: Listener) -> None:
        self._request, self._pool = request, pool
        self._threads: Threads[Result] = Threads()
        self._news = _Furthest(listener, self._threads.wake)
        self._asked: set[Replica] = set()

    def followed(self, first: Replica) -> Result:
        failures: dict[int, StageFailedError] = {}
        with self._threads as threads:
            self._begin(first, lambda: None)
            while threads.running:
                self._look_for_help()
                ended = threads.next_ended(_LOOK_S)
                if ended is None:
                    continue
                if not isinstance(ended.error, StageFailedError):
                    return self._with_the_rest(ended.value())
                failures[ended.number] = ended.error
        raise failures[0]

    def _begin(self, replica: Replica, finish: Callable[[], None]) -> None:
        self._asked.add(replica)

        def work() -> Result:
            try:
                return clients.follow(self._request, replica, self._pool.settings, self._news)
            finally:
                finish()

        self._threads.begin(work)

    def _look_for_help(self) -> None:
        # Before the first word it may turn out that there is nothing to do, or that it cannot be.
        while self._news.has_begun:
            helper = self._pool.take_helper(
                self._request.service, self._threads.running, self._asked
            )
            if helper is None:
                return
            self._begin(helper, partial(self._pool.give_back, helper))

    def _with_the_rest(self, result: Result) -> Result:
        """The result of whoever led: the others found it done."""
        results = [result]
        end = time.monotonic() + _REST_S
        while self._threads.running and (left := end - time.monotonic()) > 0:
            ended = self._threads.next_ended(left)
            if ended is not None and ended.error is None:
                results.append(ended.value())
        return min(results, key=lambda one: one.skipped)


class _Furthest:
    """Passes on what is news: every replica tells how far all of them are."""

    def __init__(self, listener: Listener, begin: Callable[[], None]) -> None:
        self._listener, self._begin = listener, begin
        self._lock = threading.Lock()
        self._share = -1.0
        self.has_begun = False

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.WhichOneof("event") == "progress":
                progress = event.progress
                share = progress.done / progress.total if progress.total else -1.0
                if share < self._share:
                    return
                self._share = share
            elif not self.has_begun:
                self.has_begun = True
                self._begin()
            self._listener(event)

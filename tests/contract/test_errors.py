"""Every error says whose fault it is, wherever it is defined."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import grpc
import pytest

import respan_common
from respan_common import errors, serving
from respan_common.errors import RespanError
from respan_common.serving import STATUS_OF, status_of


def all_below(kind: type[RespanError]) -> Iterator[type[RespanError]]:
    for child in kind.__subclasses__():
        yield child
        yield from all_below(child)


for module in pkgutil.iter_modules(respan_common.__path__):
    importlib.import_module(f"respan_common.{module.name}")
# Those of the services and the orchestrator are their own; these reach every process.
ERRORS = sorted(
    {kind for kind in all_below(RespanError) if kind.__module__.startswith("respan_common.")},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_status(kind):
    assert any(parent in STATUS_OF for parent in kind.__mro__), f"{kind.__name__} has no status"
    assert status_of(kind("text")) != grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_crosses_from_the_worker_to_the_server(kind):
    received = pickle.loads(pickle.dumps(kind("what is wrong")))
    assert (type(received), str(received)) == (kind, "what is wrong")


def test_an_error_without_an_entry_has_the_status_of_its_base():
    assert errors.ModelError not in STATUS_OF
    assert status_of(errors.ModelError("x")) == grpc.StatusCode.INVALID_ARGUMENT
    assert status_of(RespanError("x")) == grpc.StatusCode.INTERNAL


def test_only_a_lost_worker_is_worth_a_retry():
    retried = [kind for kind, code in STATUS_OF.items() if code == grpc.StatusCode.UNAVAILABLE]
    assert retried == [serving.WorkerLostError]

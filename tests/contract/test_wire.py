"""Both sides of the wire agree."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import Default

from respan.v1 import (
    quantification_pb2,
    restoration_pb2,
    segmentation_pb2,
    stage_pb2,
    training_pb2,
)
from respan_common import params
from respan_common.convert import from_proto, to_proto
from respan_common.events import Accepted, Progress, StageResult
from respan_common.serving import to_message

ROOT = Path(__file__).parents[2]
FILES = [restoration_pb2, segmentation_pb2, quantification_pb2, training_pb2]
MESSAGES = {
    name: getattr(file, name)
    for file in FILES
    for name in file.DESCRIPTOR.message_types_by_name
    if name.endswith("Params")
}
MODELS = {model.__name__: model for model in params.StageParams.__subclasses__()}


def test_every_params_message_has_its_model_and_every_model_its_message():
    assert set(MESSAGES) == set(MODELS)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_message_and_model_have_the_same_fields(name):
    assert set(MESSAGES[name].DESCRIPTOR.fields_by_name) == set(MODELS[name].model_fields)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_an_empty_message_means_all_defaults(name):
    assert from_proto(MESSAGES[name](), MODELS[name]) == MODELS[name]()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_defaults_survive_the_wire(name):
    wire = to_proto(MODELS[name](), MESSAGES[name]).SerializeToString()
    assert from_proto(MESSAGES[name].FromString(wire), MODELS[name]) == MODELS[name]()


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_zero_can_be_told_from_an_absent_field(name):
    for field in MESSAGES[name].DESCRIPTOR.fields:
        assert field.is_repeated or field.has_presence, f"{name}.{field.name} is not optional"


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_only_types_that_come_back_as_they_were_are_used(name):
    # 64-bit integers come back as strings, floats with other digits, enums by other names.
    kinds = {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_STRING,
    }
    for field in MESSAGES[name].DESCRIPTOR.fields:
        entry = field.message_type
        parts = entry.fields if entry is not None else [field]
        assert {part.type for part in parts} <= kinds, f"{name}.{field.name}"


@pytest.mark.parametrize("event", [Accepted, Progress, StageResult])
def test_an_event_has_the_fields_of_its_message(event):
    message = getattr(stage_pb2, event.__name__)
    assert set(event.__dataclass_fields__) == set(message.DESCRIPTOR.fields_by_name)


def test_every_event_becomes_a_message():
    events = {
        "accepted": Accepted((4, 5, 6), (0.3, 0.1, 0.1), "abc", "cuda", 8, 3),
        "progress": Progress(1, 3, None, "block"),
        "result": StageResult(("labels/classes",), {"spines": 3.0}, True, 1.5, 9.0, ("w",)),
    }
    for kind, event in events.items():
        message = to_message(event)
        assert message.WhichOneof("event") == kind
    assert not to_message(Progress(1, 3)).progress.HasField("seconds_left")
    assert to_message(Progress(1, 3, 0.0)).progress.HasField("seconds_left")


def test_every_service_has_describe_and_streams_its_stages():
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            methods = dict(service.methods_by_name)
            assert methods.pop("Describe").output_type.name == "DescribeResponse"
            for method in methods.values():
                assert method.server_streaming, method.full_name
                assert method.output_type.full_name == "respan.v1.StageEvent"


def test_no_two_calls_share_a_request():
    services = itertools.chain(*(file.DESCRIPTOR.services_by_name.values() for file in FILES))
    stages = [m for s in services for m in s.methods if m.name != "Describe"]
    assert len({method.input_type.full_name for method in stages}) == len(stages)
    assert all(Default().FindMethodByName(method.full_name) for method in stages)


def test_the_committed_stubs_are_what_the_protos_generate(tmp_path):
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.generate(tmp_path)
    committed = ROOT / "protos" / "src"
    assert generate.differences(tmp_path, committed) == []
    stub = tmp_path / "respan" / "v1" / "stage_pb2.py"
    stub.write_text(stub.read_text() + "\n")
    (tmp_path / "respan" / "v1" / "training_pb2.pyi").unlink()
    changed = ["respan/v1/stage_pb2.py", "respan/v1/training_pb2.pyi"]
    assert generate.differences(tmp_path, committed) == changed

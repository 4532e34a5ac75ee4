"""Messages of the wire to params and back, one pair of functions for all stages."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from pydantic import BaseModel, ValidationError

from respan_common.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Wire = TypeVar("Wire", bound=Message)


def from_proto(message: Message, model: type[Model]) -> Model:
    """Validate a message's fields as a params model; an absent field means the model's default.

    Raises
    ------
    InputError
        With one line for each field that is wrong.
    """
    return validated(model, MessageToDict(message, preserving_proto_field_name=True))


def to_proto(params: BaseModel, message: type[Wire]) -> Wire:
    """Message with every field of `params` that has a value.

    Raises
    ------
    InputError
        If a value does not fit the wire, such as a whole number of more than 32 bits.
    """
    try:
        return ParseDict(params.model_dump(mode="json", exclude_none=True), message())
    except ParseError as error:
        raise InputError(str(error)) from error


def validated(model: type[Model], values: dict[str, object]) -> Model:
    """Build a params model, or say which fields are wrong and why."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or model.__name__}: {problem['msg']}"
            f" (given: {problem['input']!r})"
            for problem in error.errors()
        ]
        raise InputError("; ".join(problems)) from error

"""Validation of message payloads: errors that name the wrong member."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class InvalidPayload(ValueError):
    """A payload does not match its message; the text says which member is wrong and why."""


class Message(BaseModel):
    """Base of the payloads of signals, updates and queries: immutable, without unknown members."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Name = Annotated[str, Field(max_length=200)]
Reason = Annotated[str, Field(max_length=1000)]
M = TypeVar("M", bound=BaseModel)


def read(model: type[M], payload: Sequence[object]) -> M:
    """The validated payload of a message, whose arguments are one object or none.

    Raises `InvalidPayload`, with one line that names each wrong member.
    """
    if len(payload) > 1:
        raise InvalidPayload(f"{len(payload)} arguments; expected one object, or none")
    try:
        return model.model_validate(payload[0] if payload and payload[0] is not None else {})
    except ValidationError as error:
        raise InvalidPayload(
            "; ".join(
                f"{'.'.join(map(str, fault['loc']))[:64] or 'payload'}: {fault['msg'][:160]}"
                for fault in error.errors(include_url=False, include_input=False)[:5]
            )
        ) from None

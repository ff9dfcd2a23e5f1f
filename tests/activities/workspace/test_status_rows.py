"""Requests come back from the record as they were decided, but for what PostgreSQL cannot store."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from activities.workspace import status_rows
from workflows.workspace.requests import Request


@given(st.from_type(Request))
def test_a_request_comes_back_as_it_was(request: Request) -> None:
    storable = replace(
        request,
        request_id=status_rows.storable(request.request_id),
        requested_by=status_rows.storable(request.requested_by),
        reason=status_rows.storable(request.reason),
        detail=status_rows.storable(request.detail),
    )
    assert status_rows.request_of(status_rows.request_row(request)) == storable


@given(st.text(st.characters(codec="utf-8")).map(lambda text: f"\0{text}\0"))
def test_a_text_keeps_its_length_and_loses_its_nuls(text: str) -> None:
    stored = status_rows.storable(text)
    assert "\0" not in stored
    assert len(stored) == len(text)
    assert stored[0] == stored[-1] == "\N{REPLACEMENT CHARACTER}"

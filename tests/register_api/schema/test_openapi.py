"""The OpenAPI document is valid, its examples are real, and the API behaves as documented."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from register_api.http.error_codes import ERROR_SPECS
from register_api.http.errors import error_body
from register_api.schema import openapi
from register_api.schema.endpoint import COMMON_CODES, Operation
from register_api.schema.endpoints import OPERATIONS
from tests.register_api.platform import KEYS
from tests.register_api.schema.examples import examples_process
from tests.register_api.serving import ApiProcess

DOCUMENT = openapi.document()
BODIES = [operation for operation in OPERATIONS if operation.body is not None]


@pytest.fixture(scope="module")
def api(database: str) -> Iterator[ApiProcess]:
    """A process that serves the workspaces of the examples."""
    with examples_process(database) as process:
        yield process


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_document_that_is_served_is_this_one(api: ApiProcess) -> None:
    assert httpx2.get(f"{api.url}/openapi.json", trust_env=False, timeout=60).json() == json.loads(
        json.dumps(DOCUMENT)
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.name)
def test_an_example_of_an_answer_is_an_answer(operation: Operation) -> None:
    example = operation.response_model.model_validate(operation.example)
    assert json.loads(example.model_dump_json()) == operation.example


@pytest.mark.parametrize("operation", BODIES, ids=lambda it: it.name)
def test_an_example_of_a_body_is_taken_and_answered_as_documented(
    operation: Operation, api: ApiProcess
) -> None:
    examples = {parameter.name: str(parameter.example) for parameter in operation.parameters}
    path = operation.path.format(**examples)
    secret = KEYS.bootstrap_secret("ws-1", 1, key_id="k1")
    with httpx2.Client(base_url=api.url, trust_env=False, timeout=60) as client:
        registered = client.post("/registry/register", json={"id": "ws-1"}, headers=bearer(secret)).json()
        token = registered.get("auth_token", TOKENS.get("ws-1", ""))
        TOKENS["ws-1"] = token
        headers = bearer(token) | {"x-bootstrap-token": secret}
        if operation.name == "update_delegation":  # needs the delegation that another example records
            [recorded] = [it for it in BODIES if it.name == "record_delegation"]
            client.post(recorded.path.format(**examples), json=recorded.body_example, headers=headers)
        answer = client.request(operation.method, path, json=dict(operation.body_example), headers=headers)
    assert answer.status_code == operation.status, answer.text
    operation.response_model.model_validate(answer.json())


TOKENS: dict[str, str] = {}
"""The token of the examples' box, which is returned only once."""


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.name)
def test_every_error_of_a_call_is_documented_with_its_message(operation: Operation) -> None:
    responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
    for code in (*operation.codes, *COMMON_CODES):
        response = responses[str(ERROR_SPECS[code].status)]
        assert f"`{code}`: {ERROR_SPECS[code].error}" in response["description"]
        example: dict[str, Any] = response["content"]["application/json"]["examples"][code]["value"]
        assert example == error_body(code, request_id=example["request_id"])


def test_every_code_is_an_answer_to_some_call() -> None:
    documented = {code for operation in OPERATIONS for code in (*operation.codes, *COMMON_CODES)}
    outside = {code for code in ERROR_SPECS if code not in documented}
    assert {code.value for code in outside} == {"path_unknown", "method_not_allowed"}

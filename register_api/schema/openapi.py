"""The OpenAPI 3.1 document, generated from the endpoint table. https://spec.openapis.org/oas/v3.1.1.html"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from register_api.http.error_codes import ERROR_SPECS, ErrorCode, ErrorSpec
from register_api.http.errors import PROBLEM, error_body
from register_api.schema.endpoint import COMMON_CODES, AllowedCaller, Operation, Parameter
from register_api.schema.endpoints import OPERATIONS
from register_api.schema.response_models import ErrorBody, ProblemBody

Json = dict[str, Any]

_TEMPLATE = "#/components/schemas/{model}"
_SECURITY: Mapping[AllowedCaller, list[dict[str, list[str]]]] = {
    AllowedCaller.ANYONE: [],
    AllowedCaller.BOX: [{"token": []}, {"bootstrap": []}],
    AllowedCaller.READER: [{"token": []}, {"operator": []}],
    AllowedCaller.ADMIN: [{"token": []}, {"operator": []}],
}


def document() -> Json:
    """The OpenAPI document, ready to be serialized."""
    named, schemas = _schemas()
    paths: Json = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method.lower()] = _operation(operation, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Onebox register API",
            "version": "1",
            "description": "Boxes register and send heartbeats here; tools and operators read workspaces.",
        },
        "paths": dict(paths),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An instance or API token."},
                "operator": {"type": "http", "scheme": "bearer", "description": "An operator's token."},
                "bootstrap": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Bootstrap-Token",
                    "description": "The bootstrap secret of the box's user data; also accepted as bearer.",
                },
            },
        },
    }


def _schemas() -> tuple[dict[tuple[type[BaseModel], JsonSchemaMode], Json], Json]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (ErrorBody, "serialization"),
        (ProblemBody, "serialization"),
    ]
    for operation in OPERATIONS:
        wanted.append((operation.response_model, "serialization"))
        if operation.body is not None:
            wanted.append((operation.body, "validation"))
    named, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_TEMPLATE)
    references = cast("dict[tuple[type[BaseModel], JsonSchemaMode], Json]", named)
    return references, cast("Json", definitions["$defs"])


def _operation(operation: Operation, named: Mapping[tuple[type[BaseModel], JsonSchemaMode], Json]) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.description.partition(". ")[0].rstrip("."),
        "description": operation.description,
        "security": _SECURITY[operation.caller],
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": {
            str(operation.status): {
                "description": " ".join((operation.response_model.__doc__ or "").split()),
                "content": {
                    "application/json": {
                        "schema": named[operation.response_model, "serialization"],
                        "example": operation.example,
                    }
                },
            },
            **_errors(operation, named),
        },
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {
                "application/json": {
                    "schema": named[operation.body, "validation"],
                    "example": dict(operation.body_example),
                }
            },
        }
    return described


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.location,
        "required": parameter.required,
        "description": parameter.description,
        "schema": dict(parameter.schema),
        "example": parameter.example,
    }


def _errors(operation: Operation, named: Mapping[tuple[type[BaseModel], JsonSchemaMode], Json]) -> Json:
    by_status: dict[int, list[ErrorCode]] = defaultdict(list)
    for code in dict.fromkeys((*operation.codes, *COMMON_CODES)):
        by_status[ERROR_SPECS[code].status].append(code)
    return {str(status): _error(codes, named) for status, codes in sorted(by_status.items())}


def _error(codes: list[ErrorCode], named: Mapping[tuple[type[BaseModel], JsonSchemaMode], Json]) -> Json:
    specs = {code: ERROR_SPECS[code] for code in codes}
    headers: Json = {
        "X-Request-ID": {"description": "Identifies the call in logs and in the audit log.", "schema": _TEXT}
    }
    if any(spec.retry_after is not None for spec in specs.values()):
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    if any(spec.status == 401 for spec in specs.values()):
        headers["WWW-Authenticate"] = {"description": "RFC 6750, section 3.", "schema": _TEXT}
    return {
        "description": "; ".join(_error_description(code, spec) for code, spec in specs.items()),
        "headers": headers,
        "content": {
            "application/json": {
                "schema": named[ErrorBody, "serialization"],
                "examples": {
                    code: {"value": error_body(code, request_id="4bf92f3577b34da6")} for code in codes
                },
            },
            PROBLEM: {"schema": named[ProblemBody, "serialization"]},
        },
    }


_TEXT = {"type": "string"}


def _error_description(code: ErrorCode, spec: ErrorSpec) -> str:
    return f"`{code}`: {spec.error}"

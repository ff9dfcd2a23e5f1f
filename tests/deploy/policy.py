"""The IAM policy, and the AWS actions that the code calls."""

import ast
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import botocore.session
from botocore import xform_name

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "deploy" / "iam-policy.json"

SERVICES = ("ec2", "route53", "sts")

FREE = frozenset({"sts:GetCallerIdentity"})
"""Actions that need no permission."""

WITH_TAGS = frozenset({"ec2:CreateTags"})
"""Not a call: creating a resource with tags requires it as well."""


def statements() -> list[dict[str, object]]:
    document = json.loads(POLICY.read_text())
    listed = document["Statement"]
    assert isinstance(listed, list)
    return listed


def words(value: object) -> list[str]:
    """A member that is a string or a list of strings."""
    assert isinstance(value, str | list)
    return [value] if isinstance(value, str) else [str(each) for each in value]


def allowed_actions() -> set[str]:
    return {action for statement in statements() for action in words(statement["Action"])}


def allows(action: str) -> bool:
    return action in FREE or any(fnmatchcase(action, each) for each in allowed_actions())


def named_actions() -> set[str]:
    """All actions that production code calls on a boto3 client, directly or as a paginator."""
    methods = _methods()
    return {
        action
        for package in ("activities", "workers", "cli")
        for file in (ROOT / package).rglob("*.py")
        for name in _called(ast.parse(file.read_text()))
        for action in methods.get(name, ())
    }


def _methods() -> dict[str, set[str]]:
    """The actions of each boto3 method name, from botocore's service models."""
    session = botocore.session.get_session()
    methods: dict[str, set[str]] = {}
    for service in SERVICES:
        for operation in session.get_service_model(service).operation_names:
            methods.setdefault(xform_name(operation), set()).add(f"{service}:{operation}")
    return methods


def _called(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_client(node.value):
            yield node.attr
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get_paginator"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def _is_client(node: ast.expr) -> bool:
    """Whether the call is on a client: `ec2.…`, `self.route53.…`. Integration tests catch other names."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in SERVICES

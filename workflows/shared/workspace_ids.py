"""Validation of workspace IDs. Standard library only."""

import re

WORKSPACE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123, section 2.1): the ID is used as host name, tag value and workflow ID."""


class InvalidWorkspaceId(ValueError):
    """The text is not a valid workspace ID; the message states the format."""


def check_workspace_id(workspace_id: str) -> str:
    """Return the ID if it is valid; otherwise raise `InvalidWorkspaceId`."""
    if WORKSPACE_ID.fullmatch(workspace_id):
        return workspace_id
    raise InvalidWorkspaceId(
        f"workspace ID {workspace_id[:80]!r} is not a DNS label: "
        "1 to 63 lower-case letters, digits and hyphens, no hyphen at either end"
    )

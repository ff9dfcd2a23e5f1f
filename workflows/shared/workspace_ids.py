"""What a workspace may be called. Standard library only, so that every process can check it.

Builds no names; an ID that passes here is usable wherever it is put.
"""

import re

WORKSPACE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123, section 2.1): the ID becomes a host name, a tag value and a workflow ID."""


class InvalidWorkspaceId(ValueError):
    """The text cannot be the ID of a workspace; says what an ID looks like."""


def check_workspace_id(workspace_id: str) -> str:
    """Return the ID if it is usable as a DNS label; raise `InvalidWorkspaceId` if not."""
    if WORKSPACE_ID.fullmatch(workspace_id):
        return workspace_id
    raise InvalidWorkspaceId(
        f"workspace ID {workspace_id[:80]!r} is not a DNS label: "
        "1 to 63 lower-case letters, digits and hyphens, no hyphen at either end"
    )

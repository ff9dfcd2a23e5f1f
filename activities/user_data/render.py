"""Renders the user data of an instance: the box script with its parameters, compressed.

The stored template holds a placeholder instead of the bootstrap secret; only EC2 gets the secret.
"""

import gzip
import json
import re
from functools import cache
from importlib import resources

PLACEHOLDER = "@@ONEBOX-BOOTSTRAP-SECRET@@"

LIMIT_BYTES = 16 * 1024
"""EC2's limit on user data, before base64."""

MAX_SECRET_CHARS = 128

_SECRET = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_SECRET_CHARS}}}")
_PART_IMPORT = re.compile(r"^from activities\.user_data\.(\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)
_PART_HEADER = re.compile(r'\A""".*?"""\n\nfrom __future__ import annotations\n', re.DOTALL)
_PARAMETERS_LINE = 'PARAMETERS = "{}"\n'


class InvalidUserData(ValueError):
    """The parameters do not give valid user data. The text never contains a secret."""


def render_template(
    *,
    workspace_id: str,
    generation: int,
    register_api_url: str,
    runtime_command: str,
    runtime_user: str,
    runtime_port: int,
    configs_dir: str,
    data_dir: str = "",
) -> str:
    """The script with its parameters and a placeholder for the secret. Raises `InvalidUserData`.

    The script splits the command like a shell and runs it without one. With an empty user, the runtime runs
    as the script's own user. With an empty data directory, the box has no data volume.
    """
    values: dict[str, str | int] = {
        "workspace_id": workspace_id,
        "generation": generation,
        "platform_url": register_api_url,
        "runtime_command": runtime_command,
        "runtime_user": runtime_user,
        "runtime_port": runtime_port,
        "configs_dir": configs_dir,
        "bootstrap_secret": PLACEHOLDER,
    }
    if data_dir:
        values["data_dir"] = data_dir
    # JSON in a Python literal: nothing in a parameter can end the literal and become code.
    text = _script().replace(_PARAMETERS_LINE, f"PARAMETERS = {json.dumps(values, sort_keys=True)!r}\n")
    if text.count(PLACEHOLDER) != 1:
        raise InvalidUserData("a parameter contains the placeholder of the bootstrap secret")
    size = max_compressed_bytes(text)
    if size > LIMIT_BYTES:
        raise InvalidUserData(
            f"the compressed user data has up to {size} bytes; EC2 accepts at most {LIMIT_BYTES}"
        )
    return text


def max_compressed_bytes(template: str) -> int:
    """An upper bound on the size of the user data: a secret does not compress."""
    return len(compress(template)) + MAX_SECRET_CHARS


def fill_secret(template: str, secret: str) -> str:
    """The script with its secret. Raises `InvalidUserData`."""
    if template.count(PLACEHOLDER) != 1:
        raise InvalidUserData("the template must contain the placeholder exactly once")
    if not _SECRET.fullmatch(secret):
        raise InvalidUserData("the bootstrap secret contains invalid characters or has an invalid length")
    return template.replace(PLACEHOLDER, secret)


def compress(script: str) -> bytes:
    """The user data that EC2 gets; cloud-init decompresses gzip.

    The same script gives the same bytes: EC2 compares them when a launch is retried under its ClientToken.
    """
    return gzip.compress(script.encode(), mtime=0)


@cache
def _script() -> str:
    script = _with_parts("onebox_box", set())
    if script.count(_PARAMETERS_LINE) != 1:
        raise InvalidUserData("the box script must contain exactly one line for its parameters")
    return script


def _with_parts(module: str, included: set[str]) -> str:
    """The source of a module, with the source of its parts in the place of their imports."""
    source = resources.files("activities.user_data").joinpath(f"{module}.py").read_text(encoding="utf-8")

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name in included:
            return ""
        included.add(name)
        return _PART_HEADER.sub("", _with_parts(name, included), count=1)

    return _PART_IMPORT.sub(part, source)

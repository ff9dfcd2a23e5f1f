"""The user data of an instance: the box script with its parameters in it.

Keeps the bootstrap secret apart: the template can be stored and compared, the filled text goes to EC2 only.
"""

import ast
import io
import json
import re
import tokenize
from functools import cache
from importlib import resources

PLACEHOLDER = "@@ONEBOX-BOOTSTRAP-SECRET@@"

LIMIT_BYTES = 16 * 1024
"""EC2's limit on user data, before base64."""

_SECRET = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PARAMETERS_LINE = 'PARAMETERS = "{}"\n'


class InvalidUserData(ValueError):
    """The parameters cannot be made into user data; the text never holds a secret."""


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
    """The script with its parameters, and a placeholder for the secret.

    The command is split like a shell does, and run without one. An empty user is whoever the script runs
    as. Without a data directory the box has no data volume to wait for. Raises `InvalidUserData`.
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
        raise InvalidUserData("a parameter holds the placeholder of the bootstrap secret")
    size = len(text.encode()) - len(PLACEHOLDER) + 128
    if size > LIMIT_BYTES:
        raise InvalidUserData(f"the user data would have {size} bytes; EC2 takes {LIMIT_BYTES}")
    return text


def fill_secret(template: str, secret: str) -> str:
    """The user data as EC2 gets it. Raises `InvalidUserData`."""
    if template.count(PLACEHOLDER) != 1:
        raise InvalidUserData("the template has no placeholder, or more than one")
    if not _SECRET.fullmatch(secret):
        raise InvalidUserData("the secret has characters that no bootstrap secret has")
    return template.replace(PLACEHOLDER, secret)


@cache
def _script() -> str:
    script = _minified(
        resources.files("activities.user_data").joinpath("onebox_box.py").read_text(encoding="utf-8")
    )
    if script.count(_PARAMETERS_LINE) != 1:
        raise InvalidUserData("the box script has no line for its parameters, or more than one")
    return script


def _minified(source: str) -> str:
    """The script without docstrings and comments, indented by one: a third of it, and EC2 takes 16 KB only.

    The text is kept as it is otherwise; `ast.unparse` would write what old Pythons can't read.
    """
    lines: list[str | None] = list(source.splitlines(keepends=True))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        first = node.body[0]
        if ast.get_docstring(node, clean=False) is None or first.end_lineno is None:
            continue
        lines[first.lineno - 1 : first.end_lineno] = [None] * (first.end_lineno - first.lineno + 1)
        if len(node.body) == 1:
            lines[first.lineno - 1] = " " * first.col_offset + "pass\n"
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and row > 1 and (line := lines[row - 1]) is not None:
            lines[row - 1] = line[:column].rstrip() + "\n"
    bare = [line for line in lines if line is not None and line.strip()]
    return "".join(" " * ((len(line) - len(line.lstrip(" "))) // 4) + line.lstrip(" ") for line in bare)

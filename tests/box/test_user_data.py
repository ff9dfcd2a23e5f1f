"""User data: its size, its content, and that no parameter can become code."""

import ast
import gzip
import json
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.user_data import onebox_box
from activities.user_data.render import (
    LIMIT_BYTES,
    PLACEHOLDER,
    InvalidUserData,
    compress,
    fill_secret,
    render_template,
)

SECRET = "ob1.k1.7." + "s" * 43


def rendered(**changes: Any) -> str:
    parameters: dict[str, Any] = {
        "workspace_id": "w" * 63,
        "generation": 7,
        "register_api_url": "https://register.internal.example.com:8443",
        "runtime_command": "/opt/molecule/bin/runtime --config /configs/config.yaml",
        "runtime_user": "molecule",
        "runtime_port": 8000,
        "configs_dir": "/configs",
    }
    return render_template(**{**parameters, **changes})


def parameters_of(script: str) -> dict[str, object]:
    for statement in ast.parse(script, feature_version=(3, 8)).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PARAMETERS":
            read = json.loads(ast.literal_eval(statement.value))
            assert isinstance(read, dict)
            return read
    raise AssertionError("no parameters")


def test_the_user_data_is_a_compressed_script_within_the_limit_of_ec2() -> None:
    script = fill_secret(rendered(data_dir="/data"), SECRET)
    assert script.startswith("#!/usr/bin/env python3\n")
    user_data = compress(script)
    assert gzip.decompress(user_data) == script.encode()
    # Room for a command line that starts a container with dozens of options.
    assert len(user_data) < LIMIT_BYTES - 4096


def test_the_compressed_bytes_do_not_depend_on_the_time() -> None:
    script = fill_secret(rendered(), SECRET)
    assert compress(script) == compress(script)
    assert compress(script)[4:8] == bytes(4)  # MTIME in the header (RFC 1952)


def test_a_box_without_a_data_volume_has_no_data_directory() -> None:
    assert "data_dir" not in parameters_of(rendered())
    assert parameters_of(rendered(data_dir="/data"))["data_dir"] == "/data"


def test_the_template_is_the_same_each_time_and_holds_no_secret() -> None:
    assert rendered() == rendered()
    assert PLACEHOLDER in rendered()
    script = fill_secret(rendered(), SECRET)
    assert PLACEHOLDER not in script
    assert parameters_of(script)["bootstrap_secret"] == SECRET


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_in_a_parameter_arrives_unchanged(command: str, directory: str) -> None:
    read = parameters_of(rendered(runtime_command=command, configs_dir=directory))
    assert (read["runtime_command"], read["configs_dir"]) == (command, directory)
    assert read["generation"] == 7


def test_invalid_parameters_are_rejected() -> None:
    with pytest.raises(InvalidUserData, match="16384"):
        rendered(runtime_command=secrets.token_hex(LIMIT_BYTES))
    with pytest.raises(InvalidUserData, match="placeholder"):
        rendered(runtime_command=PLACEHOLDER)
    with pytest.raises(InvalidUserData, match="placeholder"):
        fill_secret("no template", SECRET)
    with pytest.raises(InvalidUserData) as refused:
        fill_secret(rendered(), "hidden' + secret")
    assert "hidden" not in str(refused.value)


def test_the_script_imports_the_standard_library_only() -> None:
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(rendered(), feature_version=(3, 8)))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported <= sys.stdlib_module_names


def test_with_systemd_the_script_becomes_a_service(tmp_path: Path) -> None:
    source = tmp_path / "part-001"
    source.write_text(fill_secret(rendered(), SECRET))
    script, unit = tmp_path / "opt" / "onebox" / "onebox_box.py", tmp_path / "onebox-box.service"
    run: list[tuple[str, ...]] = []
    for _ in range(2):  # cloud-init may run it again
        onebox_box.install(source, script, unit, lambda command: run.append(tuple(command)))
    assert script.read_text() == source.read_text()
    assert script.stat().st_mode & 0o777 == 0o700
    assert script.parent.stat().st_mode & 0o777 == 0o700
    assert f"ExecStart={sys.executable} {script}\n" in unit.read_text()
    assert "Restart=always" in unit.read_text()
    assert SECRET not in unit.read_text()
    assert [command[1] for command in run] == ["daemon-reload", "enable", "restart"] * 2

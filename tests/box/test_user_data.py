"""The user data: what is in it, and that nothing in a parameter can break out of it."""

import ast
import json
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


def test_the_user_data_is_a_script_that_ec2_takes_whole() -> None:
    script = fill_secret(rendered(data_dir="/data"), SECRET)
    assert script.startswith("#!/usr/bin/env python3\n")
    # Room for a command line that starts a container with dozens of options.
    assert len(script.encode()) < LIMIT_BYTES - 2048
    assert ast.get_docstring(ast.parse(script)) is None


def test_a_box_without_a_data_volume_is_told_of_none() -> None:
    assert "data_dir" not in parameters_of(rendered())
    assert parameters_of(rendered(data_dir="/data"))["data_dir"] == "/data"


def test_what_is_left_out_of_the_script_is_no_code() -> None:
    source = Path(onebox_box.__file__).read_text()
    told = ast.parse(source)
    for node in ast.walk(told):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    template = rendered(data_dir="/data")
    line = next(line for line in template.splitlines() if line.startswith("PARAMETERS = "))
    assert ast.dump(ast.parse(template.replace(line, 'PARAMETERS = "{}"'))) == ast.dump(told)


def test_the_template_is_the_same_each_time_and_holds_no_secret() -> None:
    assert rendered() == rendered()
    assert PLACEHOLDER in rendered()
    script = fill_secret(rendered(), SECRET)
    assert PLACEHOLDER not in script
    assert parameters_of(script)["bootstrap_secret"] == SECRET


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_stands_in_a_parameter_arrives_as_it_is(command: str, directory: str) -> None:
    read = parameters_of(rendered(runtime_command=command, configs_dir=directory))
    assert (read["runtime_command"], read["configs_dir"]) == (command, directory)
    assert read["generation"] == 7


def test_what_cannot_become_user_data_is_refused() -> None:
    with pytest.raises(InvalidUserData, match="16384"):
        rendered(runtime_command="x" * LIMIT_BYTES)
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

"""Schemathesis calls every documented operation and finds no error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.register_api.platform import KEYS, OPERATOR_TOKEN
from tests.register_api.schema.examples import examples_process


@pytest.mark.storm
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(database: str, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text("")
    # The box registers repeatedly without using a token: a used one would lead to a 503.
    secret = KEYS.bootstrap_secret("ws-1", 1, key_id="k1")
    # Duration depends on the machine, not on the API.
    unhurried = ("--request-timeout", "60", "--suppress-health-check", "too_slow")
    with examples_process(database) as api:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
            *("run", f"{api.url}/openapi.json", "--checks", "all", "--seed", "2611"),
            *unhurried,
            *("--max-examples", "50", "--header", f"Authorization: Bearer {OPERATOR_TOKEN}"),
            *("--header", f"X-Bootstrap-Token: {secret}"),
        ]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert "generated" in ended.stdout, "it made no call"

"""An operator's shell: `temporal`, `onebox` and `psql` on the PATH, addresses in the environment."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from devstack.console import eventually
from devstack.postgres import binary
from devstack.stack import Stack
from devstack.temporal import temporal_cli
from tests.documents import Shown

COMMAND_SECONDS = 120.0
PATIENCE = 90.0
"""The server reports a stuck workflow after 40 s, on an idle machine."""

_CHANGES = re.compile(
    r"temporal (workflow (signal|update|start|reset|terminate|cancel)|schedule (toggle|trigger))|onebox "
)
"""Read-only commands are repeated until they print the expected output; others run once."""


class Shell:
    """Runs commands and compares their output with a document."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        """`directory` is the working directory."""
        self._directory = directory
        tools = [Path(sys.executable).parent, Path(temporal_cli()).parent, binary("psql").parent]
        self._environment = {
            **os.environ,
            "PATH": ":".join([*map(str, tools), os.environ["PATH"]]),
            "TEMPORAL_ADDRESS": stack.temporal_address,
            "REGISTER_API": stack.register_api_url,
            "OPERATOR_TOKEN": stack.operator_token,
            "DATABASE_URL": stack.database_url,
            "PAYLOAD_KEYS": stack.payload_keys,
            "NO_PROXY": "*",
            "PAGER": "cat",
        }
        if stack.codec_url is not None:
            self._environment |= {
                "TEMPORAL_CODEC_ENDPOINT": stack.codec_url,
                "TEMPORAL_CODEC_AUTH": f"Bearer {stack.operator_token}",
            }

    async def run(self, command: str) -> str:
        """Run the command. Returns its output on stdout and stderr."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self._directory,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
        return said.decode()

    async def compare(self, shown: Shown, standing_for: Mapping[str, str]) -> None:
        """Run the command with its placeholders replaced; it must print the documented output."""

        async def differs() -> str | None:
            command = shown.command
            for word, name in standing_for.items():
                command = command.replace(word, name)
            return shown.difference(await self.run(command))

        if _CHANGES.search(shown.command):
            assert (wrong := await differs()) is None, wrong
        else:
            await eventually(differs, lambda wrong: wrong is None, seconds=PATIENCE)

"""`onebox dev`: runs the stack on this machine until Ctrl-C or SIGTERM, and prints its addresses."""

import argparse
import json
import shlex
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from devstack.processes import ChildFailed, PortInUse
from devstack.stack import DirectoryInUse, Stack
from devstack.temporal import temporal_cli

EXIT_FAILED = 1


def dev(arguments: list[str]) -> int:
    """Start the stack, print its addresses, and wait. Returns 0 after a signal, 1 if the start failed."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    with suppress(KeyboardInterrupt):
        try:
            # Without --data the data is temporary, so fsync is not needed.
            stack = Stack(options.data, free_ports=options.free_ports, fsync=options.data is not None)
            sys.stderr.write("Starting the stack …\n")
            with stack:
                sys.stdout.write(json.dumps(stack.describe()) + "\n" if options.json else _summary(stack))
                sys.stdout.flush()
                threading.Event().wait()
        except (ChildFailed, PortInUse, DirectoryInUse) as error:
            sys.stderr.write(f"onebox dev: {error}\n")
            return EXIT_FAILED
    sys.stderr.write("The stack has stopped.\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onebox dev",
        description="Start Temporal, PostgreSQL, an AWS endpoint, worker, register API and boxes on this "
        "machine, and run them until Ctrl-C. Environment variables override settings.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep all data in this directory",
    )
    parser.add_argument("--free-ports", action="store_true", help="use free ports, not the default ones")
    parser.add_argument("--json", action="store_true", help="print one line of JSON when everything is ready")
    return parser


def _summary(stack: Stack) -> str:
    address = stack.temporal_address
    lines = [
        ("Temporal", address),
        ("Temporal UI", stack.temporal_ui_url),
        ("register API", stack.register_api_url),
        *([("codec server", stack.codec_url)] if stack.codec_url is not None else []),
        ("AWS endpoint", stack.aws_url),
        ("database", stack.database_url),
        ("operator token", stack.operator_token),
        ("data and logs", str(stack.state_dir)),
    ]
    shown = "".join(f"  {name:<16}{value}\n" for name, value in lines)
    temporal = f"{shlex.quote(temporal_cli())} workflow"
    where = f"--address {address} --workflow-id ws-1"
    return (
        f"The stack is running. Press Ctrl-C to stop it.\n\n{shown}\n"
        "Start a workspace, recreate its box, and read its status:\n\n"
        f"  {temporal} start {where} --type WorkspaceWorkflow --task-queue workspaces --input '{{}}'\n"
        f"  {temporal} signal {where} --name recreate\n"
        f"  {temporal} query {where} --type status\n\n"
    )


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Stop in order and ignore further signals. After SIGKILL, the kernel ends the children."""
    del number, frame
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt

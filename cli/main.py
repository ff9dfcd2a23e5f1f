"""The `onebox` command: starts processes and runs operator commands.

Other packages, such as the devstack, add commands through the entry points `onebox.commands`.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from workers.serving.listening import CannotListen
from workers.settings.common import InvalidSettings

EXIT_USAGE = 2
"""The usual exit code for invalid arguments or settings."""

Command = Callable[[list[str]], int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = _commands()
    if not given or given[0] not in commands:
        _exit(_usage(given, commands))
    try:
        code = commands[given[0]](given[1:])
    except InvalidSettings as error:
        sys.stderr.write(f"onebox {given[0]}: invalid settings\n{error}\n")
        code = EXIT_USAGE
    except CannotListen as error:
        sys.stderr.write(f"onebox {given[0]}: {error}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    _exit(code)


def _commands() -> dict[str, Command]:
    commands: dict[str, Command] = {
        "worker": _worker,
        "api": _api,
        "migrate": _migrate,
        "replay": _replay,
        "codec": _codec,
        "doctor": _doctor,
    }
    for entry_point in entry_points(group="onebox.commands"):
        commands[entry_point.name] = _from_entry_point(entry_point.name, entry_point.load)
    return commands


def _from_entry_point(name: str, load: Callable[[], Command]) -> Command:
    def run(arguments: list[str]) -> int:
        try:
            command = load()
        except ModuleNotFoundError as error:
            sys.stderr.write(
                f"onebox {name} needs the development packages ({error.name} is missing): "
                "pip install 'onebox[devstack]'\n"
            )
            return EXIT_USAGE
        return command(arguments)

    return run


def _usage(arguments: list[str], commands: dict[str, Command]) -> int:
    unknown = bool(arguments) and arguments[0] not in ("-h", "--help")
    out = sys.stderr if unknown else sys.stdout
    if unknown:
        out.write(f"onebox: unknown command {arguments[0]!r}\n")
    out.write(
        "usage: onebox COMMAND …\n\n"
        "  worker    run workflows and activities\n"
        "  api       serve the register API\n"
        "  migrate   update the database schema\n"
        "  doctor    check configuration and dependencies, and say what to fix\n"
        "  replay    replay a workflow's history with this code, and show its timeline\n"
        "  codec     serve a codec server that decrypts payloads for Temporal's UI and CLI\n"
        "  dev       start the whole stack on this machine (development)\n"
        "  demo      run the example incident on it, and check the invariants (development)\n\n"
        f"available here: {', '.join(sorted(commands))}; each has --help\n"
    )
    return EXIT_USAGE if unknown else 0


def _no_arguments(name: str, description: str, arguments: list[str]) -> None:
    description = f"{description} Settings are environment variables (docs/settings.md)."
    argparse.ArgumentParser(prog=f"onebox {name}", description=description).parse_args(arguments)


def _worker(arguments: list[str]) -> int:
    _no_arguments(
        "worker",
        "Run workflows and activities until SIGTERM.",
        arguments,
    )
    from workers.worker import run

    return asyncio.run(run())


def _api(arguments: list[str]) -> int:
    _no_arguments(
        "api",
        "Serve the register API until SIGTERM.",
        arguments,
    )
    from workers.api import run

    return run()


def _codec(arguments: list[str]) -> int:
    _no_arguments(
        "codec",
        "Serve a codec server for Temporal's UI and CLI until SIGTERM.",
        arguments,
    )
    from cli.codec.command import run

    return run()


def _migrate(arguments: list[str]) -> int:
    _no_arguments(
        "migrate", "Apply missing migrations to the database at DATABASE_URL. Safe to run again.", arguments
    )
    from cli.migrate import run

    return asyncio.run(run())


def _doctor(arguments: list[str]) -> int:
    from cli.doctor.command import run

    return run(arguments)


def _replay(arguments: list[str]) -> int:
    from cli.replay.command import run

    return run(arguments)


def _exit(code: int) -> None:
    """Exit without interpreter finalization, in which threads of the Temporal SDK sometimes crash.

    https://github.com/temporalio/sdk-python/issues/300
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""The `onebox` command: starts processes and runs operator commands.

Commands of other packages (the devstack's) come in by entry points; this module imports none of them.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from workers.settings.common import InvalidSettings

EXIT_USAGE = 2
"""As for other commands: what was given cannot be used."""

Command = Callable[[list[str]], int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = _commands()
    if not words or words[0] in ("-h", "--help") or words[0] not in commands:
        _exit(_usage(words, commands))
    try:
        code = commands[words[0]](words[1:])
    except InvalidSettings as error:
        sys.stderr.write(f"onebox {words[0]}: the settings cannot be used\n{error}\n")
        code = EXIT_USAGE
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
    def run(words: list[str]) -> int:
        try:
            command = load()
        except ModuleNotFoundError as error:
            sys.stderr.write(
                f"onebox {name} needs the development packages ({error.name} is missing): "
                "pip install 'onebox[devstack]'\n"
            )
            return EXIT_USAGE
        return command(words)

    return run


def _usage(words: list[str], commands: dict[str, Command]) -> int:
    wanted = not words or words[0] in ("-h", "--help")
    out = sys.stdout if wanted else sys.stderr
    if not wanted:
        out.write(f"onebox: there is no command {words[0]!r}\n")
    out.write(
        "usage: onebox COMMAND …\n\n"
        "  worker    run workflows and activities\n"
        "  api       serve the register API\n"
        "  migrate   bring the database's schema up to date\n"
        "  doctor    look whether all that the processes need is there, and say what to fix\n"
        "  replay    replay a workflow's history against this code, and tell its story\n"
        "  codec     show operators clear text in Temporal's UI and CLI\n"
        "  dev       start the whole stack on this machine (development)\n"
        "  demo      play the incident on it, and check the invariants (development)\n\n"
        f"available here: {', '.join(sorted(commands))}; each takes --help\n"
    )
    return 0 if wanted else EXIT_USAGE


def _no_arguments(name: str, description: str, words: list[str]) -> None:
    argparse.ArgumentParser(prog=f"onebox {name}", description=description).parse_args(words)


def _worker(words: list[str]) -> int:
    _no_arguments(
        "worker", "Run workflows and activities until SIGTERM. Settings come by environment.", words
    )
    from workers.worker import run

    return asyncio.run(run())


def _api(words: list[str]) -> int:
    _no_arguments("api", "Serve the register API until SIGTERM. Settings come by environment.", words)
    from workers.api import run

    return run()


def _codec(words: list[str]) -> int:
    _no_arguments(
        "codec",
        "Serve Temporal's UI and CLI as a codec server until SIGTERM. Settings come by environment.",
        words,
    )
    from cli.codec.command import run

    return run()


def _migrate(words: list[str]) -> int:
    _no_arguments("migrate", "Apply the migrations that DATABASE_URL lacks. Safe to run twice.", words)
    from cli.migrate import run

    return asyncio.run(run())


def _doctor(words: list[str]) -> int:
    from cli.doctor.command import run

    return run(words)


def _replay(words: list[str]) -> int:
    from cli.replay.command import run

    return run(words)


def _exit(code: int) -> None:
    """Leave without the interpreter's finalisation, in which the Temporal SDK's threads sometimes crash.

    https://github.com/temporalio/sdk-python/issues/300
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""Checks the settings of boxes, without any connection."""

import shlex
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from activities.user_data.render import LIMIT_BYTES, InvalidUserData, max_compressed_bytes, render_template
from cli.doctor.model import Finding, failed, ok, warning
from workers.settings.worker import WorkerSettings

LONGEST_WORKSPACE_ID = "w" * 63
LARGEST_GENERATION = 2**31 - 1


def findings(settings: WorkerSettings) -> Iterator[Finding]:
    """All checks of box settings."""
    yield _runtime_command(settings.box_runtime_command)
    yield _user_data(settings)
    yield _register_api_url(settings)
    yield _timing(settings)


def _runtime_command(text: str) -> Finding:
    check, variable = "box.runtime_command", "BOX_RUNTIME_COMMAND"
    try:
        parts = shlex.split(text)
    except ValueError as error:
        return failed(
            check,
            f"the command cannot be split: {str(error).lower()}",
            f"Close all quotes in {variable}, as in a shell.",
            variable,
        )
    if not parts:
        return failed(
            check, "the command is empty", f"Set {variable} to the command of the runtime.", variable
        )
    return ok(check, f"starts {parts[0]} with {len(parts) - 1} arguments")


def _user_data(settings: WorkerSettings) -> Finding:
    check = "box.user_data"
    try:
        text = render_template(
            workspace_id=LONGEST_WORKSPACE_ID,
            generation=LARGEST_GENERATION,
            register_api_url=settings.register_api_url,
            runtime_command=settings.box_runtime_command,
            runtime_user=settings.box_runtime_user,
            runtime_port=settings.box_runtime_port,
            configs_dir=settings.box_configs_dir,
            data_dir=settings.box_data_dir,
        )
    except InvalidUserData as error:
        return failed(
            check,
            str(error),
            "Shorten BOX_RUNTIME_COMMAND: move its content into the image.",
            "BOX_RUNTIME_COMMAND",
        )
    size = max_compressed_bytes(text)
    return ok(check, f"at most {size} of {LIMIT_BYTES} bytes for the longest workspace ID")


def _register_api_url(settings: WorkerSettings) -> Finding:
    check, variable = "box.register_api_url", "REGISTER_API_URL"
    parts = urlsplit(settings.register_api_url)
    loopback = _is_loopback(parts.hostname or "")
    if loopback and not settings.allow_loopback_targets:
        return failed(
            check,
            f"{parts.hostname} is a loopback address: each box would call itself",
            f"Set {variable} to the URL at which boxes reach the register API.",
            variable,
        )
    if settings.allow_loopback_targets and not loopback:
        return warning(
            check,
            "loopback addresses are allowed: suitable only if boxes are processes on this machine",
            "Unset ALLOW_LOOPBACK_TARGETS outside development.",
            "ALLOW_LOOPBACK_TARGETS",
        )
    if parts.scheme == "http" and not loopback:
        return warning(
            check,
            "boxes send their secrets and tokens in clear text (http)",
            f"Terminate TLS in front of the API and set {variable} to https, unless the network is private.",
            variable,
        )
    return ok(check, f"boxes call {settings.register_api_url}")


def _timing(settings: WorkerSettings) -> Finding:
    check = "box.timing"
    if settings.stale_recreate_seconds < settings.heartbeat_stale_seconds:
        return warning(
            check,
            f"a box without heartbeats is replaced after {settings.stale_recreate_seconds:g} s, before "
            f"it counts as stale after {settings.heartbeat_stale_seconds:g} s",
            "Set STALE_RECREATE_SECONDS above HEARTBEAT_STALE_SECONDS.",
            "STALE_RECREATE_SECONDS",
            "HEARTBEAT_STALE_SECONDS",
        )
    return ok(
        check,
        f"stale after {settings.heartbeat_stale_seconds:g} s, replaced after "
        f"{settings.stale_recreate_seconds:g} s",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

"""What follows for a worker from the versions that get work, and from the keys of what Temporal holds.

Judges values; asks nobody.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from typing_extensions import override

from cli.doctor.model import Finding, failed, ok, warning

CHECK = "temporal.version"
NAMES = ("TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID")

KEYS_CHECK = "temporal.payload_keys"


@dataclass(frozen=True, slots=True)
class Version:
    """A build of a worker deployment."""

    deployment: str
    build: str

    @override
    def __str__(self) -> str:
        return f"build {self.build} of {self.deployment}"


def unversioned(current: Version | None) -> Finding:
    """This worker would have no version; somebody else's may be current."""
    if current is None:
        return ok(CHECK, "workers have no versions")
    return warning(
        CHECK,
        f"{current} is current: a worker without a version, as this one would be, gets no work",
        "Set TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID; or to go back to workers without: "
        "`temporal worker deployment set-current-version "
        f"--deployment-name {current.deployment} --unversioned --yes`.",
        *NAMES,
    )


def versioned(mine: Version, current: Version | None, *, remedy: str) -> Finding:
    """This worker would be `mine`; `remedy` makes it current."""
    if current == mine:
        return ok(CHECK, f"{mine} is current")
    if current is None:
        return failed(
            CHECK,
            f"no build of {mine.deployment} is current: workflows wait, without an error, unless workers "
            "without a version run",
            f"Once workers of the build are ready: `{remedy}`.",
            *NAMES,
        )
    return warning(
        CHECK,
        f"{current} is current: {mine} gets no work",
        f"During an upgrade, once workers of the build are ready: `{remedy}`.",
        *NAMES,
    )


def no_versions(mine: Version, message: str) -> Finding:
    """The server has no worker deployments, or has them switched off."""
    return failed(
        CHECK,
        f"the server cannot give {mine} work: {message}",
        "Use a Temporal server of version 1.28 or newer, with worker deployments allowed in the namespace; "
        "or unset both variables.",
        *NAMES,
    )


def payload_keys(seen: Mapping[str, int], known: Collection[str], *, sampled: int) -> Finding:
    """Whether what Temporal holds can be read: `seen` says how many workflows have something of each key."""
    missing = {key: count for key, count in seen.items() if key not in known}
    if missing:
        told = " and ".join(f"{count} of key {key!r}" for key, count in sorted(missing.items()))
        names = ", ".join(map(repr, sorted(missing)))
        return failed(
            KEYS_CHECK,
            f"of {sampled} running workspaces there is something that PAYLOAD_KEYS cannot decrypt, {told}: "
            "their tasks fail",
            f"Put {names} into PAYLOAD_KEYS, behind the first; docs/encryption.md says when a key may go.",
            "PAYLOAD_KEYS",
        )
    encrypted = sum(seen.values())
    return ok(KEYS_CHECK, f"of {sampled} running workspaces {encrypted} are encrypted, by keys that are here")

"""Checks the health endpoints of the register API at the URL that boxes use."""

import httpx2

from cli.doctor.model import Finding, failed, ok, skipped

VARIABLE = "REGISTER_API_URL"

SECONDS = 10.0


async def findings(url: str) -> list[Finding]:
    """Whether the URL answers, is a register API, and is ready."""
    async with httpx2.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False) as http:
        try:
            alive = await http.get("/healthz")
        except httpx2.HTTPError as error:
            return [_unreachable(url, error), skipped("api.ready", "not reached")]
        if not _is_register_api(alive):
            return [
                failed(
                    "api.connection",
                    f"{url} is not a register API (/healthz returns {alive.status_code})",
                    f"Correct {VARIABLE}, or the routing of the proxy in front of the API.",
                    VARIABLE,
                ),
                skipped("api.ready", "not reached"),
            ]
        try:
            ready = await http.get("/readyz")
        except httpx2.HTTPError as error:
            return [ok("api.connection", f"{url} answers"), _unreachable(url, error)]
    return [ok("api.connection", f"{url} answers"), _ready(ready)]


def _unreachable(url: str, error: httpx2.HTTPError) -> Finding:
    cause = str(error) or type(error).__name__
    return failed(
        "api.connection",
        f"{url} cannot be reached from here: {cause}",
        f"Start `onebox api`, or correct {VARIABLE}. If only boxes reach it, run doctor in their network.",
        VARIABLE,
    )


def _is_register_api(response: httpx2.Response) -> bool:
    try:
        return response.status_code == httpx2.codes.OK and response.json() == {"status": "ok"}
    except ValueError:
        return False


def _ready(response: httpx2.Response) -> Finding:
    if response.status_code == httpx2.codes.OK:
        return ok("api.ready", "the API reaches its database")
    try:
        error = str(response.json().get("error", ""))
    except (ValueError, AttributeError):
        error = ""
    return failed(
        "api.ready",
        f"the API is not ready: {error or response.status_code}",
        "Check the API's DATABASE_URL, and run `onebox migrate`.",
        "DATABASE_URL",
    )

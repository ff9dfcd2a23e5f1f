"""Looking at the register API from here, as a box would call it.

It asks for health only: what it may say to a box is for boxes.
"""

import httpx

from cli.doctor.model import Finding, failed, ok, skipped

VARIABLE = "REGISTER_API_URL"

SECONDS = 10.0


async def findings(url: str) -> list[Finding]:
    """Whether it is there, is ours, and is ready."""
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False) as http:
        try:
            alive = await http.get("/healthz")
        except httpx.HTTPError as error:
            return [_away(url, error), skipped("api.ready", "not reached")]
        if not _is_ours(alive):
            return [
                failed(
                    "api.connection",
                    f"what answers at {url} is not the register API (/healthz: {alive.status_code})",
                    f"Correct {VARIABLE}, or what the proxy before the API passes on.",
                    VARIABLE,
                ),
                skipped("api.ready", "not reached"),
            ]
        try:
            ready = await http.get("/readyz")
        except httpx.HTTPError as error:
            return [ok("api.connection", f"{url} answers"), _away(url, error)]
    return [ok("api.connection", f"{url} answers"), _ready(ready)]


def _away(url: str, error: httpx.HTTPError) -> Finding:
    cause = str(error) or type(error).__name__
    return failed(
        "api.connection",
        f"{url} cannot be reached from here: {cause}",
        f"Start `onebox api`, or correct {VARIABLE}. If only boxes reach it, run this in their network.",
        VARIABLE,
    )


def _is_ours(answer: httpx.Response) -> bool:
    try:
        return answer.status_code == httpx.codes.OK and answer.json() == {"status": "ok"}
    except ValueError:
        return False


def _ready(answer: httpx.Response) -> Finding:
    if answer.status_code == httpx.codes.OK:
        return ok("api.ready", "it reaches its database")
    try:
        told = str(answer.json().get("error", ""))
    except (ValueError, AttributeError):
        told = ""
    return failed(
        "api.ready",
        f"it is not ready: {told or answer.status_code}",
        "See its own DATABASE_URL, and whether `onebox migrate` was run.",
        "DATABASE_URL",
    )

"""The codec server's answers: who gets clear text, who doesn't, and what is never said or logged."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx
import pytest
from structlog.testing import capture_logs
from temporalio.api.common.v1 import Payload

from cli.codec import app as codec_app
from cli.codec.access import Access
from cli.codec.app import create_app
from cli.codec.browser_login import COOKIE
from workflows.shared.encryption import Encryption, PayloadKeys, converter

pytestmark = pytest.mark.anyio

UI = "https://temporal.example.com"
TOKEN = "the operator's token"
KEYS = PayloadKeys.parse(f"k1:{'1a' * 32}")
OTHERS = PayloadKeys.parse(f"elsewhere:{'2b' * 32}")
CANARY = "canary-of-the-codec"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    access = Access.of([hashlib.sha256(TOKEN.encode()).hexdigest()], KEYS)
    app = create_app(access, Encryption(KEYS), [UI])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://codec.example.com") as client:
        yield client


def base64_of(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def sent(value: object, keys: PayloadKeys = KEYS) -> dict[str, object]:
    payloads = await converter(keys).encode([value])
    return {"payloads": [in_json(payload) for payload in payloads]}


def in_json(payload: Payload) -> dict[str, object]:
    metadata = {name: base64_of(value) for name, value in payload.metadata.items()}
    return {"metadata": metadata, "data": base64_of(payload.data)}


CLEAR = {"payloads": [{"metadata": {"encoding": base64_of(b"json/plain")}, "data": base64_of(b'"x"')}]}


async def test_a_token_gets_clear_text_and_encrypts(http: httpx.AsyncClient) -> None:
    decoded = await http.post("/decode", json=await sent(CANARY), headers=BEARER)
    assert decoded.status_code == 200
    [payload] = decoded.json()["payloads"]
    assert base64.b64decode(payload["data"]).decode() == f'"{CANARY}"'
    assert decoded.headers["cache-control"] == "no-store"

    encoded = await http.post("/encode", json=decoded.json(), headers=BEARER)
    [payload] = encoded.json()["payloads"]
    assert base64.b64decode(payload["metadata"]["encoding"]) == b"binary/encrypted"
    again = await http.post("/decode", json=encoded.json(), headers=BEARER)
    assert again.json() == decoded.json()


async def test_clear_text_passes_and_so_does_nothing_at_all(http: httpx.AsyncClient) -> None:
    assert (await http.post("/decode", json=CLEAR, headers=BEARER)).json() == CLEAR
    nothings: tuple[dict[str, list[str]], ...] = ({}, {"payloads": []})
    for nothing in nothings:
        assert (await http.post("/decode", json=nothing, headers=BEARER)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": f"Bearer {hashlib.sha256(TOKEN.encode()).hexdigest()}"},
        {"cookie": f"{COOKIE}=made.up.session", "origin": UI},
    ],
)
@pytest.mark.parametrize("path", ["/decode", "/encode"])
async def test_who_shows_no_token_gets_nothing(
    http: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    answer = await http.post(path, json=CLEAR, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "payloads" not in answer.json()


async def logged_in(http: httpx.AsyncClient) -> str:
    """The cookie that a browser holds after the login."""
    answer = await http.post("/login", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    http.cookies.clear()
    morsel = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"], morsel["path"]) == (
        True,
        True,
        "strict",
        "/",
    )
    assert morsel["domain"] == ""
    return f"{COOKIE}={morsel.value}"


async def test_a_browser_that_logged_in_gets_clear_text_on_the_uis_pages_only(
    http: httpx.AsyncClient,
) -> None:
    cookie, body = await logged_in(http), await sent(CANARY)
    shown = await http.post("/decode", json=body, headers={"cookie": cookie, "origin": UI})
    assert shown.status_code == 200
    assert shown.headers["access-control-allow-origin"] == UI
    assert shown.headers["access-control-allow-credentials"] == "true"
    for origin in ("https://evil.example.com", "null", "https://codec.example.com", ""):
        refused = await http.post("/decode", json=body, headers={"cookie": cookie, "origin": origin})
        assert refused.status_code == 401
        assert "access-control-allow-origin" not in refused.headers
    assert (await http.post("/decode", json=body, headers={"cookie": cookie})).status_code == 401
    # With the UI's own access token beside it, which is none of ours.
    both = {"cookie": cookie, "origin": UI, "authorization": "Bearer of the UI's own login"}
    assert (await http.post("/decode", json=body, headers=both)).status_code == 200


async def test_the_uis_preflight_is_answered_and_nobody_elses(http: httpx.AsyncClient) -> None:
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-namespace,authorization",
    }
    allowed = await http.options("/decode", headers={"origin": UI, **asks})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == UI
    assert allowed.headers["access-control-allow-credentials"] == "true"
    assert "x-namespace" in allowed.headers["access-control-allow-headers"].lower()
    refused = await http.options("/decode", headers={"origin": "https://evil.example.com", **asks})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


async def test_the_page_says_who_is_logged_in_and_runs_no_script(http: httpx.AsyncClient) -> None:
    out = await http.get("/")
    assert 'type="password"' in out.text
    assert "<script" not in out.text
    assert out.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    inside = await http.get("/", headers={"cookie": await logged_in(http)})
    assert "Logged in as" in inside.text
    gone = await http.post("/logout")
    assert "Max-Age=0" in gone.headers["set-cookie"]


@pytest.mark.parametrize("form", [{}, {"token": ""}, {"token": "wrong"}, {"token": TOKEN + "x" * 5000}])
async def test_a_login_with_a_wrong_token_sets_no_cookie_and_repeats_nothing(
    http: httpx.AsyncClient, form: dict[str, str]
) -> None:
    answer = await http.post("/login", data=form)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "wrong" not in answer.text
    assert TOKEN not in answer.text


async def test_a_key_that_is_missing_here_is_named(http: httpx.AsyncClient) -> None:
    answer = await http.post("/decode", json=await sent(CANARY, OTHERS), headers=BEARER)
    assert answer.status_code == 422
    assert "'elsewhere', which is not among PAYLOAD_KEYS" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'"canary-of-the-codec"',
        b'{"payloads": "canary-of-the-codec"}',
        b'{"payloads": [{"metadata": ["canary-of-the-codec"]}]}',
        b'{"payloads":' + b"[" * 100_000,
    ],
)
async def test_a_body_that_is_none_is_refused_and_not_repeated(http: httpx.AsyncClient, body: bytes) -> None:
    with capture_logs() as logs:
        answer = await http.post("/decode", content=body, headers=BEARER)
    assert answer.status_code == 400
    assert CANARY not in answer.text + str(logs)


async def test_a_body_may_be_as_long_as_a_message_of_temporals_and_no_longer(
    http: httpx.AsyncClient,
) -> None:
    fits = await http.post("/decode", json=await sent("x" * 4_000_000), headers=BEARER)
    assert fits.status_code == 200
    long = await http.post("/decode", content=b" " * (codec_app.MAX_BYTES + 1), headers=BEARER)
    assert long.status_code == 413


async def test_a_body_that_does_not_end_is_not_waited_for(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_app, "BODY_TIMEOUT_SECONDS", 0.05)

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await http.post("/decode", content=dripping(), headers=BEARER)
    assert answer.status_code == 408


async def test_the_log_names_who_asked_and_never_what_was_shown(http: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        await http.post("/decode", json=await sent(CANARY), headers=BEARER)
        await http.post("/decode", json=CLEAR)
        await logged_in(http)
    assert [log["event"] for log in logs] == ["codec.decoded", "codec.refused", "codec.logged_in"]
    assert logs[0]["by"] == hashlib.sha256(TOKEN.encode()).hexdigest()[:16]
    for secret in (CANARY, TOKEN, "1a1a"):
        assert secret not in str(logs)


async def test_health_asks_nobody(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}

"""The codec server: access to clear text, and what it never returns or logs."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx2
import pytest
from structlog.testing import capture_logs
from temporalio.api.common.v1 import Payload

from cli.codec import app as codec_app
from cli.codec import body
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
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    access = Access.of([hashlib.sha256(TOKEN.encode()).hexdigest()], KEYS)
    app = create_app(access, Encryption(KEYS), [UI])
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://codec.example.com") as client:
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


async def test_a_token_gets_clear_text_and_encrypts(http: httpx2.AsyncClient) -> None:
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


async def test_clear_text_and_empty_lists_pass(http: httpx2.AsyncClient) -> None:
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
async def test_without_access_there_is_no_payload(
    http: httpx2.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    response = await http.post(path, json=CLEAR, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "payloads" not in response.json()


async def logged_in(http: httpx2.AsyncClient) -> str:
    """The cookie that a browser holds after the login."""
    response = await http.post("/login", data={"token": TOKEN})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    http.cookies.clear()
    morsel = SimpleCookie(response.headers["set-cookie"])[COOKIE]
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"], morsel["path"]) == (
        True,
        True,
        "strict",
        "/",
    )
    assert morsel["domain"] == ""
    return f"{COOKIE}={morsel.value}"


async def test_a_logged_in_browser_gets_clear_text_on_the_uis_pages_only(
    http: httpx2.AsyncClient,
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
    # The UI may send its own access token as well.
    both = {"cookie": cookie, "origin": UI, "authorization": "Bearer of the UI's own login"}
    assert (await http.post("/decode", json=body, headers=both)).status_code == 200


async def test_only_the_uis_preflight_is_allowed(http: httpx2.AsyncClient) -> None:
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-namespace,authorization",
    }
    allowed = await http.options("/decode", headers={"origin": UI, **preflight})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == UI
    assert allowed.headers["access-control-allow-credentials"] == "true"
    assert "x-namespace" in allowed.headers["access-control-allow-headers"].lower()
    refused = await http.options("/decode", headers={"origin": "https://evil.example.com", **preflight})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


async def test_the_page_shows_the_login_and_runs_no_script(http: httpx2.AsyncClient) -> None:
    out = await http.get("/")
    assert 'type="password"' in out.text
    assert "<script" not in out.text
    assert out.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    inside = await http.get("/", headers={"cookie": await logged_in(http)})
    assert "Logged in as" in inside.text
    gone = await http.post("/logout")
    assert "Max-Age=0" in gone.headers["set-cookie"]


@pytest.mark.parametrize("form", [{}, {"token": ""}, {"token": "wrong"}, {"token": TOKEN + "x" * 5000}])
async def test_a_login_with_a_wrong_token_sets_no_cookie_and_quotes_nothing(
    http: httpx2.AsyncClient, form: dict[str, str]
) -> None:
    response = await http.post("/login", data=form)
    assert response.status_code in (401, 413)
    assert "set-cookie" not in response.headers
    assert "wrong" not in response.text
    assert TOKEN not in response.text


async def test_a_missing_key_is_named(http: httpx2.AsyncClient) -> None:
    response = await http.post("/decode", json=await sent(CANARY, OTHERS), headers=BEARER)
    assert response.status_code == 422
    assert "'elsewhere', which is not in PAYLOAD_KEYS" in response.json()["error"]


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
async def test_an_invalid_body_is_refused_and_not_quoted(http: httpx2.AsyncClient, body: bytes) -> None:
    with capture_logs() as logs:
        response = await http.post("/decode", content=body, headers=BEARER)
    assert response.status_code == 400
    assert CANARY not in response.text + str(logs)


async def test_a_body_may_be_as_long_as_a_temporal_message(
    http: httpx2.AsyncClient,
) -> None:
    fits = await http.post("/decode", json=await sent("x" * 4_000_000), headers=BEARER)
    assert fits.status_code == 200
    long = await http.post("/decode", content=b" " * (codec_app.MAX_BYTES + 1), headers=BEARER)
    assert long.status_code == 413


async def test_a_body_that_does_not_end_times_out(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "TIMEOUT_SECONDS", 0.05)

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await http.post("/decode", content=dripping(), headers=BEARER)
    assert response.status_code == 408


async def test_the_log_names_callers_and_no_content(http: httpx2.AsyncClient) -> None:
    with capture_logs() as logs:
        await http.post("/decode", json=await sent(CANARY), headers=BEARER)
        await http.post("/decode", json=CLEAR)
        await logged_in(http)
    assert [log["event"] for log in logs] == ["codec.decoded", "codec.refused", "codec.logged_in"]
    assert logs[0]["by"] == hashlib.sha256(TOKEN.encode()).hexdigest()[:16]
    for secret in (CANARY, TOKEN, "1a1a"):
        assert secret not in str(logs)


async def test_health(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}

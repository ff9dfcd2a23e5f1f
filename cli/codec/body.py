"""Reads request bodies with a time limit; the routes limit their size."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

TIMEOUT_SECONDS = 10.0
"""A caller that sends one byte per minute must not occupy a connection."""


async def read_body(request: Request) -> bytes:
    """The whole body. Raises `HTTPException`: 408 after the timeout, 400 if the client disconnects."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await request.body()
    except TimeoutError:
        # The rest of the body is still on the way, so the connection cannot be used again.
        message = f"the body took longer than {TIMEOUT_SECONDS:g} s"
        raise HTTPException(408, message, {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the client disconnected") from None

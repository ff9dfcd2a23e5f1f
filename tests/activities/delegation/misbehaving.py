"""Agents that respond slowly, endlessly, or with garbage."""

import asyncio

from tests.activities.delegation.agents import Agent, Caller, head


async def drip_body(it: Agent, caller: Caller) -> None:
    await caller.request()
    it.stuck.set()
    await caller.say(head("200 OK", "content-length: 1000000"))
    await caller.drip()


async def drip_head(it: Agent, caller: Caller) -> None:
    await caller.request()
    it.stuck.set()
    await caller.say(b"HTTP/1.1 200 OK\r\nx-slow: ")
    await caller.drip(b"x")


async def say_nothing(it: Agent, caller: Caller) -> None:
    await caller.request()
    it.stuck.set()
    await caller.reader.read()


async def never_read(it: Agent, caller: Caller) -> None:
    await caller.reader.readexactly(1)
    it.stuck.set()
    await asyncio.Event().wait()


async def hang_up(_: Agent, caller: Caller) -> None:
    await caller.request()


async def say_garbage(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n")


async def say_too_little(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\ncontent-le")


async def headers_without_end(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\n")
    while True:
        await caller.say(b"x-more: and more\r\n" * 100)


async def interim_answers_without_end(it: Agent, caller: Caller) -> None:
    await caller.request()
    it.stuck.set()
    while True:
        await caller.say(head("103 Early Hints", "link: </style>"))
        await asyncio.sleep(0)  # let other tasks run


async def redirect_to_nowhere(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("307 Temporary Redirect", "location: http://[", "content-length: 0"))


async def empty_answer(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.answer(b"")


async def senseless_answer(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.answer(b"\x00\xff" * 500)


async def broken_chunks(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("200 OK", "transfer-encoding: chunked"), b"nonsense\r\n")


async def half_an_answer(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("200 OK", "content-length: 100"), b"half")


async def half_an_excuse(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("503 Service Unavailable", "content-length: 100"), b"half")

"""Listening sockets for the addresses in settings. A process that cannot listen must end."""

import socket

from workers.settings.listen_address import split_host_port

BACKLOG = 2048
"""uvicorn's own: boxes reconnect together after an outage."""


class CannotListen(Exception):
    """The process cannot listen at an address; the message names setting, address and cause."""

    def __init__(self, setting: str, bind: str, cause: Exception) -> None:
        text = cause.strerror if isinstance(cause, OSError) else None
        super().__init__(f"{setting}={bind}: cannot listen there ({text or cause})")


def listen(setting: str, bind: str) -> list[socket.socket]:
    """A listening socket for each address of the host. Raises `CannotListen`."""
    host, port = split_host_port(bind)
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, resolved in dict.fromkeys(found):
            sockets.append(socket.create_server(resolved[:2], family=family, backlog=BACKLOG))
    except OSError as error:
        for each in sockets:
            each.close()
        raise CannotListen(setting, bind, error) from None
    return sockets

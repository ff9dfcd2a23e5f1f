"""The AWS endpoint as a process: `python -m devstack.aws --port N`."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from wsgiref.types import WSGIApplication

from moto.moto_server.werkzeug_app import MotoRequestHandler
from typing_extensions import override
from werkzeug.serving import make_server

from devstack.aws.cloud import Cloud, StateWriter
from devstack.aws.instances import Delays
from devstack.aws.layer import FaultLayer


class QuietHandler(MotoRequestHandler):
    """Request handler without an access log; there are thousands of describe calls."""

    disable_nagle_algorithm = True
    """Disables Nagle's algorithm: head and body are two writes, and the second would wait 40 ms."""

    @override
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or SIGINT, and save the state at the end."""
    parser = argparse.ArgumentParser(prog="devstack.aws", description="An AWS endpoint on this machine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--region", default="us-east-1", help="where the default network is")
    parser.add_argument("--state", type=Path, help="keep everything in this file")
    parser.add_argument("--pending-seconds", type=float, default=Delays().pending_seconds)
    parser.add_argument("--terminating-seconds", type=float, default=Delays().terminating_seconds)
    options = parser.parse_args(arguments)
    delays = Delays(pending_seconds=options.pending_seconds, terminating_seconds=options.terminating_seconds)
    cloud = Cloud.open(options.region, delays, state=options.state)
    saver = StateWriter(cloud, options.state) if options.state else None
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    cloud.info()  # moto creates the default network at its first request
    layer: WSGIApplication = FaultLayer(cloud, saver=saver)
    server = make_server(options.host, options.port, layer, threaded=True, request_handler=QuietHandler)
    try:
        server.serve_forever()
    finally:
        if saver is not None:
            saver.save()


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

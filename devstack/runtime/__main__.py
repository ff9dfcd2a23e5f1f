"""The runtime as a process: `python -m devstack.runtime`, configured by environment variables.

It ends with the process that started it.
"""

import os
import threading
import time
from http.server import ThreadingHTTPServer

from devstack.runtime.conversation import Runtime
from devstack.runtime.server import Handler

PARENT_CHECK_SECONDS = 0.2
"""Poll interval of the parent check: a runtime ends with its machine."""


def main() -> None:
    """Serve until the box has ended."""
    box = os.getppid()
    runtime = Runtime.from_environment(os.environ)
    Handler.runtime = runtime
    # Behind a proxy, the listening port differs from the advertised one.
    port = int(os.environ.get("ONEBOX_LISTEN_PORT") or runtime.port)
    with ThreadingHTTPServer((runtime.address, port), Handler) as server:
        for target in (server.serve_forever, runtime.run):
            threading.Thread(target=target, daemon=True).start()
        while os.getppid() == box:
            time.sleep(PARENT_CHECK_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main()

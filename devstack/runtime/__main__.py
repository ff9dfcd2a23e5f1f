"""The runtime as a process: `python -m devstack.runtime`, told by its environment.

Only the composition; it ends with the process that started it.
"""

import os
import threading
import time
from http.server import ThreadingHTTPServer

from devstack.runtime.conversation import Runtime
from devstack.runtime.server import Handler

PARENT_CHECK_SECONDS = 0.2
"""How soon it ends after its box: a machine takes everything along when it goes."""


def main() -> None:
    """Serve until the box is gone."""
    box = os.getppid()
    runtime = Runtime.from_environment(os.environ)
    Handler.runtime = runtime
    # Behind a proxy it listens elsewhere than it says.
    port = int(os.environ.get("ONEBOX_LISTEN_PORT") or runtime.port)
    with ThreadingHTTPServer((runtime.address, port), Handler) as server:
        for target in (server.serve_forever, runtime.run):
            threading.Thread(target=target, daemon=True).start()
        while os.getppid() == box:
            time.sleep(PARENT_CHECK_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main()

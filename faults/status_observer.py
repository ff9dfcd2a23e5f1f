"""Samples the displayed status: the API's response, and PostgreSQL just before and just after (I9).

Runs on its own thread. A sample that fails because a part is down is dropped.
"""

import threading
import time
from types import TracebackType

import httpx2
import psycopg

from faults.collectors import Collectors
from faults.invariants.evidence import StatusSample

SAMPLE_SECONDS = 0.2
"""Pause between two samples; each covers all workspaces."""


class StatusObserver:
    """Samples until the end of the block."""

    def __init__(
        self, collectors: Collectors, *, api_url: str, operator_token: str, workspaces: list[str]
    ) -> None:
        """`workspaces` is read again for each sample."""
        self._looks: list[StatusSample] = []
        self._collectors = collectors
        self._workspaces = workspaces
        self._client = httpx2.Client(
            base_url=api_url,
            headers={"Authorization": f"Bearer {operator_token}"},
            timeout=5.0,
            trust_env=False,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    @property
    def status_samples(self) -> tuple[StatusSample, ...]:
        """Return the samples so far."""
        return tuple(self._looks)

    def __enter__(self) -> "StatusObserver":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while not self._over.is_set():
            for workspace in list(self._workspaces):
                if self._over.wait(SAMPLE_SECONDS):
                    return
                try:
                    self._sample(workspace)
                except (httpx2.HTTPError, psycopg.Error):
                    continue

    def _sample(self, workspace: str) -> None:
        before = self._collectors.truth(workspace)
        answer = self._client.get(f"/workspaces/{workspace}")
        if answer.status_code != 200:
            return
        after = self._collectors.truth(workspace)
        shown = answer.json()
        self._looks.append(
            StatusSample(
                workspace=workspace,
                at=time.time(),
                phase=shown["phase"],
                generation=shown["generation"],
                before=before,
                after=after,
            )
        )

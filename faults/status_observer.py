"""Looks at what is shown, all the time: the API's word, and PostgreSQL's just before and just after (I9).

A thread of its own; a look that fails, because something is down, is none.
"""

import threading
import time
from types import TracebackType

import httpx
import psycopg

from faults.collectors import Collectors
from faults.invariants.evidence import StatusSample

SAMPLE_SECONDS = 0.2
"""Between two looks, of all workspaces in turn."""


class StatusObserver:
    """Looks until the end of the block."""

    def __init__(
        self, collectors: Collectors, *, api_url: str, operator_token: str, workspaces: list[str]
    ) -> None:
        """`workspaces` is looked at afresh each time."""
        self._looks: list[StatusSample] = []
        self._witnesses = collectors
        self._workspaces = workspaces
        self._client = httpx.Client(
            base_url=api_url,
            headers={"Authorization": f"Bearer {operator_token}"},
            timeout=5.0,
            trust_env=False,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    @property
    def status_samples(self) -> tuple[StatusSample, ...]:
        """What was seen so far."""
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
                except (httpx.HTTPError, psycopg.Error):
                    continue

    def _sample(self, workspace: str) -> None:
        before = self._witnesses.truth(workspace)
        answer = self._client.get(f"/workspaces/{workspace}")
        if answer.status_code != 200:
            return
        after = self._witnesses.truth(workspace)
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

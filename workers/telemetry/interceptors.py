"""Worker interceptors: log context, a metric and a span for each activity attempt.

Workflow code only adds the request ID as a header to its activities. It emits no metrics or spans, because a
replay would emit them again. Of payloads, only workspace and generation are read.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from opentelemetry.trace import Span
from structlog.contextvars import bound_contextvars
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import DefaultPayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from typing_extensions import override

from activities.telemetry import metrics, tracing
from workflows.workspace.contract import AskCanary, OpenGeneration
from workflows.workspace.phases import plan

REQUEST_HEADER = "onebox-request-id"

UNTRACED_ACTIVITIES = frozenset({"record_status", "advance_delegation", "watch_rollout"})
"""Too frequent for a trace."""

_CONVERTER = DefaultPayloadConverter()


@runtime_checkable
class HasRequestId(Protocol):
    """A workflow that works for a request."""

    def current_request(self) -> str:
        """The ID of the request that opened the current generation; empty if there was none."""


class ObservabilityInterceptor(Interceptor):
    """The interceptor of every worker. In histories it changes activity headers only."""

    @override
    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _ActivityObserver(next)

    @override
    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        return _HeaderInbound


class _ActivityObserver(ActivityInboundInterceptor):
    @override
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        subject, request_id = _subject(input.args), _request_id(input.headers)
        names: dict[str, str | int] = {"activity": info.activity_type, "attempt": info.attempt}
        if info.workflow_id is not None and info.workflow_run_id is not None:
            names |= {"workflow_id": info.workflow_id, "run_id": info.workflow_run_id}
        if request_id:
            names["request_id"] = request_id
        if subject is not None:
            names["workspace"] = subject[0]
            if subject[1]:
                names["generation"] = subject[1]
        with bound_contextvars(**names):
            if info.activity_type in UNTRACED_ACTIVITIES:
                return await self._measured(info.activity_type, input)
            attributes = {f"onebox.{name}": value for name, value in names.items()}
            step = plan.BY_ACTIVITY.get(info.activity_type)
            provisioning = step is not None and step.provisions
            of = subject if provisioning and subject is not None and subject[1] else None
            with tracing.span(info.activity_type, of=of, attributes=attributes) as span:
                return await self._measured(info.activity_type, input, span)

    async def _measured(self, name: str, call: ExecuteActivityInput, span: Span | None = None) -> Any:
        started, code = time.monotonic(), ""
        try:
            return await self.next.execute_activity(call)
        except ApplicationError as error:
            code = error.type or "unknown"
            raise
        except Exception as error:
            code = type(error).__name__
            raise
        finally:
            metrics.ACTIVITY_SECONDS.labels(name).observe(time.monotonic() - started)
            if code:
                metrics.ACTIVITY_FAILURES.labels(name, code).inc()
                if span is not None:
                    tracing.mark_failed(span, code)


class _HeaderInbound(WorkflowInboundInterceptor):
    @override
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_HeaderOutbound(outbound))


class _HeaderOutbound(WorkflowOutboundInterceptor):
    @override
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        instance: object = workflow.instance()
        request_id = instance.current_request() if isinstance(instance, HasRequestId) else ""
        if request_id:
            payload = _CONVERTER.to_payloads([request_id])[0]
            input.headers = {**input.headers, REQUEST_HEADER: payload}
        return super().start_activity(input)


def _request_id(headers: Mapping[str, Payload]) -> str:
    payload = headers.get(REQUEST_HEADER)
    return "" if payload is None else str(_CONVERTER.from_payloads([payload])[0])


def _subject(args: Sequence[object]) -> tuple[str, int] | None:
    """The activity's workspace and generation (0 without one); None if it has no workspace."""
    request = args[0] if args else None
    workspace_id, generation = getattr(request, "workspace_id", None), getattr(request, "generation", None)
    if isinstance(request, OpenGeneration):
        generation = request.after + 1
    if isinstance(request, AskCanary) and request.round:
        generation = None  # the canary of an idle box is not part of provisioning
    if not isinstance(workspace_id, str):
        return None
    return workspace_id, generation if isinstance(generation, int) else 0

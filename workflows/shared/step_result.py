"""The base of step results."""


class StepResult:
    """The result of a step's activity; the lifecycle applies it as an event. Each step has its own type."""

    __slots__ = ()

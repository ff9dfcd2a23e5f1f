"""All processes derive the same trace for a generation, and no two generations share one."""

from workflows.shared.trace_ids import of_generation


def test_the_trace_of_a_generation_is_always_the_same() -> None:
    assert of_generation("ws-1", 7) == of_generation("ws-1", 7)


def test_each_generation_of_each_workspace_has_its_own_trace() -> None:
    ids = {
        of_generation(name, generation).trace_id
        for name in ("ws-1", "ws-11", "ws-2")
        for generation in range(1, 200)
    }
    assert len(ids) == 3 * 199


def test_the_ids_have_the_sizes_of_opentelemetry() -> None:
    ids = of_generation("ws-1", 1)
    assert 0 < ids.trace_id < 2**128
    assert 0 < ids.span_id < 2**64

"""The trace of a generation is found by everyone, and is no other generation's."""

from workflows.shared.trace_ids import of_generation


def test_it_is_the_same_for_whoever_asks() -> None:
    assert of_generation("ws-1", 7) == of_generation("ws-1", 7)


def test_generations_and_workspaces_have_traces_of_their_own() -> None:
    ids = {
        of_generation(name, generation).trace_id
        for name in ("ws-1", "ws-11", "ws-2")
        for generation in range(1, 200)
    }
    assert len(ids) == 3 * 199


def test_the_ids_have_the_sizes_that_opentelemetry_gives_them() -> None:
    ids = of_generation("ws-1", 1)
    assert 0 < ids.trace_id < 2**128
    assert 0 < ids.span_id < 2**64

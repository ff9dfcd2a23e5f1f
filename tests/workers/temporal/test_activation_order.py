"""The SDK flag that `activation_order` turns on is still off by default."""

from temporalio.worker._workflow_instance import _DEFAULT_ENABLED_WORKFLOW_LOGIC_FLAGS

from workers.temporal.activation_order import SINGLE_BATCH_FLAG


def test_the_flag_is_off_by_default() -> None:
    assert SINGLE_BATCH_FLAG not in _DEFAULT_ENABLED_WORKFLOW_LOGIC_FLAGS, (
        "the SDK now applies all jobs first by itself: remove workers/temporal/activation_order.py"
    )

"""A workflow that the SDK cannot evict from its worker."""

import asyncio

from temporalio import workflow


@workflow.defn
class Clinging:
    """Its task fails, which evicts it; it ignores the eviction and continues."""

    @workflow.run
    async def run(self) -> None:
        clinging = asyncio.create_task(self._cling())
        await asyncio.sleep(0)
        raise RuntimeError(f"evict {clinging.get_name()}")

    async def _cling(self) -> None:
        while True:
            try:
                await workflow.wait_condition(lambda: False)
            except BaseException as error:  # noqa: BLE001 - the eviction is an exception, too
                workflow.logger.info("goes on", exc_info=error)

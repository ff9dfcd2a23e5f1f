"""A workflow that its worker cannot let go of."""

import asyncio

from temporalio import workflow


@workflow.defn
class Clinging:
    """Its task fails, so that it is evicted; and it goes on after it was told so."""

    @workflow.run
    async def run(self) -> None:
        clinging = asyncio.create_task(self._cling())
        await asyncio.sleep(0)
        raise RuntimeError(f"evict {clinging.get_name()}")

    async def _cling(self) -> None:
        while True:
            try:
                await workflow.wait_condition(lambda: False)
            except BaseException as error:  # noqa: BLE001 - the end of the run is one, and is meant
                workflow.logger.info("goes on", exc_info=error)

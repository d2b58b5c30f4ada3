"""Turns at downloads: nobody has more than there are, and nobody's slow ones keep the others waiting."""

import asyncio
import random

import pytest

from wasmpool_agent.oci.turns import Turns


def test_one_tenants_downloads_leave_turns_for_others() -> None:
    async def test() -> None:
        turns, held = Turns(4, 2), asyncio.Event()
        begun: list[str] = []

        async def download(scope: str, until: asyncio.Event | None) -> None:
            async with turns.turn(scope):
                begun.append(scope)
                if until is not None:
                    await until.wait()

        slow = [asyncio.create_task(download("slow", held)) for _ in range(8)]
        await asyncio.sleep(0)
        assert begun == ["slow", "slow"]
        async with asyncio.timeout(5):
            await asyncio.gather(*(download("other", None) for _ in range(5)))
        assert turns.waiting == 6
        held.set()
        await asyncio.gather(*slow)
        assert begun.count("slow") == 8
        assert turns.waiting == 0

    asyncio.run(test())


@pytest.mark.parametrize("seed", range(20))
def test_no_turn_is_lost_or_given_twice_whoever_goes_when(seed: int) -> None:
    async def test() -> None:
        chance, turns = random.Random(seed), Turns(3, 2)  # noqa: S311 - an order of events
        holding: list[str] = []

        async def work(scope: str) -> None:
            async with turns.turn(scope):
                holding.append(scope)
                assert len(holding) <= 3
                assert holding.count(scope) <= 2
                try:
                    await asyncio.sleep(chance.random() / 1000)
                finally:
                    holding.remove(scope)

        tasks = [asyncio.create_task(work(chance.choice("abc"))) for _ in range(40)]
        for task in tasks:
            if chance.random() < 0.3:
                task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert not holding
        async with asyncio.timeout(1):
            await asyncio.gather(*(work("a") for _ in range(4)))

    asyncio.run(test())

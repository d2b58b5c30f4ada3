"""Events are few: an object's own budget, and what happens again is counted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from wasmpool_operator.events import Note, Regarding
from wasmpool_operator.ports import Manifest, Page, Resource, Unavailable
from wasmpool_operator.recorder import BURST, REFILL_SECONDS, SERIES_SECONDS, Recorder

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Events:
    """An API server that takes Events and nothing else."""

    def __init__(self) -> None:
        self.created: list[Manifest] = []
        self.patched: list[Manifest] = []
        self.away = False

    async def create(self, manifest: Manifest) -> Manifest:
        if self.away:
            raise Unavailable("POST events", 503, "away")
        assert manifest["metadata"]["name"] not in {it["metadata"]["name"] for it in self.created}
        self.created.append(manifest)
        return manifest

    async def patch_json(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Manifest]
    ) -> Manifest | None:
        if name not in {it["metadata"]["name"] for it in self.created}:
            return None
        self.patched.append(operations[0]["value"])
        return {}

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        raise NotImplementedError

    def list_pages(
        self, resource: Resource, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Page]:
        raise NotImplementedError

    async def apply(self, manifest: Manifest) -> Manifest:
        raise NotImplementedError

    async def apply_status(self, manifest: Manifest) -> Manifest:
        raise NotImplementedError

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        raise NotImplementedError


class Stand:
    """A recorder, what it writes, and the time."""

    def __init__(self) -> None:
        self.events, self.now = Events(), NOON
        self._recorder = Recorder(self.events, "operator-0", lambda: self.now)

    def tell(self, *texts: str, name: str = "web") -> None:
        about = Regarding("WasmWorkload", "team", name, f"uid-{name}")
        notes = [Note("Normal", "Running", "Running", text) for text in texts]
        asyncio.run(self._recorder.record(about, notes))

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_what_happens_again_is_one_more_of_the_same() -> None:
    stand = Stand()
    stand.tell("1 of 1 running")
    for _ in range(2):
        stand.later(5)
        stand.tell("1 of 1 running")
    assert len(stand.events.created) == 1
    assert [it["count"] for it in stand.events.patched] == [2, 3]
    assert stand.events.patched[-1]["lastObservedTime"] == "2026-01-01T12:00:10.000000Z"
    stand.later(SERIES_SECONDS + 1)
    stand.tell("1 of 1 running")
    assert len(stand.events.created) == 2


def test_one_that_the_api_server_has_dropped_is_written_anew() -> None:
    stand = Stand()
    stand.tell("a")
    stand.events.created.clear()
    stand.tell("a")
    assert len(stand.events.created) == 1


def test_an_object_has_a_budget_that_comes_back_and_others_have_their_own() -> None:
    stand = Stand()
    stand.tell(*(f"{n}" for n in range(BURST + 10)))
    assert len(stand.events.created) == BURST
    stand.tell("mine", name="other")
    assert stand.events.created[-1]["regarding"]["name"] == "other"
    stand.later(REFILL_SECONDS)
    stand.tell("x", "y")
    assert len(stand.events.created) == BURST + 2


def test_an_event_that_can_not_be_written_is_lost_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand()
    stand.events.away = True
    stand.tell("a")
    assert "an Event is lost" in caplog.text
    stand.events.away = False
    stand.tell("a")
    assert len(stand.events.created) == 1


def test_a_note_is_cut_to_what_an_event_may_hold() -> None:
    stand = Stand()
    stand.tell("a" * 5000)
    assert len(stand.events.created[0]["note"]) == 1024

"""Loading a layer into its part: gone on from where it was cut, and right at the end or not there at all."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.oci.asking import Asking
from wasmpool_agent.oci.credentials import Credential
from wasmpool_agent.oci.errors import DigestMismatchError, TooSlowError, UnreachableError
from wasmpool_agent.oci.manifest import Descriptor
from wasmpool_agent.oci.parts import Part
from wasmpool_agent.oci.settings import Endpoint, Limits
from wasmpool_agent.oci.transport import Answer, Request

FLUSH_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Transfer:
    """Of one layer. `on_bytes`: called with the number of bytes of each chunk that came over the network."""

    asking: Asking
    described: Descriptor
    part: Part
    on_bytes: Callable[[int], None]
    pace: "Pace"

    async def run(self) -> None:
        """After it the part is right. Raises PullError."""
        try:
            await self._load(self._from_any)
        except DigestMismatchError:
            # What an earlier process or another server left may be to blame: once more, from the beginning.
            again = self.part.mixed
            await self.part.restart()
            if not again:
                self.part.remove()
                raise
            await self._load_anew()

    async def _load_anew(self) -> None:
        try:
            await self._load(self._from_one)
        except DigestMismatchError:
            await self.part.restart()
            self.part.remove()
            raise

    async def _load(self, from_where: Callable[[Endpoint, Credential], Awaitable[None]]) -> None:
        if not self.part.whole:
            await self.asking.anywhere(from_where, lambda: self.part.size)
        if not self.part.right:
            raise self._wrong(f"layer of {self.asking.reference}")

    async def _from_one(self, endpoint: Endpoint, credential: Credential) -> None:
        if self.part.source != endpoint.name:
            await self.part.restart()
        await self._from_any(endpoint, credential)

    async def _from_any(self, endpoint: Endpoint, credential: Credential) -> None:
        part = self.part
        what = f"GET layer {self.described.digest} of {endpoint.name}"
        headers = {"Accept": "*/*"} | ({"Range": f"bytes={part.size}-"} if part.size else {})
        request = Request("GET", endpoint.url("blobs", self.described.digest), what, headers)
        async with self.asking.asked(endpoint, credential, request) as (answer, _):
            await self._prepare(answer, what)
            part.mixed = part.mixed or part.size > 0
            part.source = endpoint.name
            await self._take(answer, what)
        if not part.whole:
            raise UnreachableError(f"{what}: it ended after {part.size} of {self.described.size} bytes")
        if not part.right and not part.mixed:
            raise await self._forgotten(self._wrong(what))

    async def _prepare(self, answer: Answer, what: str) -> None:
        """Sees to it that what comes goes on from where the part ends."""
        part, size = self.part, self.described.size
        if answer.status == 206 and part.size:
            if not answer.headers.get("Content-Range", "").replace(" ", "").startswith(f"bytes{part.size}-"):
                await part.restart()
                raise UnreachableError(f"{what}: a range came that was not asked for")
            return
        if answer.status == 416:
            await part.restart()
            raise UnreachableError(f"{what}: 416: the registry has no such range", status=416)
        if answer.status != 200:
            raise await answer.refusal()
        if part.size:  # it knows no ranges
            await part.restart()
        declared = answer.headers.get("Content-Length", "")[:20]
        if declared.isascii() and declared.isdigit() and int(declared) != size:
            raise DigestMismatchError(f"{what}: the registry has {declared} bytes, the manifest says {size}")

    async def _take(self, answer: Answer, what: str) -> None:
        gathered = bytearray()
        self.pace.begin()
        try:
            async with aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    self.on_bytes(len(chunk))
                    gathered += chunk
                    self.pace.count(len(chunk), what)
                    if self.part.size + len(gathered) > self.described.size:
                        gathered.clear()
                        problem = f"{what}: more than the {self.described.size} bytes of the manifest came"
                        raise await self._forgotten(DigestMismatchError(problem))
                    if len(gathered) >= FLUSH_BYTES:
                        await self.part.append(bytes(gathered))
                        gathered.clear()
        finally:
            self.pace.end()
            # What came before a cut is gone on from.
            if gathered:
                await self.part.append(bytes(gathered))

    async def _forgotten(self, error: DigestMismatchError) -> DigestMismatchError:
        """Nothing of it is left for the next one who is asked."""
        await self.part.restart()
        return error

    def _wrong(self, what: str) -> DigestMismatchError:
        return DigestMismatchError(
            f"{what}: the {self.part.size} bytes that came are not the {self.described.size} bytes of "
            f"{self.described.digest}"
        )


class Pace:
    """Bytes per second of one download, over all its layers and attempts; looked at once in every `slow_seconds`.

    Seconds count while bytes are being waited for: neither pauses nor servers that give none are slow downloads.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._seconds, self._bytes = 0.0, 0
        self._since = clock()

    def begin(self) -> None:
        """A body is coming."""
        self._since = self._clock()

    def end(self) -> None:
        """It comes no more."""
        now = self._clock()
        self._seconds, self._since = self._seconds + now - self._since, now

    def count(self, more: int, what: str) -> None:
        """So many have come. Raises TooSlowError."""
        self._bytes += more
        self.end()
        if self._seconds < self._limits.slow_seconds:
            return
        least = self._limits.least_bytes_per_second
        slow = self._bytes < least * self._seconds
        self._seconds, self._bytes = 0.0, 0
        if slow:
            raise TooSlowError(f"{what}: fewer than {least:g} bytes per second come")

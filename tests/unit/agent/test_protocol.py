"""The socket between supervisor and worker: what arrives is what was sent, and everything else is refused by name."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from wasmpool_agent.channel import MAX_FDS, MAX_MESSAGE_BYTES, ChannelClosed, MessageTooLarge, ProtocolError
from wasmpool_agent.protocol import (
    ArtifactKind,
    Exited,
    LoadModule,
    Part,
    Ready,
    Result,
    Start,
    Stop,
    SupervisorChannel,
    WorkerChannel,
    socket_pair,
    supervisor_channel,
    worker_channel,
)

START = Start(
    instance=1, workload_id=2, workload="a/b", revision="b-1", artifact="k", args=("x", "ü"), env=(("A", "1"),)
)


def between(test: Callable[[SupervisorChannel, WorkerChannel], Awaitable[None]]) -> None:
    async def main() -> None:
        ours, theirs = socket_pair()
        supervisor, worker = supervisor_channel(ours), worker_channel(theirs)
        try:
            async with asyncio.timeout(20):
                await test(supervisor, worker)
        finally:
            supervisor.close()
            worker.close()

    asyncio.run(main())


def test_messages_arrive_whole_and_in_order_with_their_descriptors() -> None:
    async def test(supervisor: SupervisorChannel, worker: WorkerChannel) -> None:
        read, write = os.pipe()
        supervisor.post(START)
        supervisor.post(LoadModule(key="k", kind=ArtifactKind.MODULE, parts=(Part(size=1, sha256="0"),)), (write,))
        os.close(write)
        assert await worker.receive() == (START, ())
        message, (fd,) = await worker.receive()
        assert message == LoadModule(key="k", kind=ArtifactKind.MODULE, parts=(Part(size=1, sha256="0"),))
        assert not os.get_inheritable(fd)
        os.write(fd, b"x")
        assert os.read(read, 9) == b"x"
        os.close(fd)
        os.close(read)
        worker.post(Exited(instance=1, result=Result.TRAP, message="m"))
        assert await supervisor.receive() == (Exited(instance=1, result=Result.TRAP, message="m"), ())

    between(test)


def test_more_than_the_kernel_holds_waits_and_arrives_in_order() -> None:
    async def test(supervisor: SupervisorChannel, worker: WorkerChannel) -> None:
        with open("/dev/null", "rb") as null:  # noqa: ASYNC230 - opens at once
            for number in range(500):
                supervisor.post(Start(**{**_fields(), "instance": number, "args": ("x" * 9000,)}), (null.fileno(),))
        numbers: list[int] = []
        while len(numbers) < 500:
            message, fds = await worker.receive()
            assert isinstance(message, Start)
            assert len(fds) == 1
            os.close(fds[0])
            numbers.append(message.instance)
        assert numbers == list(range(500))
        await supervisor.drain()

    between(test)


def test_a_message_that_is_too_large_is_refused_with_both_numbers() -> None:
    async def test(supervisor: SupervisorChannel, worker: WorkerChannel) -> None:
        with pytest.raises(MessageTooLarge, match=rf"Start takes \d+ bytes, at most {MAX_MESSAGE_BYTES} are allowed"):
            supervisor.post(Start(**{**_fields(), "args": ("x" * MAX_MESSAGE_BYTES,)}))
        supervisor.post(Stop(instance=1))
        assert await worker.receive() == (Stop(instance=1), ())

    between(test)


@pytest.mark.parametrize(
    "packet", [b"{", b'{"type":"Begin"}', b'{"type":"Stop"}', b'{"type":"Stop","instance":"1"}', b"\xff", b"[]"]
)
def test_what_is_not_a_message_is_a_protocol_error(packet: bytes) -> None:
    async def main() -> None:
        ours, theirs = socket_pair()
        worker = worker_channel(theirs)
        ours.send(packet)
        with pytest.raises(ProtocolError, match="not a message of this protocol"):
            await worker.receive()
        worker.close()
        ours.close()

    asyncio.run(main())


def test_a_packet_that_is_too_long_or_carries_too_many_descriptors_is_a_protocol_error_and_leaks_none() -> None:
    async def main() -> None:
        ours, theirs = socket_pair()
        worker = worker_channel(theirs)
        before = len(os.listdir("/proc/self/fd"))
        with open("/dev/null", "rb") as null:  # noqa: ASYNC230 - opens at once
            socket.send_fds(ours, [b'{"type":"Stop","instance":1}'], [null.fileno()] * (MAX_FDS + 6))
        with pytest.raises(ProtocolError, match=f"{MAX_FDS} descriptors"):
            await worker.receive()
        ours.send(b" " * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(ProtocolError, match=str(MAX_MESSAGE_BYTES)):
            await worker.receive()
        assert len(os.listdir("/proc/self/fd")) == before
        worker.close()
        ours.close()

    asyncio.run(main())


def test_a_worker_of_another_version_is_not_understood() -> None:
    async def test(supervisor: SupervisorChannel, worker: WorkerChannel) -> None:
        worker.post(Ready(pid=1, protocol=99))
        with pytest.raises(ProtocolError, match="the worker speaks protocol 99, this agent 2"):
            await supervisor.receive()

    between(test)


def test_the_end_of_the_other_side_is_seen_by_both_directions() -> None:
    async def test(supervisor: SupervisorChannel, worker: WorkerChannel) -> None:
        worker.close()
        with pytest.raises(ChannelClosed):
            await supervisor.receive()
        with pytest.raises(ChannelClosed):
            supervisor.post(Stop(instance=1))
        with pytest.raises(ChannelClosed):
            await worker.receive()

    between(test)


def _fields() -> dict[str, object]:
    return {name: getattr(START, name) for name in START.__struct_fields__}

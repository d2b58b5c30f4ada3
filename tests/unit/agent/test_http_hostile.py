"""The HTTP/1.1 server over real sockets, for clients that mean harm, or do it.

Covers requests that two parsers would read in two ways, everything that is too large or takes too long, floods, and
clients that vanish at every moment of a request.
"""

import asyncio
import os
import random
from dataclasses import replace

import pytest

from tests.unit.agent.http_harness import CHUNKED, GET, QUICK, Answer, Streamed, echo, hello, run, serving, until
from wasmpool_agent.http import Exchange, Limits

POST = b"POST / HTTP/1.1\r\nhost: here\r\n"
AMBIGUOUS = {
    "length and chunks": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "two equal lengths": POST + b"content-length: 4\r\ncontent-length: 4\r\n\r\nabcd",
    "two lengths": POST + b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "a list of lengths": POST + b"content-length: 4, 4\r\n\r\nabcd",
    "a length with a sign": POST + b"content-length: +4\r\n\r\nabcd",
    "a negative length": POST + b"content-length: -4\r\n\r\nabcd",
    "a hexadecimal length": POST + b"content-length: 0x4\r\n\r\nabcd",
    "no length in a length": POST + b"content-length: \r\n\r\nabcd",
    "a length beyond 64 bits": POST + b"content-length: 99999999999999999999\r\n\r\nabcd",
    "chunks twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks, then identity": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "chunks inside of another coding": POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "an empty coding": POST + b"transfer-encoding: \r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab before the coding": POST + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": POST + b"x: a\r\n b\r\n\r\n",
    "a folded coding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed in the head": POST + b"x: a\ny: b\r\n\r\n",
    "bare line feeds all over": b"GET / HTTP/1.1\nhost: here\n\n",
    "a bare carriage return": POST + b"x: a\ry: b\r\n\r\n",
    "a NUL in a value": POST + b"x: a\0b\r\n\r\n",
    "a control character in a value": POST + b"x: a\x01b\r\n\r\n",
    "an empty name": POST + b": a\r\n\r\n",
    "a line without a colon": POST + b"abc\r\n\r\n",
    "a space in a name": POST + b"a b: c\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
    "a URL with a user": b"GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
    "a URL without a host": b"GET http:///a HTTP/1.1\r\nhost: a\r\n\r\n",
    "a fragment in the target": b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
    "a target that is no path": b"GET a HTTP/1.1\r\nhost: a\r\n\r\n",
    "a star for a GET": b"GET * HTTP/1.1\r\nhost: a\r\n\r\n",
    "a byte above 127 in the target": b"GET /\xe4 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n",
    "an unknown version": b"GET / HTTP/1.2\r\nhost: a\r\n\r\n",
    "an unknown method": b"FROB / HTTP/1.1\r\nhost: a\r\n\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "the method of proxies": b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
}
OTHER_STATUS = {"the method of proxies": 405, "an unknown coding": 501}
CHUNKS = {
    "no number": b"xyz\r\n",
    "0x": b"0x4\r\nabcd\r\n0\r\n\r\n",
    "a sign": b"+4\r\nabcd\r\n0\r\n\r\n",
    "a space after the size": b"4 \r\nabcd\r\n0\r\n\r\n",
    "a bare line feed after the size": b"4\nabcd\r\n0\r\n\r\n",
    "a bare line feed after an extension": b"4;a\nabcd\r\n0\r\n\r\n",
    "no line end after the data": b"4\r\nabcd0\r\n\r\n",
    "more data than the size": b"4\r\nabcdef\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"ffffffffffffffffff\r\nabcd",
    "a folded trailer": b"0\r\nx: a\r\n b\r\n\r\n",
    "a length among the trailers": b"0\r\ncontent-length: 3\r\n\r\n",
}


def never(exchange: Exchange) -> None:
    raise AssertionError(f"{exchange.method} {exchange.path_with_query} came through")


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused_before_anybody_is_asked(what: str) -> None:
    async def test() -> None:
        async with serving(never) as server:
            found = await server.ask(AMBIGUOUS[what] + GET)
            assert found.status == OTHER_STATUS.get(what, 400)
            assert found.headers["connection"] == "close"
            await server.no_connection()

    run(test)


@pytest.mark.parametrize("what", CHUNKS)
def test_chunks_that_are_none_end_the_request_and_the_guest(what: str) -> None:
    gone: list[bool] = []

    def handler(exchange: Exchange) -> None:
        exchange.gone = lambda: gone.append(True)

    async def test() -> None:
        async with serving(handler) as server:
            found = await server.ask(CHUNKED + CHUNKS[what])
            assert (found.status, found.headers["connection"]) == (400, "close")
            assert gone == [True]
            assert not server.exchanges[0].body.ended
            await server.no_connection()

    run(test)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"expect: a miracle\r\n\r\n", 417),
        (b"GET / HTTP/2.0\r\nhost: here\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (POST + b"content-length: 2000\r\n\r\n", 413),
    ],
)
def test_what_is_understood_and_not_done_has_a_status_of_its_own(request_: bytes, status: int) -> None:
    async def test() -> None:
        async with serving(never, Limits(body_bytes=1000)) as server:
            assert (await server.ask(request_)).status == status

    run(test)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: here\r\n\r\n", 414),
        (b"GET /" + b"a" * 100_000, 414),
        (POST + b"x: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (POST + b"x: " + b"a" * 100_000, 431),
        (POST + b"a" * 100_000, 431),
        (POST + b"x: 1\r\n" * 60 + b"\r\n", 431),
        (b"\r\n" * 50_000, 431),
    ],
    ids=["target", "endless target", "header", "endless value", "endless name", "headers", "empty lines"],
)
def test_heads_that_are_too_large_are_refused(data: bytes, status: int) -> None:
    async def test() -> None:
        async with serving(never, Limits(target_bytes=4096, head_bytes=8192, headers=50)) as server:
            assert (await server.ask(data)).status == status

    run(test)


def test_heads_of_the_size_that_is_allowed_come_through() -> None:
    async def test() -> None:
        async with serving(limits=Limits(target_bytes=4096, head_bytes=8192, headers=50)) as server:
            for data in (b"GET /" + b"a" * 4095 + b" HTTP/1.1\r\nhost: here\r\n", POST + b"x: 1\r\n" * 48):
                assert (await server.ask(data + b"connection: close\r\n\r\n")).status == 200

    run(test)


def test_a_body_that_grows_too_large_ends_the_guest_in_the_middle_of_it() -> None:
    async def test() -> None:
        async with serving(echo, Limits(body_bytes=10_000)) as server:
            client = await server.client(CHUNKED)
            for _ in range(11):
                client.send(b"3e8\r\n" + b"a" * 1000 + b"\r\n")
            found = Answer.parse(await client.all())
            assert found.status == 413
            assert server.exchanges[0].answer.closed

    run(test)


@pytest.mark.parametrize(
    "flood",
    [b"1;" + b"x" * 100_000, b"0\r\nx: " + b"y" * 100_000, b"0\r\n" + b"x: y\r\n" * 20_000, b"0" * 100_000],
    ids=["extension", "trailer", "trailers", "zeroes"],
)
def test_a_body_that_is_all_framing_is_refused(flood: bytes) -> None:
    async def test() -> None:
        async with serving(echo, Limits(head_bytes=8192)) as server:
            found = await server.ask(CHUNKED + flood)
            assert found.status in {400, 431}

    run(test)


def test_an_endless_body_that_nobody_wants_is_not_read_to_its_end() -> None:
    async def test() -> None:
        async with serving(limits=QUICK) as server:
            client = await server.client(CHUNKED)
            assert (await client.answer()).status == 200
            sent = 0
            try:
                while sent < 64 * 1024 * 1024:
                    client.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                    sent += 0x10000
                    await client.writer.drain()
            except ConnectionError:
                pass
            await server.no_connection()
            assert sent < 64 * 1024 * 1024

    run(test)


def test_an_endless_body_that_nobody_reads_stays_with_the_client() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(CHUNKED)
            for _ in range(128):
                client.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await until(lambda: taken)
            await asyncio.sleep(0.2)
            assert taken[0].body.discard() < 256 * 1024
            assert client.writer.transport.get_write_buffer_size() > 0

    run(test)


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\nhost: he", b"\r\n"])
def test_a_head_that_does_not_come_in_time_ends_the_connection(begun: bytes) -> None:
    async def test() -> None:
        async with serving(never, QUICK) as server:
            client = await server.client(begun)
            data = await asyncio.wait_for(client.all(), 2.0)
            assert (Answer.parse(data).status if begun.strip() else data) == (408 if begun.strip() else b"")

    run(test)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_others(pipelined: bool) -> None:
    async def test() -> None:
        async with serving(limits=QUICK) as server:
            client = await server.client((GET if pipelined else b"") + b"GET / HTTP/1.1\r\nx: ")
            if pipelined:
                assert (await client.answer()).status == 200

            async def drip() -> None:
                while True:
                    client.send(b"a")
                    await asyncio.sleep(0.01)

            dripping = asyncio.ensure_future(drip())
            try:
                data = await asyncio.wait_for(client.all(), 2.0)
            finally:
                dripping.cancel()
            assert Answer.parse(data).status == 408

    run(test)


def test_a_connection_that_is_idle_is_closed() -> None:
    async def test() -> None:
        async with serving(limits=QUICK) as server:
            client = await server.client(GET)
            assert (await client.answer()).status == 200
            assert await asyncio.wait_for(client.all(), 2.0) == b""
            await server.no_connection()

    run(test)


def test_a_body_that_is_waited_for_and_does_not_come_ends_the_guest() -> None:
    gone: list[bool] = []

    def handler(exchange: Exchange) -> None:
        exchange.gone = lambda: gone.append(True)
        echo(exchange)

    async def test() -> None:
        async with serving(handler, QUICK) as server:
            found = await server.ask(POST + b"content-length: 5\r\n\r\nab")
            assert (found.status, gone) == (408, [True])

    run(test)


def test_a_body_that_nobody_waits_for_has_time() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append, QUICK) as server:
            client = await server.client(POST + b"content-length: 5\r\nconnection: close\r\n\r\nab")
            await asyncio.sleep(0.5)
            client.send(b"cde")
            echo(taken[0])
            assert Answer.parse(await client.all()).body == b"abcde"

    run(test)


def test_a_client_that_does_not_read_is_left() -> None:
    guest = Streamed()
    gone: list[bool] = []

    def handler(exchange: Exchange) -> None:
        exchange.gone = lambda: gone.append(True)
        guest(exchange)

    async def test() -> None:
        async with serving(handler, QUICK) as server:
            client = await server.client(receive_bytes=8192)
            client.writer.transport.pause_reading()
            client.send(GET)
            await until(lambda: gone, 3.0)
            await server.no_connection()

    run(test)


def test_requests_that_are_sent_meanwhile_do_not_keep_a_client_that_does_not_read() -> None:
    guest = Streamed()

    async def test() -> None:
        async with serving(guest, QUICK) as server:
            client = await server.client(receive_bytes=8192)
            client.writer.transport.pause_reading()
            client.send(GET)
            for _ in range(40):
                client.send(GET)
                await asyncio.sleep(0.02)
            await until(lambda: server.seen and not server.connections, 2.0)

    run(test)


def test_the_end_of_an_answer_that_nobody_reads_does_not_keep_the_connection() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])
        exchange.answer.write(b"x" * 60_000)
        exchange.answer.finish()

    async def test() -> None:
        async with serving(handler, QUICK) as server:
            client = await server.client(receive_bytes=4096)
            client.writer.transport.pause_reading()
            for _ in range(100):
                client.send(GET)
            await until(lambda: server.seen and not server.connections, 5.0)

    run(test)


def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    async def test() -> None:
        async with serving(never, Limits(body_bytes=10)) as server:
            client = await server.client(POST + b"content-length: 1000000\r\n\r\n" + bytes(1_000_000))
            assert (await client.answer()).status == 413

    run(test)


def test_what_came_before_a_request_that_is_refused_is_answered_first() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(GET + GET + b"rubbish\r\n\r\n")
            for n in range(2):
                await until(lambda n=n: len(taken) > n)  # type: ignore[misc]
                hello(taken[n])
            data = await client.all()
            assert [data.count(it) for it in (b"HTTP/1.1 200", b"HTTP/1.1 400")] == [2, 1]
            assert data.rindex(b"HTTP/1.1 200") < data.index(b"HTTP/1.1 400")

    run(test)


def test_a_flood_of_requests_is_read_no_faster_than_it_is_answered() -> None:
    taken: list[Exchange] = []
    count = 20_000

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(GET * count)
            await until(lambda: taken)
            await asyncio.sleep(0.1)
            (connection,) = server.connections
            assert len(connection._exchanges) < 500
            server.handler = hello
            hello(taken[0])
            reading = asyncio.ensure_future(client.reader.read(-1))
            await until(lambda: len(server.exchanges) == count, 20.0)
            connection.close()
            assert (await reading).count(b"200 OK") == count

    run(test)


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("cut", [1, 20, 45, 80, 95])
def test_clients_that_vanish_at_any_moment_leave_nothing(how: str, cut: int) -> None:
    whole = CHUNKED + b"10\r\n0123456789abcdef\r\n0\r\n\r\n"

    async def test() -> None:
        async with serving(echo) as server:
            client = await server.client(whole[:cut])
            await asyncio.sleep(0.02)
            if how == "reset":
                client.reset()
            else:
                client.writer.close()
            await server.no_connection()
            assert (await server.ask(GET.replace(b"here\r\n", b"here\r\nconnection: close\r\n"))).status == 200

    run(test)


def test_rubbish_never_harms_the_server() -> None:
    seed = int(os.environ.get("WASMPOOL_SEED", "7"))
    chance = random.Random(seed)  # noqa: S311
    good = CHUNKED + b"3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n" + POST + b"content-length: 3\r\n\r\nabc" + GET

    async def test() -> None:
        async with serving(echo, QUICK) as server:
            for _ in range(300):
                data = bytearray(good)
                for _ in range(chance.randrange(1, 6)):
                    at = chance.randrange(len(data))
                    if chance.random() < 0.5:
                        data[at] = chance.randrange(256)
                    else:
                        del data[at : at + chance.randrange(1, 20)]
                client = await server.client(bytes(data))
                client.writer.write_eof() if chance.random() < 0.5 else client.writer.close()
            assert (await server.ask(GET.replace(b"here\r\n", b"here\r\nconnection: close\r\n"))).status == 200
            await server.no_connection()

    run(test)


def test_limits_may_differ_by_site() -> None:
    async def test() -> None:
        strict = replace(Limits(), body_bytes=1)
        async with serving(echo, strict) as one, serving(echo) as other:
            data = POST + b"content-length: 2\r\nconnection: close\r\n\r\nab"
            assert [(await it.ask(data)).status for it in (one, other)] == [413, 200]

    run(test)

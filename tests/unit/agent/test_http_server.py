"""The HTTP/1.1 server over real sockets, for clients that mean well.

Covers framing both ways (lengths, chunks, trailers, HEAD, 204, HTTP/1.0), connections that are kept and pipelined,
100-continue, streaming both ways at once, back-pressure both ways, answers that come to nothing, and clients that go.
"""

import asyncio

import pytest

from tests.unit.agent.http_harness import (
    CHUNKED,
    GET,
    MOST_SECONDS,
    Answer,
    echo,
    hello,
    run,
    serving,
    until,
    whole_body,
)
from wasmpool_agent.http import Exchange
from wasmpool_agent.http.body import HIGH_BYTES, ROOM_BYTES
from wasmpool_agent.wasi.signals import StreamClosed, StreamFailed

LAST = b"GET /last HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(b"%s\r\n" % header for header in headers)
    return b"POST /in HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n%s\r\n%s" % (len(body), lines, body)


def test_an_answer_that_is_whole_at_once_has_a_length_a_date_and_one_write() -> None:
    async def test() -> None:
        async with serving() as server:
            client = await server.client(GET)
            data = await client.reader.readuntil(b"\r\n\r\n/")
            found = Answer.parse(data)
            assert (found.status, found.headers["content-length"], found.body) == (200, "1", b"/")
            assert found.headers["date"].endswith(" GMT")
            assert "transfer-encoding" not in found.headers
            assert "connection" not in found.headers

    run(test)


def test_what_came_is_given_as_it_was_written() -> None:
    async def test() -> None:
        async with serving() as server:
            await server.ask(
                b"PATCH /a%20b?c=d&e HTTP/1.1\r\nHost: example.org:8080\r\nX-One: 1\r\nx-one: 2\r\nX-Bin: \xff\r\n"
                b"Connection: close\r\nKeep-Alive: 3\r\nTE: trailers\r\n\r\n"
            )
            exchange = server.exchanges[0]
            assert (exchange.method, exchange.path_with_query) == ("PATCH", "/a%20b?c=d&e")
            assert (exchange.scheme, exchange.authority) == ("http", "example.org:8080")
            assert exchange.headers == [("x-one", b"1"), ("x-one", b"2"), ("x-bin", b"\xff"), ("te", b"trailers")]
            assert exchange.body.read(10) is None

    run(test)


def test_a_whole_url_is_taken_apart_and_goes_over_the_host_header() -> None:
    async def test() -> None:
        async with serving() as server:
            for url in (b"http://there:1/p?q", b"HTTP://there:1/p?q"):
                await server.ask(b"GET %s HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n" % url)
            await server.ask(b"GET http://there?q HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
            found = [(it.authority, it.path_with_query) for it in server.exchanges]
            assert found == [("there:1", "/p?q"), ("there:1", "/p?q"), ("there", "/?q")]

    run(test)


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_their_order() -> None:
    waiting: list[Exchange] = []

    async def test() -> None:
        async with serving(waiting.append) as server:
            client = await server.client(
                b"".join(b"GET /%d HTTP/1.1\r\nhost: here\r\n\r\n" % n for n in range(3)) + LAST
            )
            for target in ("/0", "/1", "/2", "/last"):
                await until(lambda: waiting)
                await asyncio.sleep(0.01)
                exchange = waiting.pop()
                assert not waiting, "the next one is asked when this one is answered"
                assert exchange.path_with_query == target
                hello(exchange)
            data = await client.all()
            assert [int(it) for it in (data.count(b"200 OK"), data.count(b"\r\n\r\n/"))] == [4, 4]
            places = [data.index(b"\r\n\r\n" + it) for it in (b"/0", b"/1", b"/2", b"/last")]
            assert places == sorted(places)
            assert server.seen == 1

    run(test)


def test_head_has_the_headers_and_no_body() -> None:
    async def test() -> None:
        async with serving(echo_of_length) as server:
            client = await server.client(b"HEAD / HTTP/1.1\r\nhost: here\r\n\r\n" + LAST)
            first, second = (await client.all()).split(b"\r\n\r\n", 1)
            assert b"content-length: 5" in first
            assert second.startswith(b"HTTP/1.1 200")

    def echo_of_length(exchange: Exchange) -> None:
        exchange.respond(200, [("content-length", b"5")])
        if exchange.method != "HEAD":
            exchange.answer.write(b"12345")
        exchange.answer.finish()

    run(test)


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_get_none_whatever_is_written(status: int) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(status, [("content-length", b"3")] if exchange.path_with_query == "/last" else [])
        exchange.answer.write(b"123")
        exchange.answer.finish()

    async def test() -> None:
        async with serving(handler) as server:
            data = await (await server.client(GET + LAST)).all()
            assert data.count(b"HTTP/1.1 %d" % status) == 2
            assert b"123" not in data
            assert b"transfer-encoding" not in data
            assert (b"content-length: 3" in data) == (status == 304)

    run(test)


def test_an_answer_that_takes_time_goes_in_chunks_and_may_have_trailers() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])
        exchange.answer.write(b"first")
        exchange.answer.flush()

        def rest() -> None:
            exchange.answer.write(b"second")
            exchange.answer.finish([("x-sum", b"11")])

        asyncio.get_running_loop().call_later(0.02, rest)

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(LAST)
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"transfer-encoding: chunked\r\n" in head
            assert await client.reader.readexactly(10) == b"5\r\nfirst\r\n"
            assert await client.all() == b"6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n"

    run(test)


def test_trailers_go_out_in_place_of_a_declared_length() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [("content-length", b"2")])
        exchange.answer.write(b"ab")
        exchange.answer.finish([("x-sum", b"2")])

    async def test() -> None:
        async with serving(handler) as server:
            found = await server.ask(LAST)
            assert "content-length" not in found.headers
            assert found.body == b"2\r\nab\r\n0\r\nx-sum: 2\r\n\r\n"

    run(test)


def test_a_head_that_is_flushed_goes_before_the_body_is_begun() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])
        exchange.answer.flush()

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(GET)
            assert await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), MOST_SECONDS)

    run(test)


def test_bodies_come_by_length_and_in_chunks_with_trailers() -> None:
    async def test() -> None:
        async with serving(echo) as server:
            assert (await server.ask(post(b"abc", b"connection: close"))).body == b"abc"
            found = await server.ask(
                CHUNKED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
                + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nconnection: x\r\n\r\n"
            )
            assert found.body == b"5\r\nabcde\r\n0\r\nx-sum: 5\r\n\r\n"

    run(test)


def test_a_body_in_small_pieces_over_many_reads_is_whole() -> None:
    body = bytes(range(256)) * 512

    async def test() -> None:
        async with serving(echo) as server:
            client = await server.client()
            data = post(body, b"connection: close")
            for at in range(0, len(data), 1000):
                client.send(data[at : at + 1000])
                await asyncio.sleep(0)
            assert Answer.parse(await client.all()).body == body

    run(test)


def test_a_large_body_is_read_in_any_steps() -> None:
    body = bytes(range(256)) * 1024

    async def test() -> None:
        taken: list[Exchange] = []
        async with serving(taken.append) as server:
            await server.client(post(body))
            await until(lambda: taken)
            found = bytearray()
            while (piece := taken[0].body.read(777)) is not None:
                assert len(piece) <= 777
                found += piece
                if not piece:
                    await asyncio.sleep(0)
            assert found == body

    run(test)


def test_http_1_0_ends_with_the_answer_unless_it_asks_otherwise() -> None:
    async def test() -> None:
        async with serving() as server:
            found = await server.ask(b"GET /old HTTP/1.0\r\n\r\n")
            assert (found.body, found.headers["connection"]) == (b"/old", "close")
            assert server.exchanges[0].authority is None
            client = await server.client(b"GET /kept HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            found = await client.answer()
            assert (found.body, found.headers["connection"]) == (b"/kept", "keep-alive")
            client.send(b"GET /end HTTP/1.0\r\n\r\n")
            assert Answer.parse(await client.all()).body == b"/end"

    run(test)


def test_a_stream_for_http_1_0_ends_with_the_connection() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])
        exchange.answer.write(b"one")
        exchange.answer.flush()
        asyncio.get_running_loop().call_later(0.01, exchange.answer.finish, [("x-lost", b"1")])

    async def test() -> None:
        async with serving(handler) as server:
            found = await server.ask(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            assert found.body == b"one"
            assert found.headers["connection"] == "close"

    run(test)


def test_100_continue_is_sent_when_the_body_is_first_wanted_and_once() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(
                b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
            )
            await until(lambda: taken)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.05)
            assert taken[0].body.read(10) == b""
            assert taken[0].body.readiness() is not None
            assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"ab")
            echo(taken[0])
            assert (await client.answer()).body == b"ab"
            client.send(LAST)
            await until(lambda: len(taken) == 2)
            hello(taken[1])
            assert Answer.parse(await client.all()).body == b"/last"

    run(test)


def test_who_expects_to_be_asked_and_is_not_has_to_ask_anew() -> None:
    async def test() -> None:
        async with serving() as server:
            data = await (
                await server.client(post(b"", b"expect: 100-continue").replace(b"length: 0", b"length: 2"))
            ).all()
            assert data.startswith(b"HTTP/1.1 200")
            assert b"100 Continue" not in data

    run(test)


def test_nobody_is_asked_what_came_after_the_last_answer() -> None:
    async def test() -> None:
        async with serving() as server:
            client = await server.client(
                b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\nab" + LAST
            )
            data = await client.all()
            assert data.count(b"200 OK") == 1
            assert len(server.exchanges) == 1

    run(test)


def test_100_continue_never_comes_inside_of_another_answer() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(
                post(b"ab") + b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
            )
            await until(lambda: taken)
            taken[0].respond(200, [])
            taken[0].answer.write(b"x")
            taken[0].answer.flush()
            await client.reader.readuntil(b"1\r\nx\r\n")
            assert taken[0].body.read(10) == b"ab"
            assert taken[0].body.read(10) is None
            taken[0].answer.finish()
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"
            await until(lambda: len(taken) == 2)
            assert taken[1].body.read(10) == b""
            assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"

    run(test)


def test_hints_go_before_the_answer_and_not_after_it() -> None:
    async def test() -> None:
        found: list[bool] = []

        def handler(exchange: Exchange) -> None:
            found.append(exchange.inform(103, [("link", b"</a>; rel=preload"), ("content-length", b"3")]))
            found.append(exchange.inform(101, []))
            hello(exchange)
            found.append(exchange.inform(103, []))

        async with serving(handler) as server:
            data = await (await server.client(LAST)).all()
            assert data.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
            assert found == [True, False, False]

    run(test)


def test_request_and_answer_are_streamed_at_the_same_time() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])

        def more() -> None:
            while piece := exchange.body.read(4096):
                exchange.answer.write(piece.upper())
                exchange.answer.flush()
            wait = exchange.body.readiness()
            if wait is not None:
                wait.arm(more)
            elif piece is None:
                exchange.answer.finish()
            else:
                more()

        more()

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(CHUNKED + b"2\r\nab\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readexactly(7) == b"2\r\nAB\r\n"
            client.send(b"3\r\ncde\r\n")
            assert await client.reader.readexactly(8) == b"3\r\nCDE\r\n"
            client.send(b"0\r\n\r\n")
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"
            client.send(LAST)
            await until(lambda: len(server.exchanges) == 2)

    run(test)


def test_a_guest_that_does_not_read_stops_the_sender_and_one_that_does_starts_it_again() -> None:
    size = 8 * 1024 * 1024
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(post(bytes(size), b"connection: close"))
            await until(lambda: taken)
            await asyncio.sleep(0.1)
            pending = client.writer.transport.get_write_buffer_size()
            assert pending > size // 4, "the client could send most of what nobody read"
            await asyncio.sleep(0.1)
            assert client.writer.transport.get_write_buffer_size() == pending
            assert taken[0].body.discard() < HIGH_BYTES + 64 * 1024
            taken[0].body.discard()
            whole: list[int] = []
            whole_body(taken[0], lambda data: whole.append(len(data)))
            await until(lambda: whole)
            assert client.writer.transport.get_write_buffer_size() == 0
            hello(taken[0])
            assert Answer.parse(await client.all()).status == 200

    run(test)


def test_a_client_that_reads_slowly_stops_the_guest_and_gets_every_byte() -> None:
    size = 4 * 1024 * 1024
    left = size

    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [("content-length", b"%d" % size)])
        more(exchange)

    def more(exchange: Exchange) -> None:
        nonlocal left
        while left and (room := min(exchange.answer.check_write(), left, 30_000)):
            exchange.answer.write(b"y" * room)
            left -= room
        if not left:
            exchange.answer.finish()
        else:
            wait = exchange.answer.readiness()
            assert wait is not None
            wait.arm(lambda: more(exchange))

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(b"", receive_bytes=16 * 1024)
            client.writer.transport.pause_reading()
            client.send(LAST)
            await until(lambda: left < size)
            await asyncio.sleep(0.2)
            stopped = left
            assert stopped > 0
            await asyncio.sleep(0.1)
            assert left == stopped
            client.writer.transport.resume_reading()
            found = Answer.parse(await client.all())
            assert left == 0
            assert found.body == b"y" * size

    run(test)


def test_what_is_written_before_the_head_is_known_is_kept_within_a_limit() -> None:
    def handler(exchange: Exchange) -> None:
        assert exchange.answer.check_write() == ROOM_BYTES
        exchange.answer.write(b"a" * 100)
        assert exchange.answer.check_write() == ROOM_BYTES - 100
        exchange.answer.write(b"b" * (ROOM_BYTES - 100))
        assert exchange.answer.check_write() == 0
        assert exchange.answer.readiness() is not None
        exchange.answer.finish()
        exchange.respond(201, [])

    async def test() -> None:
        async with serving(handler) as server:
            found = await server.ask(LAST)
            assert (found.status, len(found.body), found.headers["content-length"]) == (201, ROOM_BYTES, "65536")

    run(test)


@pytest.mark.parametrize(("body", "whole"), [(b"123", True), (b"12", False)])
def test_an_answer_shorter_than_it_said_is_broken_off(body: bytes, whole: bool) -> None:
    ends: list[bool] = []

    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [("content-length", b"3")])
        exchange.answer.write(body)
        exchange.answer.flush()
        asyncio.get_running_loop().call_later(0.02, lambda: ends.append(exchange.answer.finish()))

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(LAST)
            assert (await client.all()).endswith(b"\r\n\r\n" + body)
            assert ends == [whole]

    run(test)


def test_an_answer_longer_than_it_said_is_refused_to_the_guest() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [("content-length", b"3")])
        with pytest.raises(StreamFailed, match="more than the 3 bytes"):
            exchange.answer.write(b"1234")
        assert not exchange.answer.finish()
        with pytest.raises(StreamClosed):
            exchange.answer.check_write()

    async def test() -> None:
        async with serving(handler) as server:
            assert await (await server.client(LAST)).all() == b""

    run(test)


def test_several_lengths_that_differ_are_no_answer() -> None:
    def handler(exchange: Exchange) -> None:
        with pytest.raises(ValueError, match="2 content-lengths"):
            exchange.respond(200, [("content-length", b"3"), ("content-length", b"4")])
        exchange.respond(200, [("content-length", b"3"), ("content-length", b"3")])
        exchange.answer.write(b"123")
        exchange.answer.finish()

    async def test() -> None:
        async with serving(handler) as server:
            data = await (await server.client(LAST)).all()
            assert data.count(b"content-length") == 1

    run(test)


def test_words_take_the_place_of_what_has_not_gone_out() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [("x-of", b"the guest")])
        exchange.answer.write(b"half of it")
        exchange.plain(504, "too late", [("retry-after", b"1")])

    async def test() -> None:
        async with serving(handler) as server:
            found = await server.ask(LAST)
            assert (found.status, found.body, found.headers["retry-after"]) == (504, b"too late\n", "1")
            assert "x-of" not in found.headers

    run(test)


def test_an_answer_that_has_begun_is_broken_off_where_words_come_too_late() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])
        exchange.answer.write(b"half of it")
        exchange.answer.flush()
        asyncio.get_running_loop().call_later(0.05, exchange.plain, 504, "too late")

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(LAST)
            assert await client.reader.readuntil(b"half of it\r\n")
            assert await client.all() == b"", "neither the last chunk nor anything else"

    run(test)


def test_an_answer_that_ends_with_the_connection_is_broken_off_by_a_reset() -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [])
        exchange.answer.write(b"half of it")
        exchange.answer.flush()
        asyncio.get_running_loop().call_later(0.05, exchange.abort)

    async def test() -> None:
        async with serving(handler) as server:
            client = await server.client(b"GET / HTTP/1.0\r\n\r\n")
            assert await client.reader.readuntil(b"half of it")
            with pytest.raises(ConnectionResetError):
                await client.all()

    run(test)


def test_nothing_that_is_done_to_an_answer_that_was_given_reaches_the_next_one() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(GET + LAST)
            await until(lambda: taken)
            hello(taken[0])
            await until(lambda: len(taken) == 2)
            taken[0].abort()
            taken[0].plain(500, "never")
            taken[0].answer.finish()
            hello(taken[1])
            data = await client.all()
            assert data.count(b"200 OK") == 2
            assert data.endswith(b"/last")

    run(test)


@pytest.mark.parametrize("how", ["reset", "close", "half"])
def test_a_client_that_goes_while_the_guest_runs_is_noticed(how: str) -> None:
    taken: list[Exchange] = []
    gone: list[str] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(GET)
            await until(lambda: taken)
            taken[0].gone = lambda: gone.append("gone")
            taken[0].done = lambda: gone.append("done")
            if how == "reset":
                client.reset()
            elif how == "close":
                client.writer.close()
            else:
                client.writer.write_eof()
            await until(lambda: gone)
            assert gone == ["gone", "done"]
            with pytest.raises(StreamClosed):
                taken[0].answer.check_write()
            taken[0].plain(200, "to nobody")
            await server.no_connection()

    run(test)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_of_which_nothing_is_read_is_noticed_when_it_goes(how: str) -> None:
    taken: list[Exchange] = []
    gone: list[bool] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(post(bytes(180 * 1024)))
            await until(lambda: taken)
            await until(lambda: client.writer.transport.get_write_buffer_size() == 0)
            taken[0].gone = lambda: gone.append(True)
            await asyncio.sleep(0.05)
            if how == "reset":
                client.reset()
            else:
                client.writer.close()
            await until(lambda: gone, 2.0)

    run(test)


def test_a_body_that_ends_too_soon_fails_for_the_guest() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client = await server.client(post(b"abc").replace(b"length: 3", b"length: 5"))
            await until(lambda: taken)
            client.writer.close()
            await server.no_connection()
            assert taken[0].body.read(10) == b"abc"
            with pytest.raises(StreamFailed, match="client has gone"):
                taken[0].body.read(10)

    run(test)


def test_a_short_rest_of_a_request_is_read_and_the_connection_kept() -> None:
    async def test() -> None:
        async with serving() as server:
            client = await server.client(post(b"").replace(b"length: 0", b"length: 10"))
            assert (await client.answer()).body == b"/in"
            client.send(b"0123456789" + LAST)
            assert Answer.parse(await client.all()).body == b"/last"
            assert server.seen == 1

    run(test)


def test_closing_a_connection_gives_the_answers_that_are_owed() -> None:
    taken: list[Exchange] = []

    async def test() -> None:
        async with serving(taken.append) as server:
            client, idle = await server.client(GET + GET), await server.client()
            await until(lambda: len(server.connections) == 2 and taken)
            for connection in list(server.connections):
                connection.close()
            assert await idle.all() == b""
            hello(taken[0])
            await until(lambda: len(taken) == 2)
            hello(taken[1])
            data = await client.all()
            assert data.count(b"200 OK") == 2
            assert data.count(b"connection: close") == 1
            await server.no_connection()

    run(test)


def test_another_protocol_is_not_taken_up_and_the_request_answered() -> None:
    async def test() -> None:
        async with serving() as server:
            found = await server.ask(
                b"GET /h2 HTTP/1.1\r\nhost: here\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\n"
                b"http2-settings: AAMAAABkAAQAAP__\r\n\r\n"
            )
            assert (found.status, found.body, found.headers["connection"]) == (200, b"/h2", "close")

    run(test)

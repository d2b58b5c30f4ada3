"""wasi:http/types without a guest: its functions, called as the canonical ABI calls them, over real connections.

Covers what fields take and refuse, which resource may be asked what and how often, bodies and trailers both ways, and
what becomes of an answer that a guest drops half written.
"""

import asyncio
import time
from typing import Any

import pytest

from tests.unit.agent.http_harness import CHUNKED, GET, Answer, run, serving, until
from wasmpool_agent.http import Exchange
from wasmpool_agent.wasi.guest import Clocks
from wasmpool_agent.wasi.p2 import FUNCTIONS, Host
from wasmpool_agent.wasi.p2.http_types import Answering, incoming
from wasmpool_agent.wasi.p2.io import poll
from wasmpool_agent.wasmtime_async import HostTrap

OK = (True, None)
ERR = (False, None)
LAST = b"GET /a?b HTTP/1.1\r\nhost: here\r\nconnection: close\r\nx-a: 1\r\n\r\n"


class Output:
    """A standard stream that takes nothing."""

    def write(self, data: bytes) -> None:
        """See wasi.guest.Output."""


def host(http: object = None) -> Host:
    clocks = Clocks(time.time_ns, time.monotonic_ns, time.process_time_ns)
    return Host((), (), Output(), Output(), clocks, http=http)


class Guest:
    """Calls functions as a guest would. `the`: wasi:http/types."""

    def __init__(self, exchange: Exchange | None = None) -> None:
        self.host = host(Answering(exchange) if exchange is not None else None)
        if exchange is not None:
            self.request, self.outparam = incoming(exchange)

    def __call__(self, name: str, *values: object) -> Any:
        key = name if "#" in name else f"wasi:http/types#{name}"
        return FUNCTIONS[key](self.host, *values)

    def fields(self, *entries: tuple[str, bytes]) -> Any:
        good, fields = self("[static]fields.from-list", list(entries))
        assert good
        return fields

    def good(self, name: str, *values: object) -> Any:
        good, value = self(name, *values)
        assert good, value
        return value

    def respond(self, *entries: tuple[str, bytes], status: int = 200) -> Any:
        """Gives the body of a response that was set."""
        response = self("[constructor]outgoing-response", self.fields(*entries))
        assert self("[method]outgoing-response.set-status-code", response, status) == OK
        body = self.good("[method]outgoing-response.body", response)
        self("[static]response-outparam.set", self.outparam, (True, response))
        return body

    def write(self, body: Any, data: bytes) -> None:
        stream = self.good("[method]outgoing-body.write", body)
        assert self("wasi:io/streams#[method]output-stream.write", stream, data) == OK
        stream.close()


def asked(data: bytes = LAST) -> tuple[list[Guest], Any]:
    """Guests for what will come, and what serves them."""
    guests: list[Guest] = []
    return guests, serving(lambda exchange: guests.append(Guest(exchange)))


# ----------------------------------------------------------------------------------------------------------- fields
def test_fields_are_found_in_any_case_and_keep_their_order() -> None:
    guest = Guest()
    fields = guest.fields(("X-One", b"1"), ("y", b"2"), ("x-one", b"3"))
    assert guest("[method]fields.get", fields, "x-ONE") == [b"1", b"3"]
    assert guest("[method]fields.has", fields, "Y") is True
    assert guest("[method]fields.has", fields, "z") is False
    assert guest("[method]fields.append", fields, "Y", b"4") == OK
    assert guest("[method]fields.entries", fields) == [("x-one", b"1"), ("y", b"2"), ("x-one", b"3"), ("y", b"4")]
    assert guest("[method]fields.set", fields, "X-One", [b"5", b"6"]) == OK
    assert guest("[method]fields.get", fields, "x-one") == [b"5", b"6"]
    assert guest("[method]fields.delete", fields, "x-one") == OK
    assert guest("[method]fields.entries", fields) == [("y", b"2"), ("y", b"4")]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("", b"a", "invalid-syntax"),
        ("a b", b"a", "invalid-syntax"),
        ("a:b", b"a", "invalid-syntax"),
        ("a\r\nb", b"a", "invalid-syntax"),
        ("ä", b"a", "invalid-syntax"),
        ("a", b"b\r\nset-cookie: c", "invalid-syntax"),
        ("a", b"b\0", "invalid-syntax"),
        ("a", b"b\x7f", "invalid-syntax"),
        ("content-length", b"1, 1", "invalid-syntax"),
        ("content-length", b"+1", "invalid-syntax"),
        ("Connection", b"close", "forbidden"),
        ("keep-alive", b"1", "forbidden"),
        ("Transfer-Encoding", b"chunked", "forbidden"),
        ("upgrade", b"h2c", "forbidden"),
        ("Host", b"there", "forbidden"),
        ("proxy-authorization", b"a", "forbidden"),
        ("http2-settings", b"a", "forbidden"),
    ],
)
def test_fields_that_a_guest_may_not_set(name: str, value: bytes, problem: str) -> None:
    guest, refused = Guest(), (False, (problem, None))
    fields = guest("[constructor]fields")
    assert guest("[static]fields.from-list", [(name, value)]) == refused
    assert guest("[method]fields.append", fields, name, value) == refused
    assert guest("[method]fields.set", fields, name, [value]) == refused
    assert guest("[method]fields.entries", fields) == []


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"a\tb", b" a "])
def test_values_may_hold_what_http_lets_them(value: bytes) -> None:
    guest = Guest()
    assert guest("[method]fields.get", guest.fields(("x", value)), "x") == [value]


def test_fields_of_what_was_handed_over_can_be_cloned_and_not_changed() -> None:
    guest = Guest()
    fields = guest.fields(("a", b"1"))
    response = guest("[constructor]outgoing-response", fields)
    of_it = guest("[method]outgoing-response.headers", response)
    for each in (fields, of_it):
        for name, values in (("append", ("b", b"2")), ("set", ("a", [b"2"])), ("delete", ("a",))):
            assert guest(f"[method]fields.{name}", each, *values) == (False, ("immutable", None))
    clone = guest("[method]fields.clone", of_it)
    assert guest("[method]fields.append", clone, "b", b"2") == OK
    assert guest("[method]fields.entries", of_it) == [("a", b"1")]


def test_fields_have_a_size_and_beyond_it_the_guest_ends() -> None:
    guest = Guest()
    fields = guest("[constructor]fields")
    for _ in range(65):
        assert guest("[method]fields.append", fields, "x", b"y" * 2000) == OK
    with pytest.raises(HostTrap, match="131072 bytes"):
        guest("[method]fields.append", fields, "x", b"y" * 2000)
    for _ in range(100):  # what was taken out does not count
        assert guest("[method]fields.set", guest.fields(), "x", [b"y" * 100_000]) == OK


# --------------------------------------------------------------------------------------------------------- requests
def test_a_request_says_what_came_and_its_body_is_taken_once() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            get = {name: guest(f"[method]incoming-request.{name}", guest.request) for name in REQUEST}
            assert get == REQUEST
            headers = guest("[method]incoming-request.headers", guest.request)
            assert guest("[method]fields.entries", headers) == [("x-a", b"1")]
            assert guest("[method]fields.append", headers, "b", b"2") == (False, ("immutable", None))
            body = guest.good("[method]incoming-request.consume", guest.request)
            assert guest("[method]incoming-request.consume", guest.request) == ERR
            stream = guest.good("[method]incoming-body.stream", body)
            assert guest("[method]incoming-body.stream", body) == ERR
            assert guest("wasi:io/streams#[method]input-stream.read", stream, 10) == (False, ("closed", None))
            with pytest.raises(HostTrap, match="stream is there"):
                guest("[static]incoming-body.finish", body)
            stream.close()
            trailers = guest("[static]incoming-body.finish", body)
            assert guest("[method]future-trailers.get", trailers) == (True, (True, None))
            assert guest("[method]future-trailers.get", trailers) == ERR

    run(test)


REQUEST = {"method": ("get", None), "path-with-query": "/a?b", "scheme": ("HTTP", None), "authority": "here"}


def test_methods_beyond_those_of_the_interface_are_given_by_name() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            await it.client(b"PROPFIND / HTTP/1.1\r\nhost: here\r\n\r\n")
            await until(lambda: guests)
            assert guests[0]("[method]incoming-request.method", guests[0].request) == ("other", "PROPFIND")

    run(test)


def test_trailers_come_once_the_rest_of_the_body_has_passed() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(CHUNKED + b"3\r\nabc\r\n")
            await until(lambda: guests)
            guest = guests[0]
            body = guest.good("[method]incoming-request.consume", guest.request)
            trailers = guest("[static]incoming-body.finish", body)
            assert guest("[method]future-trailers.get", trailers) is None
            pollable = guest("[method]future-trailers.subscribe", trailers)
            woken: list[bool] = []
            pollable.readiness().arm(lambda: woken.append(True))
            client.send(b"8000\r\n" + bytes(0x8000) + b"\r\n0\r\nX-Sum: 3\r\n\r\n")
            await until(lambda: woken and pollable.readiness() is None)
            good, (well, fields) = guest("[method]future-trailers.get", trailers)
            assert (good, well) == (True, True)
            assert guest("[method]fields.entries", fields) == [("x-sum", b"3")]

    run(test)


def test_a_client_that_leaves_in_its_body_is_an_error_with_a_code() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(CHUNKED + b"3\r\nabc\r\n")
            await until(lambda: guests)
            guest = guests[0]
            body = guest.good("[method]incoming-request.consume", guest.request)
            stream = guest.good("[method]incoming-body.stream", body)
            client.reset()
            await it.no_connection()
            read = "wasi:io/streams#[method]input-stream.read"
            assert guest(read, stream, 10) == (True, b"abc")
            good, (case, error) = guest(read, stream, 10)
            assert (good, case) == (False, "last-operation-failed")
            assert guest("wasi:io/error#[method]error.to-debug-string", error) == "the client has gone"
            assert guest("http-error-code", error) == ("connection-terminated", None)
            stream.close()
            trailers = guest("[static]incoming-body.finish", body)
            assert guest("[method]future-trailers.get", trailers) == (True, (False, ("connection-terminated", None)))

    run(test)


@pytest.mark.parametrize("taken", [False, True])
def test_a_body_that_the_guest_drops_does_not_hold_the_connection(taken: bool) -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(CHUNKED + b"3\r\nabc\r\n")
            await until(lambda: guests)
            guest = guests[0]
            resource = guest.good("[method]incoming-request.consume", guest.request) if taken else guest.request
            guest("[static]outgoing-body.finish", guest.respond(), None)
            assert (await client.answer()).status == 200
            resource.close()
            client.send(b"10000\r\n" + bytes(0x10000) + b"\r\n0\r\n\r\n" + GET)
            await until(lambda: len(guests) == 2)
            assert it.seen == 1

    run(test)


def test_a_guest_may_go_on_reading_after_it_has_answered() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(CHUNKED)
            await until(lambda: guests)
            guest = guests[0]
            body = guest.good("[method]incoming-request.consume", guest.request)
            guest.request.close()
            stream = guest.good("[method]incoming-body.stream", body)
            guest("[static]outgoing-body.finish", guest.respond(), None)
            assert (await client.answer()).status == 200
            client.send(b"3\r\nabc\r\n0\r\n\r\n" + GET)
            await until(lambda: stream.readiness() is None)
            read = "wasi:io/streams#[method]input-stream.read"
            assert guest(read, stream, 10) == (True, b"abc")
            assert guest(read, stream, 10) == (False, ("closed", None))
            await until(lambda: len(guests) == 2)

    run(test)


# -------------------------------------------------------------------------------------------------------- responses
def test_statuses_are_those_of_final_answers() -> None:
    guest = Guest()
    response = guest("[constructor]outgoing-response", guest.fields())
    assert guest("[method]outgoing-response.status-code", response) == 200
    for status in (0, 100, 199, 600, 65535):
        assert guest("[method]outgoing-response.set-status-code", response, status) == ERR
    assert guest("[method]outgoing-response.set-status-code", response, 599) == OK
    assert guest("[method]outgoing-response.status-code", response) == 599


def test_an_answer_goes_out_with_status_headers_body_and_trailers() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            body = guest.respond(("x-b", b"2"), status=418)
            guest.write(body, b"abc")
            assert guest("[method]outgoing-body.write", body) == ERR
            assert guest("[static]outgoing-body.finish", body, guest.fields(("x-sum", b"3"))) == OK
            found = Answer.parse(await client.all())
            assert (found.status, found.headers["x-b"]) == (418, "2")
            assert found.body == b"3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n"

    run(test)


def test_a_body_is_taken_once_and_finished_without_its_stream() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            response = guest("[constructor]outgoing-response", guest.fields())
            body = guest.good("[method]outgoing-response.body", response)
            assert guest("[method]outgoing-response.body", response) == ERR
            stream = guest.good("[method]outgoing-body.write", body)
            with pytest.raises(HostTrap, match="stream is there"):
                guest("[static]outgoing-body.finish", body, None)
            stream.close()
            assert guest("[static]outgoing-body.finish", body, None) == OK

    run(test)


def test_a_response_without_a_body_is_empty() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            response = guests[0]("[constructor]outgoing-response", guests[0].fields())
            guests[0]("[static]response-outparam.set", guests[0].outparam, (True, response))
            found = Answer.parse(await client.all())
            assert (found.status, found.headers["content-length"], found.body) == (200, "0", b"")

    run(test)


def test_of_several_responses_the_one_that_is_set_is_the_answer() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            wrong = guest("[constructor]outgoing-response", guest.fields())
            of_wrong = guest.good("[method]outgoing-response.body", wrong)
            guest.write(of_wrong, b"never")
            of_wrong.close()
            body = guest.respond(status=201)
            guest.write(body, b"yes")
            assert guest("[static]outgoing-body.finish", body, None) == OK
            found = Answer.parse(await client.all())
            assert (found.status, found.body) == (201, b"yes")

    run(test)


@pytest.mark.parametrize(("data", "size"), [(b"ab", 2), (b"abcd", 4)])
def test_a_body_that_is_not_as_long_as_declared_says_so_to_guest_and_client(data: bytes, size: int) -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            body = guest.respond(("content-length", b"3"))
            stream = guest.good("[method]outgoing-body.write", body)
            wrote = guest("wasi:io/streams#[method]output-stream.write", stream, data)
            assert wrote[0] == (size <= 3)
            stream.close()
            found = guest("[static]outgoing-body.finish", body, None)
            assert found == (False, ("HTTP-response-body-size", size))
            assert await client.all() == b""

    run(test)


@pytest.mark.parametrize("first", ["set", "drop"])
def test_a_body_that_is_dropped_half_written_breaks_the_answer_off(first: str) -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            response = guest("[constructor]outgoing-response", guest.fields())
            body = guest.good("[method]outgoing-response.body", response)
            guest.write(body, b"half")
            if first == "set":
                guest("[static]response-outparam.set", guest.outparam, (True, response))
                await client.reader.readuntil(b"4\r\nhalf\r\n")
                body.close()
            else:
                body.close()
                guest("[static]response-outparam.set", guest.outparam, (True, response))
            assert await client.all() == b""

    run(test)


def test_a_guest_that_says_it_failed_is_answered_for_with_500() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guests[0]("[static]response-outparam.set", guests[0].outparam, (False, ("internal-error", "my secret")))
            found = Answer.parse(await client.all())
            assert found.status == 500
            assert b"secret" not in found.body

    run(test)


def test_lengths_that_contradict_each_other_are_answered_for_with_500() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guests[0].respond(("content-length", b"3"), ("content-length", b"4"))
            assert Answer.parse(await client.all()).status == 500

    run(test)


def test_hints_go_out_before_the_response() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(LAST)
            await until(lambda: guests)
            guest = guests[0]
            send = "[method]response-outparam.send-informational"
            assert guest(send, guest.outparam, 103, guest.fields(("link", b"</a>"))) == OK
            good, (case, why) = guest(send, guest.outparam, 101, guest.fields())
            assert (good, case) == (False, "internal-error")
            assert "101" in why
            guest("[static]outgoing-body.finish", guest.respond(), None)
            assert (await client.all()).startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")

    run(test)


def test_a_guest_waits_for_room_and_goes_on_when_there_is_some() -> None:
    async def test() -> None:
        guests, server = asked()
        async with server as it:
            client = await it.client(b"", receive_bytes=8192)
            client.writer.transport.pause_reading()
            client.send(LAST)
            await until(lambda: guests)
            guest = guests[0]
            stream = guest.good("[method]outgoing-body.write", guest.respond())
            check = "wasi:io/streams#[method]output-stream.check-write"
            while room := guest.good(check, stream):
                assert guest("wasi:io/streams#[method]output-stream.write", stream, bytes(room)) == OK
                await asyncio.sleep(0)
            later = poll(guest.host, [stream])
            woken: list[bool] = []
            later.wait.arm(lambda: woken.append(True))  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
            assert not woken
            client.writer.transport.resume_reading()
            await until(lambda: woken)
            assert guest.good(check, stream) > 0

    run(test)

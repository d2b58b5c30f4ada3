"""Answers HTTP/1.1 on sockets that somebody else has accepted: parsed by llhttp, written by asyncio's transports.

    limits       what a client may send, and how long it may take
    head         the head of a request, checked
    exchange     one request and its answer
    body         the two streams of an exchange, with back-pressure both ways
    deadline     timeouts that hardly ever come
    connection   one client: requests in order, kept alive between them
    network      where guests' own requests may go, and how many at a time
    sending      one of those: its body as it is written, its response as it comes

`loop.connect_accepted_socket(lambda: Connection(site, loop), client)` serves a client. `Site.handle` is called with
each exchange as soon as its head has come and its turn has, and gives an answer, at once or later:

    exchange.respond(status, headers)       the head; then, or before it,
    exchange.answer.write / .finish         the body, an output stream, and trailers
    exchange.plain(status, text, headers)   all of it, in words; replaces what has not gone out yet
    exchange.inform(status, headers)        103 and such, before the answer
    exchange.abort()                        the connection ends, and the client sees that the answer is not whole

`exchange.body` is an input stream; whoever does not want the rest of it says so by `exchange.body.abandon()`.
`exchange.gone` is called once if the client leaves before its answer is whole, `exchange.done` once it is whole or
never will be. `Connection.close` answers what has come, and ends the connection.
"""

from wasmpool_agent.http.connection import Connection, Site
from wasmpool_agent.http.exchange import Exchange
from wasmpool_agent.http.limits import Limits

__all__ = ["Connection", "Exchange", "Limits", "Site"]

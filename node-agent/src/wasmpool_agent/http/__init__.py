"""Answers HTTP/1.1 on sockets that somebody else has accepted: parsed by llhttp, written by asyncio's transports.

    limits       what a client may send, and how long it may take
    exchange     one request and its answer
    body         the two streams of an exchange, with back-pressure both ways
    connection   one client: requests in order, kept alive between them

Whoever answers implements `Site.handle`, which is called with each exchange as soon as its head has come, and gives:
`exchange.respond`, then `exchange.answer.write` and `exchange.answer.finish`; or `exchange.plain`; or `exchange.abort`.
"""

from wasmpool_agent.http.connection import Connection, Site
from wasmpool_agent.http.exchange import Exchange
from wasmpool_agent.http.limits import Limits

__all__ = ["Connection", "Exchange", "Limits", "Site"]

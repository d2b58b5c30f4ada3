"""wasi:sockets: there is no network but by wasi:http. Whatever needs one is told `access-denied`."""

from typing import Final

from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import err, function
from wasmpool_agent.wasi.p2.streams import IoError


class Network:
    """The resource of that name; it leads nowhere."""


@function("wasi:sockets/instance-network#instance-network")
def instance_network(_: Host) -> Network:
    return Network()


@function("wasi:sockets/network#network-error-code")
def network_error_code(_: Host, __: IoError) -> str | None:
    return None  # whatever failed, it was not the network


def _denied(_: Host, *_arguments: object) -> tuple[bool, object]:
    return err("access-denied")


# What makes a socket, and what looks for a name: without them no other function can be called.
_FIRST: Final = (
    "tcp-create-socket#create-tcp-socket",
    "udp-create-socket#create-udp-socket",
    "ip-name-lookup#resolve-addresses",
)
for _name in _FIRST:
    function(f"wasi:sockets/{_name}")(_denied)

_REST: Final = {
    "ip-name-lookup": (
        "[method]resolve-address-stream.resolve-next-address",
        "[method]resolve-address-stream.subscribe",
    ),
    "tcp": tuple(
        f"[method]tcp-socket.{name}"
        for name in [
            "start-bind",
            "finish-bind",
            "start-connect",
            "finish-connect",
            "start-listen",
            "finish-listen",
            "accept",
            "local-address",
            "remote-address",
            "is-listening",
            "address-family",
            "set-listen-backlog-size",
            "keep-alive-enabled",
            "set-keep-alive-enabled",
            "keep-alive-idle-time",
            "set-keep-alive-idle-time",
            "keep-alive-interval",
            "set-keep-alive-interval",
            "keep-alive-count",
            "set-keep-alive-count",
            "hop-limit",
            "set-hop-limit",
            "receive-buffer-size",
            "set-receive-buffer-size",
            "send-buffer-size",
            "set-send-buffer-size",
            "subscribe",
            "shutdown",
        ]
    ),
    "udp": (
        *(
            f"[method]udp-socket.{name}"
            for name in [
                "start-bind",
                "finish-bind",
                "stream",
                "local-address",
                "remote-address",
                "address-family",
                "unicast-hop-limit",
                "set-unicast-hop-limit",
                "receive-buffer-size",
                "set-receive-buffer-size",
                "send-buffer-size",
                "set-send-buffer-size",
                "subscribe",
            ]
        ),
        "[method]incoming-datagram-stream.receive",
        "[method]incoming-datagram-stream.subscribe",
        "[method]outgoing-datagram-stream.check-send",
        "[method]outgoing-datagram-stream.send",
        "[method]outgoing-datagram-stream.subscribe",
    ),
}


def _never(_: Host, *_arguments: object) -> object:
    raise AssertionError("there is no socket to call this with")


for _interface, _names in _REST.items():
    for _name in _names:
        function(f"wasi:sockets/{_interface}#{_name}")(_never)

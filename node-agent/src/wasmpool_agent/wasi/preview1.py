"""The functions of preview 1, by name: `FUNCTIONS[name](guest, *parameters)`.

Each returns an errno, or something to wait for, or raises WasiError. There are no sockets, and no directories but those
that are preopened: what needs one says EBADF for a descriptor that there is not, and else that it is of another kind.
"""

import os
from typing import Final

from wasmpool_agent.wasi import preview1_files, preview1_paths
from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.functions import FUNCTIONS, Function, function, refuse
from wasmpool_agent.wasi.guest import FdFlags, Guest, OutputStream, Rights
from wasmpool_agent.wasi.poll import clock_ns, poll_oneoff
from wasmpool_agent.wasmtime_async import HostTrap, Wait

__all__ = ["FUNCTIONS", "PARTS", "Function"]

PARTS: Final = (preview1_files, preview1_paths)
"""Whose functions are registered when they are imported."""
WRITE_MAX_BYTES: Final = 64 * 1024
"""Of one fd_write; the guest sees a short write, as from a pipe."""
WRITE_MAX_LINES: Final = 64
RANDOM_MAX_BYTES: Final = 16 * 1024**2
"""Of one random_get: it holds up the other guests while it runs (about 40 ms for so much)."""
_CLOCK_RESOLUTION_NS: Final = 1


function(poll_oneoff)


@function
def args_sizes_get(guest: Guest, count_out: int, bytes_out: int) -> Errno:
    return _sizes(guest, guest.args, count_out, bytes_out)


@function
def args_get(guest: Guest, pointers: int, buffer: int) -> Errno:
    return _strings(guest, guest.args, pointers, buffer)


@function
def environ_sizes_get(guest: Guest, count_out: int, bytes_out: int) -> Errno:
    return _sizes(guest, guest.env, count_out, bytes_out)


@function
def environ_get(guest: Guest, pointers: int, buffer: int) -> Errno:
    return _strings(guest, guest.env, pointers, buffer)


@function
def clock_res_get(guest: Guest, clock: int, resolution_out: int) -> Errno:
    clock_ns(guest, clock)
    guest.memory.write_u64(resolution_out, _CLOCK_RESOLUTION_NS)
    return Errno.SUCCESS


@function
def clock_time_get(guest: Guest, clock: int, _precision: int, time_out: int) -> Errno:
    guest.memory.write_u64(time_out, clock_ns(guest, clock))
    return Errno.SUCCESS


@function
def fd_write(guest: Guest, fd: int, iovecs: int, count: int, written_out: int) -> Errno | Wait:
    descriptor = guest.descriptor(fd)
    if not isinstance(descriptor, OutputStream) or not descriptor.rights & Rights.FD_WRITE:
        raise WasiError(Errno.NOT_CAPABLE)
    vectors = guest.memory.iovecs(iovecs, count)
    data = _first_lines(guest.memory.gather(vectors, WRITE_MAX_BYTES))
    guest.memory.write_u32(written_out, len(data))
    return descriptor.output.write(data) or Errno.SUCCESS


def _first_lines(data: bytes) -> bytes:
    # NB: each line becomes a record, on the thread of all guests: 64 KiB of newlines would hold them up for long.
    end = -1
    for _ in range(WRITE_MAX_LINES):
        end = data.find(b"\n", end + 1)
        if end < 0:
            return data
    return data[: end + 1]


@function
def fd_close(guest: Guest, fd: int) -> Errno:
    guest.descriptor(fd)
    del guest.descriptors[fd]
    return Errno.SUCCESS


@function
def fd_renumber(guest: Guest, source: int, target: int) -> Errno:
    guest.descriptor(target)
    guest.descriptors[target] = guest.descriptor(source)
    if source != target:
        del guest.descriptors[source]
    return Errno.SUCCESS


@function
def fd_fdstat_get(guest: Guest, fd: int, stat_out: int) -> Errno:
    guest.memory.write(stat_out, guest.fdstat(fd))
    return Errno.SUCCESS


@function
def fd_fdstat_set_flags(guest: Guest, fd: int, flags: int) -> Errno:
    descriptor = guest.descriptor(fd)
    if flags & ~int(FdFlags.APPEND | FdFlags.NONBLOCK):
        raise WasiError(Errno.INVALID)
    descriptor.flags = flags
    return Errno.SUCCESS


@function
def fd_fdstat_set_rights(guest: Guest, fd: int, base: int, inheriting: int) -> Errno:
    descriptor = guest.descriptor(fd)
    if base & ~descriptor.rights or inheriting & ~descriptor.inheriting:
        raise WasiError(Errno.NOT_CAPABLE)
    descriptor.rights, descriptor.inheriting = base, inheriting
    return Errno.SUCCESS


@function
def proc_exit(guest: Guest, code: int) -> Errno:
    guest.exit_code = code
    raise HostTrap(f"exit with code {code}")


@function
def random_get(guest: Guest, buffer: int, length: int) -> Errno:
    guest.memory.check(buffer, length)
    if length > RANDOM_MAX_BYTES:
        raise WasiError(Errno.INVALID)
    guest.memory.write(buffer, os.urandom(length))
    return Errno.SUCCESS


@function
def sched_yield(_guest: Guest) -> Errno:
    return Errno.SUCCESS


def _sizes(guest: Guest, strings: tuple[bytes, ...], count_out: int, bytes_out: int) -> Errno:
    guest.memory.write_u32(count_out, len(strings))
    guest.memory.write_u32(bytes_out, sum(map(len, strings)))
    return Errno.SUCCESS


def _strings(guest: Guest, strings: tuple[bytes, ...], pointers: int, buffer: int) -> Errno:
    guest.memory.check(pointers, 4 * len(strings))
    guest.memory.write(buffer, b"".join(strings))
    for text in strings:
        guest.memory.write_u32(pointers, buffer)
        pointers += 4
        buffer += len(text)
    return Errno.SUCCESS


@function
def proc_raise(_guest: Guest, _signal: int) -> Errno:
    return Errno.NO_SYSTEM_CALL


refuse("sock_accept sock_recv sock_send sock_shutdown", Errno.NOT_SOCKET)

"""The functions of preview 1, by name: `FUNCTIONS[name](guest, *parameters)`.

Each returns an errno, or something to wait for, or raises WasiError. There are no preopened directories and no
sockets: what needs one says EBADF for a descriptor that there is not, and else that this one is of another kind.
"""

import os
from collections.abc import Callable
from struct import Struct
from typing import Final

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.guest import EmptyInput, FdFlags, FileType, Guest, OutputStream, Rights
from wasmpool_agent.wasi.poll import clock_ns, poll_oneoff
from wasmpool_agent.wasmtime_async import HostTrap, Wait

Function = Callable[..., "Errno | Wait"]
FUNCTIONS: Final[dict[str, Function]] = {}
WRITE_MAX_BYTES: Final = 64 * 1024
"""Of one fd_write; the guest sees a short write, as from a pipe."""
WRITE_MAX_LINES: Final = 64
RANDOM_MAX_BYTES: Final = 16 * 1024**2
"""Of one random_get: it holds up the other guests while it runs (about 40 ms for so much)."""
_FILESTAT: Final = Struct("<QQB7xQQQQQ")
_CLOCK_RESOLUTION_NS: Final = 1


def _function(function: Function) -> Function:
    FUNCTIONS[function.__name__] = function
    return function


_function(poll_oneoff)


@_function
def args_sizes_get(guest: Guest, count_out: int, bytes_out: int) -> Errno:
    return _sizes(guest, guest.args, count_out, bytes_out)


@_function
def args_get(guest: Guest, pointers: int, buffer: int) -> Errno:
    return _strings(guest, guest.args, pointers, buffer)


@_function
def environ_sizes_get(guest: Guest, count_out: int, bytes_out: int) -> Errno:
    return _sizes(guest, guest.env, count_out, bytes_out)


@_function
def environ_get(guest: Guest, pointers: int, buffer: int) -> Errno:
    return _strings(guest, guest.env, pointers, buffer)


@_function
def clock_res_get(guest: Guest, clock: int, resolution_out: int) -> Errno:
    clock_ns(guest, clock)
    guest.memory.write_u64(resolution_out, _CLOCK_RESOLUTION_NS)
    return Errno.SUCCESS


@_function
def clock_time_get(guest: Guest, clock: int, _precision: int, time_out: int) -> Errno:
    guest.memory.write_u64(time_out, clock_ns(guest, clock))
    return Errno.SUCCESS


@_function
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


@_function
def fd_read(guest: Guest, fd: int, iovecs: int, count: int, read_out: int) -> Errno:
    descriptor = guest.descriptor(fd)
    if not isinstance(descriptor, EmptyInput) or not descriptor.rights & Rights.FD_READ:
        raise WasiError(Errno.NOT_CAPABLE)
    guest.memory.iovecs(iovecs, count)
    guest.memory.write_u32(read_out, 0)
    return Errno.SUCCESS


@_function
def fd_close(guest: Guest, fd: int) -> Errno:
    guest.descriptor(fd)
    del guest.descriptors[fd]
    return Errno.SUCCESS


@_function
def fd_renumber(guest: Guest, source: int, target: int) -> Errno:
    guest.descriptor(target)
    guest.descriptors[target] = guest.descriptor(source)
    if source != target:
        del guest.descriptors[source]
    return Errno.SUCCESS


@_function
def fd_fdstat_get(guest: Guest, fd: int, stat_out: int) -> Errno:
    guest.memory.write(stat_out, guest.fdstat(fd))
    return Errno.SUCCESS


@_function
def fd_fdstat_set_flags(guest: Guest, fd: int, flags: int) -> Errno:
    descriptor = guest.descriptor(fd)
    if flags & ~int(FdFlags.APPEND | FdFlags.NONBLOCK):
        raise WasiError(Errno.INVALID)
    descriptor.flags = flags
    return Errno.SUCCESS


@_function
def fd_fdstat_set_rights(guest: Guest, fd: int, base: int, inheriting: int) -> Errno:
    descriptor = guest.descriptor(fd)
    if base & ~int(descriptor.rights) or inheriting:  # NB: of a flag, ~ gives known flags only
        raise WasiError(Errno.NOT_CAPABLE)
    descriptor.rights = Rights(base)
    return Errno.SUCCESS


@_function
def fd_filestat_get(guest: Guest, fd: int, stat_out: int) -> Errno:
    guest.descriptor(fd)
    guest.memory.write(stat_out, _FILESTAT.pack(0, 0, FileType.UNKNOWN, 0, 0, 0, 0, 0))
    return Errno.SUCCESS


@_function
def proc_exit(guest: Guest, code: int) -> Errno:
    guest.exit_code = code
    raise HostTrap(f"exit with code {code}")


@_function
def random_get(guest: Guest, buffer: int, length: int) -> Errno:
    guest.memory.check(buffer, length)
    if length > RANDOM_MAX_BYTES:
        raise WasiError(Errno.INVALID)
    guest.memory.write(buffer, os.urandom(length))
    return Errno.SUCCESS


@_function
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


def _refusal(errno: Errno) -> Function:
    """A function of a descriptor that answers with `errno` for any that there is."""

    def refuse(guest: Guest, fd: int, *_rest: int) -> Errno:
        guest.descriptor(fd)
        return errno

    return refuse


# Pipes can't be sought, standard streams are neither directories nor sockets, and no descriptor is preopened.
for _names, _errno in (
    ("fd_seek fd_tell fd_advise fd_pread fd_pwrite", Errno.ILLEGAL_SEEK),
    ("fd_allocate fd_datasync fd_sync fd_filestat_set_size fd_filestat_set_times", Errno.INVALID),
    ("fd_prestat_get fd_prestat_dir_name", Errno.BAD_DESCRIPTOR),
    (
        "fd_readdir path_create_directory path_filestat_get path_filestat_set_times path_link path_open",
        Errno.NOT_DIRECTORY,
    ),
    ("path_readlink path_remove_directory path_rename path_unlink_file", Errno.NOT_DIRECTORY),
    ("sock_accept sock_recv sock_send sock_shutdown", Errno.NOT_SOCKET),
):
    FUNCTIONS.update(dict.fromkeys(_names.split(), _refusal(_errno)))


@_function
def path_symlink(guest: Guest, _target: int, _target_length: int, fd: int, _link: int, _link_length: int) -> Errno:
    guest.descriptor(fd)
    return Errno.NOT_DIRECTORY


@_function
def proc_raise(_guest: Guest, _signal: int) -> Errno:
    return Errno.NO_SYSTEM_CALL

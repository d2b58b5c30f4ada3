"""preview 1's functions of open files, which can be read only: what would write says NOT_CAPABLE."""

from struct import Struct
from typing import Final

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.files import File, Tree
from wasmpool_agent.wasi.functions import function
from wasmpool_agent.wasi.guest import EmptyInput, FileType, Guest, OpenDirectory, OpenFile, OutputStream, Rights

READ_MAX_BYTES: Final = 1024**2
"""Of one call. As much as a ConfigMap holds: programs that don't expect short reads of files get theirs whole."""
_FILESTAT: Final = Struct("<QQB7xQQQQQ")
_ADVICE_MOST: Final = 5
_DEVICE: Final = 1
_OFFSET_MOST: Final = 2**63 - 1


@function
def fd_read(guest: Guest, fd: int, iovecs: int, count: int, read_out: int) -> Errno:
    descriptor = guest.descriptor(fd)
    if isinstance(descriptor, OpenDirectory):
        raise WasiError(Errno.IS_DIRECTORY)
    if isinstance(descriptor, OutputStream) or not descriptor.rights & Rights.FD_READ:
        raise WasiError(Errno.NOT_CAPABLE)
    if isinstance(descriptor, EmptyInput):
        guest.memory.iovecs(iovecs, count)
        guest.memory.write_u32(read_out, 0)
        return Errno.SUCCESS
    descriptor.position += _read(guest, descriptor.file, descriptor.position, (iovecs, count), read_out)
    return Errno.SUCCESS


@function
def fd_pread(guest: Guest, fd: int, iovecs: int, count: int, offset: int, read_out: int) -> Errno:
    file = _file(guest, fd, Rights.FD_READ).file
    _read(guest, file, offset, (iovecs, count), read_out)
    return Errno.SUCCESS


def _read(guest: Guest, file: File, offset: int, buffers: tuple[int, int], read_out: int) -> int:
    vectors = guest.memory.iovecs(*buffers)
    guest.memory.check(read_out, 4)
    at, end = offset, min(len(file.content), offset + READ_MAX_BYTES)
    for address, length in vectors:
        if at >= end:
            break
        piece = file.content[at : min(end, at + length)]
        guest.memory.write(address, piece)
        at += len(piece)
    guest.memory.write_u32(read_out, at - offset)
    return at - offset


@function
def fd_seek(guest: Guest, fd: int, offset: int, whence: int, position_out: int) -> Errno:
    descriptor = _file(guest, fd, 0)
    delta = offset - 2**64 if offset > _OFFSET_MOST else offset
    asks_only = whence == 1 and not delta
    if not descriptor.rights & (Rights.FD_SEEK | (Rights.FD_TELL if asks_only else 0)):
        raise WasiError(Errno.NOT_CAPABLE)
    match whence:
        case 0:
            position = delta
        case 1:
            position = descriptor.position + delta
        case 2:
            position = len(descriptor.file.content) + delta
        case _:
            raise WasiError(Errno.INVALID)
    if not 0 <= position <= _OFFSET_MOST:
        raise WasiError(Errno.INVALID)
    guest.memory.write_u64(position_out, position)
    descriptor.position = position
    return Errno.SUCCESS


@function
def fd_tell(guest: Guest, fd: int, position_out: int) -> Errno:
    descriptor = _file(guest, fd, Rights.FD_TELL | Rights.FD_SEEK)
    guest.memory.write_u64(position_out, descriptor.position)
    return Errno.SUCCESS


@function
def fd_advise(guest: Guest, fd: int, _offset: int, _length: int, advice: int) -> Errno:
    _file(guest, fd, Rights.FD_ADVISE)
    if advice > _ADVICE_MOST:
        raise WasiError(Errno.INVALID)
    return Errno.SUCCESS


@function
def fd_filestat_get(guest: Guest, fd: int, stat_out: int) -> Errno:
    match guest.descriptor(fd):
        case OpenFile(rights=rights) | OpenDirectory(rights=rights) if not rights & Rights.FD_FILESTAT_GET:
            raise WasiError(Errno.NOT_CAPABLE)
        case OpenFile(file=found) | OpenDirectory(tree=found):
            guest.memory.write(stat_out, stat_of(found))
        case _:
            guest.memory.write(stat_out, _FILESTAT.pack(0, 0, FileType.UNKNOWN, 0, 0, 0, 0, 0))
    return Errno.SUCCESS


def _synchronize(guest: Guest, fd: int) -> Errno:
    return Errno.SUCCESS if isinstance(guest.descriptor(fd), OpenFile | OpenDirectory) else Errno.INVALID


@function
def fd_sync(guest: Guest, fd: int) -> Errno:
    return _synchronize(guest, fd)


@function
def fd_datasync(guest: Guest, fd: int) -> Errno:
    return _synchronize(guest, fd)


def _not_written(guest: Guest, fd: int, of_a_stream: Errno) -> Errno:
    return Errno.NOT_CAPABLE if isinstance(guest.descriptor(fd), OpenFile | OpenDirectory) else of_a_stream


@function
def fd_pwrite(guest: Guest, fd: int, _iovecs: int, _count: int, _offset: int, _written_out: int) -> Errno:
    return _not_written(guest, fd, Errno.ILLEGAL_SEEK)


@function
def fd_allocate(guest: Guest, fd: int, _offset: int, _length: int) -> Errno:
    return _not_written(guest, fd, Errno.INVALID)


@function
def fd_filestat_set_size(guest: Guest, fd: int, _size: int) -> Errno:
    return _not_written(guest, fd, Errno.INVALID)


@function
def fd_filestat_set_times(guest: Guest, fd: int, _accessed: int, _modified: int, _flags: int) -> Errno:
    return _not_written(guest, fd, Errno.INVALID)


def _file(guest: Guest, fd: int, one_of: int) -> OpenFile:
    """With one of these rights, or with any where there are none."""
    descriptor = guest.descriptor(fd)
    if isinstance(descriptor, OpenDirectory):
        raise WasiError(Errno.IS_DIRECTORY)
    if not isinstance(descriptor, OpenFile):
        raise WasiError(Errno.ILLEGAL_SEEK)
    if one_of and not descriptor.rights & one_of:
        raise WasiError(Errno.NOT_CAPABLE)
    return descriptor


def type_of(found: File | Tree) -> FileType:
    """Of what is there."""
    return FileType.REGULAR_FILE if isinstance(found, File) else FileType.DIRECTORY


def stat_of(found: File | Tree) -> bytes:
    """The 64 bytes of `filestat`."""
    size = len(found.content) if isinstance(found, File) else 0
    return _FILESTAT.pack(_DEVICE, found.number, type_of(found), 1, size, 0, 0, 0)

"""preview 1's functions of directories and paths, in trees that can be read only and have no links.

What would write says READ_ONLY, as on a file system that is mounted so.
"""

from struct import Struct
from typing import Final

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.files import (
    PATH_MOST_CHARS,
    File,
    PathError,
    PathEscapesError,
    PathNotDirectoryError,
    PathTooLongError,
    Tree,
)
from wasmpool_agent.wasi.functions import function
from wasmpool_agent.wasi.guest import (
    DIRECTORY_RIGHTS,
    FILE_RIGHTS,
    Entry,
    FileType,
    Guest,
    OpenDirectory,
    OpenFile,
    Rights,
)
from wasmpool_agent.wasi.preview1_files import stat_of, type_of

_DIRENT: Final = Struct("<QQIB3x")
_PRESTAT: Final = Struct("<B3xI")
_PRESTAT_DIRECTORY: Final = 0
_FOLLOW: Final = 1
_CREATE, _DIRECTORY, _EXCLUSIVE, _TRUNCATE = 1, 2, 4, 8
_OPEN_FLAGS: Final = _CREATE | _DIRECTORY | _EXCLUSIVE | _TRUNCATE
_FD_FLAGS: Final = 0b11111
_BY_PATH: Final = {
    PathError: Errno.NO_ENTRY,
    PathEscapesError: Errno.NOT_PERMITTED,
    PathNotDirectoryError: Errno.NOT_DIRECTORY,
    PathTooLongError: Errno.NAME_TOO_LONG,
}


@function
def fd_prestat_get(guest: Guest, fd: int, prestat_out: int) -> Errno:
    guest.memory.write(prestat_out, _PRESTAT.pack(_PRESTAT_DIRECTORY, len(_mount(guest, fd))))
    return Errno.SUCCESS


@function
def fd_prestat_dir_name(guest: Guest, fd: int, name_out: int, length: int) -> Errno:
    mount = _mount(guest, fd)
    if length < len(mount):
        raise WasiError(Errno.NAME_TOO_LONG)
    guest.memory.write(name_out, mount)
    return Errno.SUCCESS


@function
def fd_readdir(guest: Guest, fd: int, buffer: int, length: int, cookie: int, used_out: int) -> Errno:
    directory = _directory(guest, fd, Rights.FD_READDIR)
    guest.memory.check(buffer, length)
    guest.memory.check(used_out, 4)
    if directory.listing is None:
        directory.listing = _listing(directory.tree)
    parts: list[bytes] = []
    left = length
    for at in range(cookie, len(directory.listing)):
        name, kind, number = directory.listing[at]
        # The last one is cut off where the buffer ends: that is how a guest knows that there are more.
        part = (_DIRENT.pack(at + 1, number, len(name), kind) + name)[:left]
        parts.append(part)
        left -= len(part)
        if not left:
            break
    guest.memory.write(buffer, b"".join(parts))
    guest.memory.write_u32(used_out, length - left)
    return Errno.SUCCESS


def _listing(tree: Tree) -> list[Entry]:
    # Nothing knows its parent: libc takes 0 for "ask, if you want to know".
    dots: list[Entry] = [(b".", FileType.DIRECTORY, tree.number), (b"..", FileType.DIRECTORY, 0)]
    return dots + [(name.encode(), type_of(found), found.number) for name, found in tree.entries.items()]


@function
def path_open(
    guest: Guest,
    fd: int,
    lookup: int,
    path: int,
    path_length: int,
    how: int,
    base: int,
    inheriting: int,
    flags: int,
    fd_out: int,
) -> Errno:
    directory = _directory(guest, fd, Rights.PATH_OPEN)
    if lookup & ~_FOLLOW or how & ~_OPEN_FLAGS or flags & ~_FD_FLAGS or how & (both := _CREATE | _DIRECTORY) == both:
        raise WasiError(Errno.INVALID)
    guest.memory.check(fd_out, 4)
    try:
        found = _find(guest, directory, path, path_length)
    except WasiError as error:
        if error.errno is Errno.NO_ENTRY and how & _CREATE:
            raise WasiError(Errno.READ_ONLY) from None
        raise
    if how & _CREATE and how & _EXCLUSIVE:
        raise WasiError(Errno.EXISTS)
    rights = base & directory.inheriting
    opened: OpenDirectory | OpenFile
    if isinstance(found, Tree):
        if base & Rights.FD_WRITE or how & (_CREATE | _TRUNCATE):
            raise WasiError(Errno.IS_DIRECTORY)
        opened = OpenDirectory(found, rights & DIRECTORY_RIGHTS, inheriting & directory.inheriting, flags)
    else:
        if how & _DIRECTORY:
            raise WasiError(Errno.NOT_DIRECTORY)
        if rights & Rights.FD_WRITE or how & _TRUNCATE:
            raise WasiError(Errno.READ_ONLY)
        opened = OpenFile(found, rights & FILE_RIGHTS, flags=flags)
    guest.memory.write_u32(fd_out, guest.open(opened))
    return Errno.SUCCESS


@function
def path_filestat_get(guest: Guest, fd: int, lookup: int, path: int, path_length: int, stat_out: int) -> Errno:
    directory = _directory(guest, fd, Rights.PATH_FILESTAT_GET)
    if lookup & ~_FOLLOW:
        raise WasiError(Errno.INVALID)
    guest.memory.write(stat_out, stat_of(_find(guest, directory, path, path_length)))
    return Errno.SUCCESS


@function
def path_readlink(
    guest: Guest, fd: int, path: int, path_length: int, _buffer: int, _length: int, _used_out: int
) -> Errno:
    _find(guest, _directory(guest, fd, Rights.PATH_READLINK), path, path_length)
    return Errno.INVALID


@function
def path_create_directory(guest: Guest, fd: int, path: int, path_length: int) -> Errno:
    # Programs make sure of their directories so, and take it for a success that there is one.
    directory = _directory(guest, fd, 0)
    try:
        _find(guest, directory, path, path_length)
    except WasiError as error:
        return Errno.READ_ONLY if error.errno is Errno.NO_ENTRY else error.errno
    return Errno.EXISTS


def _read_only(guest: Guest, fd: int, *_rest: int) -> Errno:
    _directory(guest, fd, 0)
    return Errno.READ_ONLY


@function
def path_filestat_set_times(guest: Guest, fd: int, *_rest: int) -> Errno:
    return _read_only(guest, fd)


@function
def path_remove_directory(guest: Guest, fd: int, *_rest: int) -> Errno:
    return _read_only(guest, fd)


@function
def path_unlink_file(guest: Guest, fd: int, *_rest: int) -> Errno:
    return _read_only(guest, fd)


@function
def path_symlink(guest: Guest, _target: int, _target_length: int, fd: int, *_rest: int) -> Errno:
    return _read_only(guest, fd)


@function
def path_rename(guest: Guest, fd: int, _path: int, _length: int, to_fd: int, *_rest: int) -> Errno:
    _directory(guest, fd, 0)
    return _read_only(guest, to_fd)


@function
def path_link(guest: Guest, fd: int, _lookup: int, _path: int, _length: int, to_fd: int, *_rest: int) -> Errno:
    _directory(guest, fd, 0)
    return _read_only(guest, to_fd)


def _directory(guest: Guest, fd: int, right: int) -> OpenDirectory:
    descriptor = guest.descriptor(fd)
    if not isinstance(descriptor, OpenDirectory):
        raise WasiError(Errno.NOT_DIRECTORY)
    if right & ~descriptor.rights:
        raise WasiError(Errno.NOT_CAPABLE)
    return descriptor


def _mount(guest: Guest, fd: int) -> bytes:
    descriptor = guest.descriptor(fd)
    if not isinstance(descriptor, OpenDirectory) or descriptor.mount is None:
        raise WasiError(Errno.BAD_DESCRIPTOR)
    return descriptor.mount


def _find(guest: Guest, directory: OpenDirectory, path: int, length: int) -> File | Tree:
    guest.memory.check(path, length)
    if length > PATH_MOST_CHARS:
        raise WasiError(Errno.NAME_TOO_LONG)
    try:
        return directory.tree.find(guest.memory.read(path, length).decode())
    except UnicodeDecodeError:
        raise WasiError(Errno.ILLEGAL_SEQUENCE) from None
    except PathError as error:
        raise WasiError(_BY_PATH[type(error)]) from None

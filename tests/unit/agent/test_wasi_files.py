"""Read-only files in preview 1: paths that stay in their tree, reading, seeking, listing, rights, what is refused.

One guest with two mounts; the numbers of errors are those that Linux has on a file system mounted read-only, and where
WASI differs, WASI's. That libc and Go find their way through these functions is for the conformance tests.
"""

import itertools
from collections.abc import Iterator
from struct import iter_unpack, pack, unpack, unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent.wasi_harness import SIZE, Fixture
from wasmpool_agent.wasi.errno import Errno
from wasmpool_agent.wasi.files import File, PathError, PathNotDirectoryError, Tree, trees
from wasmpool_agent.wasi.guest import DESCRIPTORS_MAX, DIRECTORY_RIGHTS, FILE_RIGHTS, INHERITED_RIGHTS, Rights
from wasmpool_agent.wasi.preview1_files import READ_MAX_BYTES

MOUNTS = {
    "/etc/app": {"key": b"0123456789", "tls/ca.crt": b"cert", "tls/deep/x": b"", "tls.d/y": b"y"},
    "/secret": {"ü": b"umlaut", "large": bytes(range(256)) * 8192},
}
APP, SECRET = 3, 4
CREATE, DIRECTORY, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8
ALL = 2**64 - 1
READABLE = ALL & ~Rights.FD_WRITE
OUT = 512


@pytest.fixture
def fixture() -> Iterator[Fixture]:
    made = Fixture(trees(MOUNTS))
    yield made
    assert made.guards_are_whole()


def open_at(fixture: Fixture, path: str, how: int = 0, base: int = READABLE, directory: int = APP) -> int | Errno:
    name = path.encode()
    errno = fixture.call("path_open", directory, 1, fixture.put(name), len(name), how, base, ALL, 0, OUT)
    return number(fixture) if errno is Errno.SUCCESS else Errno(errno)  # type: ignore[arg-type]


def number(fixture: Fixture) -> int:
    (found,) = unpack("<I", fixture.read(OUT, 4))
    return int(found)


def long(fixture: Fixture) -> int:
    (found,) = unpack("<Q", fixture.read(OUT, 8))
    return int(found)


def buffers(fixture: Fixture, *sizes: int, at: int = 1000) -> tuple[int, int]:
    """Vectors at 0, of buffers one after the other from `at` on."""
    for index, size in enumerate(sizes):
        fixture.guest.memory.write(8 * index, pack("<II", at, size))
        at += size
    return 0, len(sizes)


def read(fixture: Fixture, fd: int, *sizes: int) -> bytes:
    assert fixture.call("fd_read", fd, *buffers(fixture, *sizes), OUT) is Errno.SUCCESS
    return fixture.read(1000, number(fixture))


def entries(fixture: Fixture, fd: int, size: int) -> list[tuple[str, int, int]]:
    """Name, type and number of all, read as libc does with a buffer of this size."""
    found: list[tuple[str, int, int]] = []
    cookie = 0
    while True:
        assert fixture.call("fd_readdir", fd, 1000, size, cookie, OUT) is Errno.SUCCESS
        data = fixture.read(1000, number(fixture))
        at = 0
        while at + 24 <= len(data):
            next_cookie, inode, length, kind = unpack_from("<QQIB", data, at)
            if at + 24 + length > len(data):
                break
            found.append((data[at + 24 : at + 24 + length].decode(), kind, inode))
            cookie = next_cookie
            at += 24 + length
        if len(data) < size:
            return found


def test_preopens_follow_the_streams_and_tell_their_names(fixture: Fixture) -> None:
    assert fixture.call("fd_prestat_get", APP, OUT) is Errno.SUCCESS
    assert unpack("<BxxxI", fixture.read(OUT, 8)) == (0, len("/etc/app"))
    assert fixture.call("fd_prestat_dir_name", APP, 100, 8) is Errno.SUCCESS
    assert fixture.read(100, 9) == b"/etc/app\0"
    assert fixture.call("fd_prestat_dir_name", SECRET, 100, 20) is Errno.SUCCESS
    assert fixture.read(100, 9) == b"/secretp\0"
    assert fixture.call("fd_prestat_dir_name", APP, 100, 7) is Errno.NAME_TOO_LONG
    assert fixture.call("fd_prestat_dir_name", APP, SIZE - 7, 8) is Errno.FAULT
    assert fixture.call("fd_prestat_get", 5, OUT) is Errno.BAD_DESCRIPTOR
    opened = open_at(fixture, ".")
    assert fixture.call("fd_prestat_get", opened, OUT) is Errno.BAD_DESCRIPTOR  # a directory, but not preopened


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("key", b"0123456789"),
        ("./key", b"0123456789"),
        ("tls//ca.crt", b"cert"),
        ("tls/../key", b"0123456789"),
        ("tls/deep/.././../tls/ca.crt", b"cert"),
        ("", Errno.NO_ENTRY),
        ("other", Errno.NO_ENTRY),
        ("tls/other", Errno.NO_ENTRY),
        ("other/../key", Errno.NO_ENTRY),
        ("KEY", Errno.NO_ENTRY),
        ("key\0", Errno.NO_ENTRY),
        ("key/", Errno.NOT_DIRECTORY),
        ("key/.", Errno.NOT_DIRECTORY),
        ("key/..", Errno.NOT_DIRECTORY),
        ("key/x", Errno.NOT_DIRECTORY),
        ("/key", Errno.NOT_PERMITTED),
        ("/etc/app/key", Errno.NOT_PERMITTED),
        ("..", Errno.NOT_PERMITTED),
        ("../secret/large", Errno.NOT_PERMITTED),
        ("tls/../../secret/large", Errno.NOT_PERMITTED),
        ("a" * 4097, Errno.NAME_TOO_LONG),
    ],
)
def test_paths_lead_downwards_and_never_out_of_their_tree(path: str, found: bytes | Errno, fixture: Fixture) -> None:
    outcome = open_at(fixture, path)
    if isinstance(found, Errno):
        assert outcome is found
    else:
        assert outcome == 5
        assert read(fixture, 5, 100) == found


@given(st.lists(st.sampled_from(["..", ".", "", "tls", "deep", "key", "etc", "app", "secret"]), max_size=9))
def test_a_path_finds_what_walking_it_finds(parts: list[str]) -> None:
    """The model: steps on a stack; one that would leave the root, and only then, is refused as such."""
    app = trees(MOUNTS)["/etc/app"]
    stack: list[Tree | File] = [app]
    there = True
    for part in parts:
        here = stack[-1]
        if not isinstance(here, Tree) or (part == ".." and len(stack) == 1):
            there = False
            break
        if part == "..":
            stack.pop()
        elif part not in {"", "."}:
            if part not in here.entries:
                there = False
                break
            stack.append(here.entries[part])
    path = "/".join(parts)
    if there and path and not path.startswith("/"):
        assert app.find(path) is stack[-1]
    else:
        with pytest.raises(PathError):
            app.find(path)


def test_a_path_that_is_no_utf_8_or_reaches_beyond_the_memory_is_refused(fixture: Fixture) -> None:
    fixture.put(b"\xff")
    assert fixture.call("path_open", APP, 0, 30000, 1, 0, 0, 0, 0, OUT) is Errno.ILLEGAL_SEQUENCE
    assert fixture.call("path_open", APP, 0, SIZE - 1, 2, 0, 0, 0, 0, OUT) is Errno.FAULT
    fixture.put(b"key")
    assert fixture.call("path_open", APP, 0, 30000, 3, 0, 0, 0, 0, SIZE - 3) is Errno.FAULT
    assert sorted(fixture.guest.descriptors) == [0, 1, 2, 3, 4]  # nothing stays open when the number can't be told


def test_reading_fills_the_buffers_in_order_and_goes_on_where_it_was(fixture: Fixture) -> None:
    fd = open_at(fixture, "key")
    assert isinstance(fd, int)
    assert read(fixture, fd, 2, 0, 3) == b"01234"
    assert read(fixture, fd, 100) == b"56789"
    assert read(fixture, fd, 100) == b""
    assert fixture.call("fd_tell", fd, OUT) is Errno.SUCCESS
    assert long(fixture) == 10
    assert fixture.call("fd_read", fd, *buffers(fixture, 10, at=SIZE - 9), OUT) is Errno.FAULT
    assert fixture.call("fd_read", fd, 0, 2000, OUT) is Errno.INVALID


def test_two_openings_of_one_file_have_positions_of_their_own(fixture: Fixture) -> None:
    one, other = open_at(fixture, "key"), open_at(fixture, "key")
    assert isinstance(one, int)
    assert isinstance(other, int)
    assert read(fixture, one, 4) == b"0123"
    assert read(fixture, other, 4) == b"0123"


def test_reading_at_an_offset_leaves_the_position(fixture: Fixture) -> None:
    fd = open_at(fixture, "key")
    assert isinstance(fd, int)
    for offset, expected in ((4, b"456"), (9, b"9"), (10, b""), (2**64 - 1, b"")):
        assert fixture.call("fd_pread", fd, *buffers(fixture, 3), offset, OUT) is Errno.SUCCESS
        assert fixture.read(1000, number(fixture)) == expected
    assert read(fixture, fd, 1) == b"0"


def test_one_call_reads_so_much_and_no_more() -> None:
    content = bytes(range(256)) * (READ_MAX_BYTES // 256 + 1)
    fixture = Fixture(trees({"/": {"f": content}}))
    fd = open_at(fixture, "f")
    assert isinstance(fd, int)
    vectors = buffers(fixture, *([50000] * 30), at=9000)
    # All into one place: what counts is how much.
    for index in range(30):
        fixture.guest.memory.write(8 * index, pack("<II", 9000, 50000))
    assert fixture.call("fd_read", fd, *vectors, OUT) is Errno.SUCCESS
    assert number(fixture) == READ_MAX_BYTES


@pytest.mark.parametrize(
    ("offset", "whence", "expected"),
    [
        (4, 0, 4),
        (2, 1, 5),
        (-2, 1, 1),
        (0, 1, 3),
        (-4, 2, 6),
        (5, 2, 15),
        (2**63 - 1, 0, 2**63 - 1),
        (-1, 0, Errno.INVALID),
        (-4, 1, Errno.INVALID),
        (-11, 2, Errno.INVALID),
        (2**63 - 1, 1, Errno.INVALID),
        (0, 3, Errno.INVALID),
    ],
)
def test_seeking(offset: int, whence: int, expected: int | Errno, fixture: Fixture) -> None:
    fd = open_at(fixture, "key")
    assert isinstance(fd, int)
    read(fixture, fd, 3)
    errno = fixture.call("fd_seek", fd, offset % 2**64, whence, OUT)
    if isinstance(expected, Errno):
        assert errno is expected
        expected = 3
    else:
        assert errno is Errno.SUCCESS
        assert long(fixture) == expected
    assert fixture.call("fd_tell", fd, OUT) is Errno.SUCCESS
    assert long(fixture) == expected
    assert read(fixture, fd, 100) == b"0123456789"[expected:]


@pytest.mark.parametrize("size", [32, 33, 40, 50, 64, 4096])
def test_a_directory_is_listed_whole_whatever_the_buffer(size: int, fixture: Fixture) -> None:
    listed = entries(fixture, APP, size)
    assert [(name, kind) for name, kind, _ in listed] == [(".", 3), ("..", 3), ("key", 4), ("tls", 3), ("tls.d", 3)]
    for name, kind, inode in listed:
        if name != "..":
            path = name.encode()
            assert fixture.call("path_filestat_get", APP, 0, fixture.put(path), len(path), 2000) is Errno.SUCCESS
            assert unpack("<QQB", fixture.read(2000, 17)) == (1, inode, kind)


def test_listing_is_refused_where_it_can_not_be(fixture: Fixture) -> None:
    assert fixture.call("fd_readdir", APP, 1000, 64, 2**64 - 1, OUT) is Errno.SUCCESS
    assert number(fixture) == 0
    assert fixture.call("fd_readdir", APP, SIZE - 10, 64, 0, OUT) is Errno.FAULT
    assert fixture.call("fd_readdir", open_at(fixture, "key"), 1000, 64, 0, OUT) is Errno.NOT_DIRECTORY
    assert fixture.call("fd_readdir", open_at(fixture, ".", base=0), 1000, 64, 0, OUT) is Errno.NOT_CAPABLE


def test_what_a_file_and_a_directory_are(fixture: Fixture) -> None:
    def stat(fd: int) -> tuple[int, ...]:
        assert fixture.call("fd_filestat_get", fd, 2000) is Errno.SUCCESS
        return tuple(unpack("<QQB7xQQQQQ", fixture.read(2000, 64)))

    fd, directory = open_at(fixture, "key"), open_at(fixture, "tls")
    assert isinstance(fd, int)
    assert isinstance(directory, int)
    _, inode, *rest = stat(fd)
    assert rest == [4, 1, 10, 0, 0, 0]
    assert stat(directory)[2:] == (3, 1, 0, 0, 0, 0)
    assert fixture.call("path_filestat_get", APP, 1, fixture.put(b"tls/../key"), 10, 2000) is Errno.SUCCESS
    assert unpack("<QQ", fixture.read(2000, 16)) == (1, inode)
    assert fixture.call("path_filestat_get", APP, 2, 30000, 10, 2000) is Errno.INVALID
    assert fixture.call("path_filestat_get", APP, 0, 30000, 9, 2000) is Errno.NO_ENTRY
    assert fixture.call("path_filestat_get", fd, 0, 30000, 10, 2000) is Errno.NOT_DIRECTORY
    assert fixture.call("fd_filestat_get", open_at(fixture, "key", base=0), 2000) is Errno.NOT_CAPABLE


def test_all_files_and_directories_of_a_guest_have_numbers_of_their_own() -> None:
    def numbers(tree: Tree) -> Iterator[int]:
        yield tree.number
        for found in tree.entries.values():
            if isinstance(found, Tree):
                yield from numbers(found)
            else:
                yield found.number

    every = list(itertools.chain.from_iterable(map(numbers, trees(MOUNTS).values())))
    assert len(set(every)) == len(every) == 11
    with pytest.raises(PathNotDirectoryError):
        trees({"/": {"a": b"", "a/b": b""}})


def fdstat(fixture: Fixture, fd: int) -> tuple[int, int, int, int]:
    assert fixture.call("fd_fdstat_get", fd, 2000) is Errno.SUCCESS
    kind, flags, base, inheriting = unpack("<BxHxxxxQQ", fixture.read(2000, 24))
    return kind, flags, base, inheriting


def test_rights_are_those_asked_for_and_possible(fixture: Fixture) -> None:
    assert fdstat(fixture, APP) == (3, 0, DIRECTORY_RIGHTS, INHERITED_RIGHTS)
    fd, few, directory = open_at(fixture, "key"), open_at(fixture, "key", base=Rights.FD_TELL), open_at(fixture, "tls")
    assert isinstance(fd, int)
    assert isinstance(few, int)
    assert isinstance(directory, int)
    assert fdstat(fixture, fd) == (4, 0, FILE_RIGHTS, 0)
    assert fdstat(fixture, directory) == (3, 0, DIRECTORY_RIGHTS, INHERITED_RIGHTS)
    assert fdstat(fixture, few) == (4, 0, Rights.FD_TELL, 0)
    assert fixture.call("fd_read", few, 0, 0, OUT) is Errno.NOT_CAPABLE
    assert fixture.call("fd_pread", few, 0, 0, 0, OUT) is Errno.NOT_CAPABLE
    assert fixture.call("fd_advise", few, 0, 0, 0) is Errno.NOT_CAPABLE
    assert fixture.call("fd_seek", few, 1, 0, OUT) is Errno.NOT_CAPABLE
    assert fixture.call("fd_seek", few, 0, 1, OUT) is Errno.SUCCESS  # which is to tell
    assert fixture.call("fd_tell", few, OUT) is Errno.SUCCESS


def test_what_a_directory_gave_up_nothing_below_it_gets(fixture: Fixture) -> None:
    left = DIRECTORY_RIGHTS, Rights.FD_TELL | Rights.PATH_OPEN
    assert fixture.call("fd_fdstat_set_rights", APP, *left) is Errno.SUCCESS
    assert fixture.call("fd_fdstat_set_rights", APP, DIRECTORY_RIGHTS, INHERITED_RIGHTS) is Errno.NOT_CAPABLE
    fd, below = open_at(fixture, "key"), open_at(fixture, "tls")
    assert isinstance(fd, int)
    assert isinstance(below, int)
    assert fdstat(fixture, fd)[2:] == (Rights.FD_TELL, 0)
    assert fdstat(fixture, below)[2:] == (Rights.PATH_OPEN, left[1])
    assert fixture.call("fd_fdstat_set_rights", APP, 0, 0) is Errno.SUCCESS
    for name, arguments in (
        ("path_open", (30000, 3, 0, 0, 0, 0, OUT)),
        ("path_filestat_get", (30000, 3, OUT)),
        ("fd_readdir", (0, OUT)),
    ):
        lookup = () if name == "fd_readdir" else (0,)
        buffer = (1000, 64) if name == "fd_readdir" else ()
        assert fixture.call(name, APP, *lookup, *buffer, *arguments) is Errno.NOT_CAPABLE, name
    assert fixture.call("path_readlink", APP, 30000, 3, 0, 0, OUT) is Errno.NOT_CAPABLE


@pytest.mark.parametrize(
    ("path", "how", "base", "errno"),
    [
        ("key", 0, ALL, Errno.READ_ONLY),
        ("key", TRUNCATE, READABLE, Errno.READ_ONLY),
        ("new", CREATE, READABLE, Errno.READ_ONLY),
        ("new", CREATE | TRUNCATE, ALL, Errno.READ_ONLY),
        ("key", CREATE | EXCLUSIVE, READABLE, Errno.EXISTS),
        ("key", DIRECTORY, READABLE, Errno.NOT_DIRECTORY),
        ("tls", 0, ALL, Errno.IS_DIRECTORY),
        ("tls", TRUNCATE, READABLE, Errno.IS_DIRECTORY),
        ("tls", CREATE, READABLE, Errno.IS_DIRECTORY),
        ("tls", CREATE | DIRECTORY, READABLE, Errno.INVALID),
        ("key", 16, READABLE, Errno.INVALID),
        ("../key", CREATE, READABLE, Errno.NOT_PERMITTED),
    ],
)
def test_nothing_is_opened_to_be_written_or_made(
    path: str, how: int, base: int, errno: Errno, fixture: Fixture
) -> None:
    assert open_at(fixture, path, how, base) is errno


def test_what_is_there_already_need_not_be_made(fixture: Fixture) -> None:
    assert open_at(fixture, "key", CREATE) == 5
    assert open_at(fixture, "tls", DIRECTORY) == 6
    fixture.put(b"key")
    assert fixture.call("path_open", APP, 2, 30000, 3, 0, 0, 0, 0, OUT) is Errno.INVALID
    assert fixture.call("path_open", APP, 0, 30000, 3, 0, 0, 0, 32, OUT) is Errno.INVALID
    for name, errno in ((b"tls", Errno.EXISTS), (b"new", Errno.READ_ONLY), (b"../x", Errno.NOT_PERMITTED)):
        assert fixture.call("path_create_directory", APP, fixture.put(name), len(name)) is errno


def test_whatever_writes_says_that_it_can_not(fixture: Fixture) -> None:
    fd = open_at(fixture, "key")
    for name, arguments in (
        ("fd_write", (0, 0, OUT)),
        ("fd_pwrite", (0, 0, 0, OUT)),
        ("fd_allocate", (0, 1)),
        ("fd_filestat_set_size", (0,)),
        ("fd_filestat_set_times", (0, 0, 0)),
    ):
        assert fixture.call(name, fd, *arguments) is Errno.NOT_CAPABLE, name
        assert fixture.call(name, APP, *arguments) is Errno.NOT_CAPABLE, name
    fixture.put(b"key")
    path = (30000, 3)
    for name, before, after in (
        ("path_filestat_set_times", (APP, 0, *path), (0, 0, 0)),
        ("path_remove_directory", (APP, *path), ()),
        ("path_unlink_file", (APP, *path), ()),
        ("path_symlink", (*path, APP, *path), ()),
        ("path_rename", (APP, *path), (APP, *path)),
        ("path_link", (APP, 0, *path), (APP, *path)),
    ):
        assert fixture.call(name, *before, *after) is Errno.READ_ONLY, name
        assert fixture.call(name, *(fd if it == APP else it for it in before), *after) is Errno.NOT_DIRECTORY, name
    assert fixture.call("path_rename", APP, *path, fd, *path) is Errno.NOT_DIRECTORY
    assert fixture.call("path_link", APP, 0, *path, 9, *path) is Errno.BAD_DESCRIPTOR


def test_directories_are_no_files_and_there_are_no_links(fixture: Fixture) -> None:
    for name, arguments in (
        ("fd_read", (0, 0, OUT)),
        ("fd_pread", (0, 0, 0, OUT)),
        ("fd_seek", (0, 1, OUT)),
        ("fd_tell", (OUT,)),
        ("fd_advise", (0, 0, 0)),
    ):
        assert fixture.call(name, APP, *arguments) is Errno.IS_DIRECTORY, name
    fd = open_at(fixture, "key")
    assert fixture.call("fd_advise", fd, 0, 0, 5) is Errno.SUCCESS
    assert fixture.call("fd_advise", fd, 0, 0, 6) is Errno.INVALID
    for synchronize, descriptor in itertools.product(("fd_sync", "fd_datasync"), (fd, APP)):
        assert fixture.call(synchronize, descriptor) is Errno.SUCCESS
        assert fixture.call(synchronize, 1) is Errno.INVALID
    assert fixture.call("path_readlink", APP, fixture.put(b"key"), 3, 1000, 10, OUT) is Errno.INVALID
    assert fixture.call("path_readlink", APP, fixture.put(b"kez"), 3, 1000, 10, OUT) is Errno.NO_ENTRY
    assert fixture.call("sock_recv", fd, 0, 0, 0, 0, 0) is Errno.NOT_SOCKET


def test_numbers_of_descriptors_are_the_lowest_that_are_free_and_they_are_limited(fixture: Fixture) -> None:
    assert [open_at(fixture, "key") for _ in range(3)] == [5, 6, 7]
    assert fixture.call("fd_close", 6) is Errno.SUCCESS
    assert fixture.call("fd_close", 0) is Errno.SUCCESS
    assert [open_at(fixture, "key") for _ in range(3)] == [0, 6, 8]
    outcomes = [open_at(fixture, "key") for _ in range(DESCRIPTORS_MAX)]
    assert outcomes[-1] is Errno.TOO_MANY_DESCRIPTORS
    assert len(fixture.guest.descriptors) == DESCRIPTORS_MAX
    assert fixture.call("fd_close", 100) is Errno.SUCCESS
    assert open_at(fixture, "key") == 100


def test_a_preopen_can_be_renumbered_and_closed(fixture: Fixture) -> None:
    assert fixture.call("fd_renumber", SECRET, APP) is Errno.SUCCESS
    assert fixture.call("fd_prestat_dir_name", APP, 100, 7) is Errno.SUCCESS
    assert fixture.read(100, 7) == b"/secret"
    assert open_at(fixture, "ü") == 4
    assert fixture.call("fd_close", APP) is Errno.SUCCESS
    assert open_at(fixture, "ü") is Errno.BAD_DESCRIPTOR


def test_a_file_can_always_be_read_says_poll(fixture: Fixture) -> None:
    fd = open_at(fixture, "key")
    assert isinstance(fd, int)
    read(fixture, fd, 3)
    for index, (tag, descriptor) in enumerate(((1, fd), (2, fd), (1, APP))):
        subscription = pack("<QB7xI28x", index, tag, descriptor)
        fixture.guest.memory.write(1000 + 48 * index, subscription)
    assert fixture.call("poll_oneoff", 1000, 4000, 3, OUT) is Errno.SUCCESS
    found = [(userdata, errno, size) for userdata, errno, _, size in iter_unpack("<QHB5xQ8x", fixture.read(4000, 96))]
    assert found == [(0, 0, 7), (1, Errno.NOT_CAPABLE, 0), (2, Errno.NOT_CAPABLE, 0)]

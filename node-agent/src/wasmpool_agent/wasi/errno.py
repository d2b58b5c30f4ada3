"""preview 1's error numbers, as far as they are used."""

from enum import IntEnum


class Errno(IntEnum):
    """`errno` of wasi_snapshot_preview1."""

    SUCCESS = 0
    TOO_BIG = 1
    ACCESS = 2
    AGAIN = 6
    BAD_DESCRIPTOR = 8
    EXISTS = 20
    FAULT = 21
    ILLEGAL_SEQUENCE = 25
    INVALID = 28
    IO = 29
    IS_DIRECTORY = 31
    TOO_MANY_DESCRIPTORS = 33
    NAME_TOO_LONG = 37
    NO_ENTRY = 44
    NO_SYSTEM_CALL = 52
    NOT_DIRECTORY = 54
    NOT_SOCKET = 57
    NOT_SUPPORTED = 58
    OVERFLOW = 61
    NOT_PERMITTED = 63
    READ_ONLY = 69
    ILLEGAL_SEEK = 70
    NOT_CAPABLE = 76


class WasiError(Exception):
    """Ends a WASI function with this number as its result."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno.name)
        self.errno = errno

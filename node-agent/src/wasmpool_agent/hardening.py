"""What a child of the supervisor takes from itself before it touches anything of a tenant."""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


def harden(supervisor_pid: int | None = None) -> None:
    """No ptrace and no core dump of this process, no new privileges, and an end when the supervisor ends.

    NB: the kernel looks at the thread that started this process, not at its process: start children from the main one.
    Raises OSError; exits where the supervisor has gone already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_PDEATHSIG, int(signal.SIGKILL)),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({option}): {os.strerror(number)}")
    if supervisor_pid is not None and os.getppid() != supervisor_pid:
        raise SystemExit("the supervisor has gone")

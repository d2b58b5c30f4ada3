"""poll_oneoff: clocks, and descriptors that are always ready.

What becomes ready, and when, is known at the call: standard input is at its end, standard output takes everything,
files can be read, and clocks run on their own. So the events are written at once and the guest then sleeps until the
first of them.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.guest import EmptyInput, Guest, OpenFile, OutputStream
from wasmpool_agent.wasi.waits import Until

_SUBSCRIPTION: Final = Struct("<QB7xI4xQQH6x")
_EVENT: Final = Struct("<QHB5xQH6x")
_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2
_ABSOLUTE: Final = 1
_HANGUP: Final = 1
SUBSCRIPTIONS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class _Timer:
    userdata: int
    wait_ns: int


def poll_oneoff(guest: Guest, subscriptions: int, events: int, count: int, count_out: int) -> Errno | Until:
    """Success at once where something is ready, else the moment when the first clock is."""
    if not 1 <= count <= SUBSCRIPTIONS_MAX:
        raise WasiError(Errno.INVALID)
    guest.memory.check(events, count * _EVENT.size)
    guest.memory.check(count_out, 4)
    now_ns = guest.clocks.monotonic_ns()
    ready: list[bytes] = []
    timers: list[_Timer] = []
    for userdata, tag, subject, timeout, _precision, flags in _SUBSCRIPTION.iter_unpack(
        guest.memory.read(subscriptions, count * _SUBSCRIPTION.size)
    ):
        if tag == _CLOCK:
            try:
                timers.append(_Timer(userdata, _wait_ns(guest, subject, timeout, absolute=bool(flags & _ABSOLUTE))))
            except WasiError as error:
                ready.append(_EVENT.pack(userdata, error.errno, _CLOCK, 0, 0))
        elif tag in {_FD_READ, _FD_WRITE}:
            ready.append(_descriptor_event(guest, userdata, tag, subject))
        else:
            raise WasiError(Errno.INVALID)
    first_ns = 0 if ready else min(timer.wait_ns for timer in timers)
    ready += [_EVENT.pack(timer.userdata, 0, _CLOCK, 0, 0) for timer in timers if timer.wait_ns <= first_ns]
    guest.memory.write(events, b"".join(ready))
    guest.memory.write_u32(count_out, len(ready))
    return Until((now_ns + first_ns) / 1e9) if first_ns else Errno.SUCCESS


def clock_ns(guest: Guest, clock: int) -> int:
    """The clock's time. Raises WasiError(INVALID) for a clock that there is not."""
    match clock:
        case 0:
            return guest.clocks.realtime_ns()
        case 1:
            return guest.clocks.monotonic_ns()
        case 2 | 3:
            return guest.clocks.cpu_ns()
        case _:
            raise WasiError(Errno.INVALID)


def _wait_ns(guest: Guest, clock: int, timeout: int, *, absolute: bool) -> int:
    # A guest that sleeps does not use its CPU clock up: such a timer would never fire.
    if clock not in {0, 1}:
        raise WasiError(Errno.NOT_SUPPORTED if clock in {2, 3} else Errno.INVALID)
    return max(0, timeout - clock_ns(guest, clock)) if absolute else timeout


def _descriptor_event(guest: Guest, userdata: int, tag: int, number: int) -> bytes:
    match guest.descriptors.get(number), tag:
        case EmptyInput(), 1:
            return _EVENT.pack(userdata, 0, tag, 0, _HANGUP)
        case OutputStream(), 2:
            return _EVENT.pack(userdata, 0, tag, 64 * 1024, 0)
        case OpenFile(file=file, position=position), 1:
            return _EVENT.pack(userdata, 0, tag, max(0, len(file.content) - position), 0)
        case None, _:
            return _EVENT.pack(userdata, Errno.BAD_DESCRIPTOR, tag, 0, 0)
        case _:
            return _EVENT.pack(userdata, Errno.NOT_CAPABLE, tag, 0, 0)

"""wasi:cli: arguments, environment, exit and the standard streams. There is no terminal."""

from typing import Final

from wasmpool_agent.wasi.guest import Output
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import function
from wasmpool_agent.wasi.p2.streams import InputStream
from wasmpool_agent.wasmtime_async import HostTrap, Wait

_LINES_MOST_BYTES: Final = 4096


class Written:
    """Standard output or error as an output stream. Not ready while the reader of the lines is behind."""

    __slots__ = ("_output", "_wait")

    def __init__(self, output: Output) -> None:
        self._output = output
        self._wait: Wait | None = None

    def readiness(self) -> Wait | None:
        """See Pollable."""
        if self._wait is not None and self._wait.ready():
            self._wait = None
        return self._wait

    def check_write(self) -> int:
        """See OutputStream."""
        return 0 if self.readiness() is not None else _LINES_MOST_BYTES

    def write(self, data: bytes) -> None:
        """See OutputStream."""
        self._wait = self._output.write(bytes(data))

    def flush(self) -> None:
        """See OutputStream: lines go on as they are whole."""


@function("wasi:cli/environment#get-environment")
def get_environment(host: Host) -> list[tuple[str, str]]:
    return list(host.env)


@function("wasi:cli/environment#get-arguments")
def get_arguments(host: Host) -> list[str]:
    return list(host.args)


@function("wasi:cli/environment#initial-cwd")
def initial_cwd(_: Host) -> str | None:
    return None


@function("wasi:cli/exit#exit")
def exit_with(host: Host, status: tuple[bool, None]) -> object:
    host.exit_code = 0 if status[0] else 1
    raise HostTrap(f"exit with code {host.exit_code}")


@function("wasi:cli/exit#exit-with-code")
def exit_with_code(host: Host, code: int) -> object:
    host.exit_code = code
    raise HostTrap(f"exit with code {code}")


@function("wasi:cli/stdin#get-stdin")
def get_stdin(host: Host) -> InputStream:
    return host.stdin


@function("wasi:cli/stdout#get-stdout")
def get_stdout(host: Host) -> Written:
    return Written(host.stdout)


@function("wasi:cli/stderr#get-stderr")
def get_stderr(host: Host) -> Written:
    return Written(host.stderr)


def _none(_: Host) -> None:
    return None


for _stream in ("stdin", "stdout", "stderr"):
    function(f"wasi:cli/terminal-{_stream}#get-terminal-{_stream}")(_none)

"""wasi:cli: arguments, environment, exit and the standard streams. There is no terminal."""

from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import function
from wasmpool_agent.wasi.p2.streams import InputStream, Written
from wasmpool_agent.wasmtime_async import HostTrap


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
    return host.out


@function("wasi:cli/stderr#get-stderr")
def get_stderr(host: Host) -> Written:
    return host.err


def _none(_: Host) -> None:
    return None


for _stream in ("stdin", "stdout", "stderr"):
    function(f"wasi:cli/terminal-{_stream}#get-terminal-{_stream}")(_none)

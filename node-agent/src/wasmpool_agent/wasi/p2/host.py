"""What one instance of a component may see of the world."""

from dataclasses import dataclass, field

from wasmpool_agent.wasi.files import Tree
from wasmpool_agent.wasi.guest import Clocks, Output
from wasmpool_agent.wasi.p2.streams import InputStream, NoInput, Written


@dataclass(slots=True)
class Host:
    """`preopens`: by where they are mounted. `exit_code` is set once the guest has called exit.

    `http`: of an instance that answers a request or may send some, what `http_types` needs; None elsewhere.
    """

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    stdout: Output
    stderr: Output
    clocks: Clocks
    stdin: InputStream = field(default_factory=NoInput)
    preopens: dict[str, Tree] = field(default_factory=dict[str, Tree])
    exit_code: int | None = None
    http: object | None = None
    out: Written = field(init=False)
    err: Written = field(init=False)

    def __post_init__(self) -> None:
        self.out, self.err = Written(self.stdout), Written(self.stderr)

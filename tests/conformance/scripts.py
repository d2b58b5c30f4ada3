"""Test scripts as commands: the modules as binaries, the constants as bits, each with its line."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import wasmtime

from tests.conformance import constants
from tests.conformance.constants import Expected, Value
from tests.conformance.s_expressions import Form, read
from tests.conformance.testsuite import ScriptFile

_DEFINITION: Final = re.compile(r"\A\(\s*module\s+definition\b")
_MISLEADING: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u206c]")
"""Change the direction in which text is shown: the text format's parser wants them escaped."""
_FIELDS: Final = frozenset(
    {"type", "import", "func", "table", "memory", "global", "export", "start", "elem", "data", "tag", "rec"}
)


class MalformedError(Exception):
    """The text of a module is none."""


@dataclass(frozen=True)
class ModuleText:
    """A module as a script has it. `binary` raises MalformedError."""

    kind: Literal["text", "quote", "binary"]
    source: bytes

    @cached_property
    def binary(self) -> bytes:
        """Not validated."""
        if self.kind == "binary":
            return self.source
        try:
            text = self.source.decode()
        except UnicodeDecodeError as error:
            raise MalformedError("malformed UTF-8 encoding") from error
        try:
            return bytes(wasmtime.wat2wasm(_MISLEADING.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)))
        except wasmtime.WasmtimeError as error:
            raise MalformedError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Module:
    """Compiles, and instantiates unless it is a definition."""

    name: str | None
    text: ModuleText
    definition: bool


@dataclass(frozen=True, slots=True)
class Instance:
    """Instantiates a definition."""

    name: str | None
    definition: str | None


@dataclass(frozen=True, slots=True)
class Register:
    """Gives an instance a name that modules import from."""

    name: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class Action:
    """Calls an export; or reads a global, if `arguments` is None. `instance` None: the latest."""

    instance: str | None
    export: str
    arguments: tuple[Value, ...] | None


@dataclass(frozen=True, slots=True)
class Returns:
    """The action returns these."""

    action: Action
    results: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Traps:
    """The action, or the module's instantiation, traps; the engine's words contain these."""

    subject: Action | Module
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The module is refused: when it is parsed (malformed), compiled (invalid) or instantiated (unlinkable)."""

    module: Module
    stage: Literal["malformed", "invalid", "unlinkable"]


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A command, or constants in it, that only scripts of one proposal have."""

    proposal: str


Command = Module | Instance | Register | Action | Returns | Traps | Refused | Unsupported


@dataclass(frozen=True, slots=True)
class Step:
    """A command and where it is. `head`: its word in the script."""

    line: int
    head: str
    command: Command


def _name_of(form: Form, at: int) -> str | None:
    name = form.items[at] if at < len(form.items) else None
    return name if isinstance(name, str) and name.startswith("$") else None


def _strings(form: Form) -> list[bytes]:
    return [item for item in form.items if isinstance(item, bytes)]


def _module(form: Form, text: bytes) -> Module:
    words = [item for item in form.items[:4] if isinstance(item, str)]
    definition = words[1:2] == ["definition"]
    name = _name_of(form, 2 if definition else 1)
    kind = next((word for word in words[1:] if word in {"binary", "quote"}), None)
    if kind == "binary":
        source = ModuleText("binary", b"".join(_strings(form)))
    elif kind == "quote":
        source = ModuleText("quote", b" ".join(_strings(form)))
    else:
        whole = _DEFINITION.sub("(module", text[form.start : form.end].decode(), count=1)
        source = ModuleText("text", whole.encode())
    return Module(name, source, definition)


def _action(form: Form) -> Action:
    name = _name_of(form, 1)
    (export,) = _strings(form)
    if form.head == "get":
        return Action(name, export.decode(), None)
    arguments = tuple(constants.value(item) for item in form.items if isinstance(item, Form))
    return Action(name, export.decode(), arguments)


def _subject(form: Form, text: bytes) -> Action | Module:
    return _module(form, text) if form.head == "module" else _action(form)


def _nested(form: Form) -> list[Form]:
    return [item for item in form.items if isinstance(item, Form)]


def _instance(form: Form, _text: bytes) -> Command:
    return Instance(_name_of(form, 2), _name_of(form, 3))


def _register(form: Form, _text: bytes) -> Command:
    return Register(_strings(form)[0].decode(), _name_of(form, 2))


def _returns(form: Form, _text: bytes) -> Command:
    action, *results = _nested(form)
    return Returns(_action(action), tuple(constants.expected(result) for result in results))


def _traps(form: Form, text: bytes) -> Command:
    return Traps(_subject(_nested(form)[0], text), _strings(form)[-1].decode())


def _refused(stage: Literal["malformed", "invalid", "unlinkable"]) -> Callable[[Form, bytes], Command]:
    return lambda form, text: Refused(_module(_nested(form)[0], text), stage)


_COMMANDS: Final[dict[str, Callable[[Form, bytes], Command]]] = {
    "module": lambda form, text: _instance(form, text) if form.items[1:2] == ["instance"] else _module(form, text),
    "register": _register,
    "invoke": lambda form, _text: _action(form),
    "get": lambda form, _text: _action(form),
    "assert_return": _returns,
    "assert_trap": _traps,
    "assert_exhaustion": _traps,
    "assert_malformed": _refused("malformed"),
    "assert_malformed_custom": _refused("malformed"),
    "assert_invalid": _refused("invalid"),
    "assert_invalid_custom": _refused("invalid"),
    "assert_unlinkable": _refused("unlinkable"),
    "assert_exception": lambda _form, _text: Unsupported("exceptions"),
    "thread": lambda _form, _text: Unsupported("threads"),
    "wait": lambda _form, _text: Unsupported("threads"),
}


def steps(script: ScriptFile) -> Iterator[Step]:
    """All commands in order. Raises ValueError for what is no command."""
    forms = read(script.text)
    if forms and forms[0].head in _FIELDS:  # the whole script is one module without its parentheses
        yield Step(1, "module", Module(None, ModuleText("text", script.text), definition=False))
        return
    line, at = 1, 0
    for form in forms:
        line += script.text.count(b"\n", at, form.start)
        at = form.start
        if form.head not in _COMMANDS:
            raise ValueError(f"{script.name}.wast:{line}: ({form.head} is no command")
        try:
            command = _COMMANDS[form.head](form, script.text)
        except ValueError as error:
            # Objects as constants exist only where there are types of objects: `(ref.extern 1)`, `(ref.struct)`.
            if "constants of ['ref." not in str(error):
                raise ValueError(f"{script.name}.wast:{line}: {error}") from error
            command = Unsupported("gc")
        yield Step(line, form.head, command)

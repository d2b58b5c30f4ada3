"""From a Kubernetes object (nested dicts) to the frozen types of this package, and back.

Everything that enters wasmpool from outside passes `decode` once; inside, only types travel.
"""

import json
import re
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin

import msgspec

from wasmpool_api.quantities import Duration, IntOrPercent, Quantity

T = TypeVar("T")

APPLY_PATCH: Final = "application/apply-patch+yaml; charset=utf-8"
"""The Content-Type. NB: without a parameter, the official client makes JSON of its own of any body."""
_HALVES: Final = re.compile("[\ud800-\udfff]")
_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class FieldError(ValueError):
    """A field of an object is missing, of the wrong type, or out of range.

    `path` is the field as a person writes it (`spec.instanceLimits.count`); the message says what was given and what
    is allowed.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


def decode(kind: type[T], obj: object) -> T:
    """`obj` as `kind`; unknown fields are ignored, as an older client must. Raises FieldError."""
    try:
        return msgspec.convert(obj, kind, dec_hook=_decode_hook)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise FieldError(path.removesuffix("`").lstrip("."), problem) from error


def encode(value: object) -> Any:
    """`value` as nested dicts, lists and scalars; fields that hold their default None or empty value are left out."""
    return msgspec.to_builtins(value, enc_hook=_encode_hook, builtin_types=())


def apply_patch(manifest: object) -> str:
    """The body of a server-side apply: JSON that is YAML too, as the API server reads it.

    NB: what JSON escapes as two halves (everything beyond 16 bits) is an error to YAML, and what YAML can't have as it
    is must be escaped.
    """
    text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":"))
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", _HALVES.sub("\N{REPLACEMENT CHARACTER}", text))


def _decode_hook(kind: type[Any], value: object) -> object:
    if isinstance(value, bool):  # NB: a bool is an int to Python, not to an API
        raise ValueError(f"{value} can't be read as {kind.__name__}")  # noqa: TRY004 - msgspec turns it into its own error
    if kind is Quantity and isinstance(value, str | int):
        return Quantity.parse(value)
    if kind is Duration and isinstance(value, str):
        return Duration.parse(value)
    if kind is IntOrPercent and isinstance(value, str | int):
        return IntOrPercent.parse(value)
    raise ValueError(f"{value!r} can't be read as {kind.__name__}")


def _encode_hook(value: object) -> object:
    if isinstance(value, IntOrPercent):
        return value.to_builtin()
    if isinstance(value, Quantity | Duration):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in YAML")


def unknown_fields(kind: type[Any], obj: object, path: str = "") -> tuple[str, ...]:
    """Paths of the fields of `obj` that `kind` does not have, as a person writes them (`spec.instanceLimit`).

    For files that no API server has pruned. Not looked into: metadata, of which only a part is declared here, and what
    is not a Struct (labels, a container's resources). `obj` itself need not be valid.
    """
    origin = get_origin(kind)
    if origin in {Union, UnionType}:
        return next((unknown_fields(it, obj, path) for it in get_args(kind) if it is not NoneType), ())
    if origin is tuple and isinstance(obj, list):
        items = cast("list[object]", obj)
        (item, *_) = get_args(kind)
        return tuple(found for at, it in enumerate(items) for found in unknown_fields(item, it, f"{path}[{at}]"))
    if origin is not None or not issubclass(kind, msgspec.Struct) or not isinstance(obj, dict):
        return ()
    known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    found: list[str] = []
    for name, value in cast("dict[object, object]", obj).items():
        here = f"{path}.{name}" if path else str(name)
        if name not in known:
            found.append(here)
        elif here != "metadata":
            found += unknown_fields(known[str(name)], value, here)
    return tuple(found)

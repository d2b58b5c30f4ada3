"""ConfigMap and Secret objects, from the API server or from a manifest, as their entries."""

import base64
import binascii
from collections.abc import Mapping

import msgspec

from wasmpool_agent.supervisor.ports import ConfigMap, UnavailableError
from wasmpool_api.codec import FieldError, decode
from wasmpool_api.meta import ObjectMeta

DEFAULT_NAMESPACE = "default"


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


class _Secret(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None


def config_map_of(found: object, origin: str = "") -> ConfigMap:
    """The entries of a ConfigMap object, binary and text. Raises UnavailableError for one that can't be read."""
    try:
        parsed = decode(_Object, found)
    except FieldError as error:
        raise UnavailableError(f"a ConfigMap can't be read: {error}") from error
    namespace, name = parsed.metadata.namespace or DEFAULT_NAMESPACE, parsed.metadata.name
    entries = {key: text.encode() for key, text in (parsed.data or {}).items()}
    for key, text in (parsed.binary_data or {}).items():
        entries[key] = _base64(text, f"ConfigMap {namespace}/{name}: binaryData.{key}")
    return ConfigMap(namespace, name, entries, origin)


def secret_entries(found: object) -> Mapping[str, bytes]:
    """The entries of a Secret object. Raises UnavailableError for one that can't be read, without its content."""
    try:
        parsed = decode(_Secret, found)
    except FieldError as error:
        raise UnavailableError(f"a Secret can't be read: {error.path}") from None
    where = f"Secret {parsed.metadata.namespace or DEFAULT_NAMESPACE}/{parsed.metadata.name}"
    entries = {key: _base64(text, f"{where}: data.{key}") for key, text in (parsed.data or {}).items()}
    return entries | {key: text.encode() for key, text in (parsed.string_data or {}).items()}


def _base64(text: str, field: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnavailableError(f"{field} is not base64: {error}") from None

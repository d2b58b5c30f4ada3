"""A ConfigMap object, from the API server or from a manifest, as its entries."""

import base64
import binascii

import msgspec

from wasmpool_agent.supervisor.ports import ConfigMap, UnavailableError
from wasmpool_api.codec import FieldError, decode
from wasmpool_api.meta import ObjectMeta

DEFAULT_NAMESPACE = "default"


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


def config_map_of(found: object, origin: str = "") -> ConfigMap:
    """The entries of a ConfigMap object, binary and text. Raises UnavailableError for one that can't be read."""
    try:
        parsed = decode(_Object, found)
    except FieldError as error:
        raise UnavailableError(f"a ConfigMap can't be read: {error}") from error
    namespace, name = parsed.metadata.namespace or DEFAULT_NAMESPACE, parsed.metadata.name
    entries = {key: text.encode() for key, text in (parsed.data or {}).items()}
    for key, text in (parsed.binary_data or {}).items():
        try:
            entries[key] = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UnavailableError(f"ConfigMap {namespace}/{name}: binaryData.{key} is not base64: {error}") from error
    return ConfigMap(namespace, name, entries, origin)

"""The file that says which pool this agent serves: an InstancePool manifest, as JSON or YAML."""

from pathlib import Path

import msgspec
import yaml

from wasmpool_api.codec import FieldError, decode
from wasmpool_api.instance_pool import InstancePool


class PoolFileError(Exception):
    """The file can't be read as an InstancePool; the message names it, and the field where it is one."""


def read_pool(path: Path) -> InstancePool:
    """Raises PoolFileError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PoolFileError(f"{path}: {error.strerror}") from error
    try:
        manifest = msgspec.json.decode(data)
    except msgspec.DecodeError:
        try:
            manifest = yaml.safe_load(data)
        except yaml.YAMLError as error:
            raise PoolFileError(f"{path}: neither JSON nor YAML: {error}") from error
    try:
        return decode(InstancePool, manifest)
    except FieldError as error:
        raise PoolFileError(f"{path}: {error}") from error

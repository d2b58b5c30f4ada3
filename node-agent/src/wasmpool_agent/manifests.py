"""A directory of manifests instead of an API server: read, checked as an API server would, and named by file.

WasmWorkloads and ConfigMaps are taken; InstancePools and other kinds are left alone. A ConfigMap may also be a folder
of its name beside the manifests: `guests/hello.wasm` is key `hello.wasm` of ConfigMap `guests`, as after
`kubectl create configmap guests --from-file=guests/`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import yaml

from wasmpool_agent.errors import UserError, one_line
from wasmpool_agent.modules.objects import config_map_of, secret_entries
from wasmpool_agent.pool_file import PoolFileError, read_pool
from wasmpool_agent.supervisor.ports import AbsentError, ConfigMap, UnavailableError
from wasmpool_api.codec import FieldError, decode, unknown_fields
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.meta import API_VERSION, INSTANCE_POOL, WASM_WORKLOAD
from wasmpool_api.not_yet import pool_not_yet
from wasmpool_api.region import region_shape
from wasmpool_api.registries import registries_problem
from wasmpool_api.wasm_workload import WasmWorkload

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
DEFAULT_NAMESPACE: Final = "default"
FILE_MOST_BYTES: Final = 256 * 1024**2

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a directory says. `origins`: the file that each workload is from, by namespace/name."""

    workloads: tuple[WasmWorkload, ...] = ()
    config_maps: Mapping[tuple[str, str], ConfigMap] = field(default_factory=dict[tuple[str, str], ConfigMap])
    secrets: Mapping[tuple[str, str], Mapping[str, bytes]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, bytes]]
    )
    origins: Mapping[str, str] = field(default_factory=dict[str, str])


def read_pool_strictly(path: Path) -> InstancePool:
    """An InstancePool manifest whose fields are all known and make a region. Raises UserError."""
    documents = list(_documents(path))
    if len(documents) != 1:
        raise UserError(f"{path}: it has {len(documents)} documents, one InstancePool is wanted")
    (manifest,) = documents
    if (manifest.get("apiVersion"), manifest.get("kind")) != (API_VERSION, INSTANCE_POOL):
        raise UserError(
            f"{path}: it is a {manifest.get('kind')} of {manifest.get('apiVersion')}, "
            f"an {INSTANCE_POOL} of {API_VERSION} is wanted"
        )
    try:
        pool = read_pool(path)
    except PoolFileError as error:
        raise UserError(one_line(error)) from error
    _refuse_unknown(path, unknown_fields(InstancePool, manifest))
    unsupported = pool_not_yet(pool.spec) or registries_problem(pool.spec)
    if unsupported is not None:
        raise UserError(f"{path}: {unsupported}")
    try:
        region_shape(pool.spec)
    except FieldError as error:
        raise UserError(f"{path}: {error}") from error
    return pool


def read_manifests(directory: Path) -> Manifests:
    """All files of the directory itself, not of its folders. Raises UserError for the first that is wrong."""
    workloads: dict[str, WasmWorkload] = {}
    config_maps: dict[tuple[str, str], ConfigMap] = {}
    secrets: dict[tuple[str, str], Mapping[str, bytes]] = {}
    origins: dict[str, str] = {}
    for path in files_of(directory):
        for manifest in _documents(path):
            kind = (manifest.get("apiVersion"), manifest.get("kind"))
            if kind == (API_VERSION, WASM_WORKLOAD):
                workload = _workload(path, manifest)
                label = f"{workload.metadata.namespace}/{workload.metadata.name}"
                if label in origins:
                    raise UserError(f"{path}: WasmWorkload {label} is in {origins[label]} already")
                origins[label], workloads[label] = str(path), workload
            elif kind == ("v1", "ConfigMap"):
                try:
                    found = config_map_of(manifest, str(path))
                except UnavailableError as error:
                    raise UserError(f"{path}: {error}") from error
                if (found.namespace, found.name) in config_maps:
                    other = config_maps[found.namespace, found.name].origin
                    raise UserError(f"{path}: ConfigMap {found.namespace}/{found.name} is in {other} already")
                config_maps[found.namespace, found.name] = found
            elif kind == ("v1", "Secret"):
                _add_secret(path, manifest, secrets)
    return Manifests(tuple(workloads[label] for label in sorted(workloads)), config_maps, secrets, origins)


def files_of(directory: Path) -> list[Path]:
    """The manifest files, by name. Raises UserError."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError as error:
        raise UserError(f"--workloads {directory}: {error.strerror}") from error


def folder_config_map(directory: Path, namespace: str, name: str) -> ConfigMap:
    """A folder beside the manifests as a ConfigMap. Raises AbsentError, UnavailableError."""
    folder = directory / name
    if "/" in name or name in {"", ".", ".."} or not folder.is_dir():
        raise AbsentError(f"neither a manifest in {directory} nor a folder {folder} is ConfigMap {namespace}/{name}")
    try:
        entries = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if _fits(path)}
    except OSError as error:
        raise UnavailableError(f"{error.filename}: {error.strerror}") from error
    return ConfigMap(namespace, name, entries, f"{folder}/")


def _fits(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= FILE_MOST_BYTES


def _documents(path: Path) -> Iterator[Manifest]:
    try:
        documents: list[object] = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {one_line(error)}") from error
    for at, document in enumerate(documents):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise UserError(f"{path}: document {at + 1} is a {type(document).__name__}, a mapping is wanted")
        yield cast("Manifest", document)


def _add_secret(path: Path, manifest: Manifest, secrets: dict[tuple[str, str], Mapping[str, bytes]]) -> None:
    try:
        entries = secret_entries(manifest)
    except UnavailableError as error:
        raise UserError(f"{path}: {error}") from error
    metadata = manifest["metadata"]
    key = (str(metadata.get("namespace") or DEFAULT_NAMESPACE), str(metadata.get("name")))
    if key in secrets:
        raise UserError(f"{path}: Secret {key[0]}/{key[1]} is in another file already")
    secrets[key] = entries


def _workload(path: Path, manifest: Manifest) -> WasmWorkload:
    _refuse_unknown(path, unknown_fields(WasmWorkload, manifest))
    try:
        workload = decode(WasmWorkload, with_namespace(manifest))
    except FieldError as error:
        raise UserError(f"{path}: {error}") from error
    problem = next(_problems(workload), None)
    if problem is not None:
        raise UserError(f"{path}: {problem}")
    return workload


def with_namespace(manifest: Manifest) -> Manifest:
    """As kubectl would send it; the uid, which an API server gives, is made of the name."""
    metadata: object = manifest.get("metadata")
    if not isinstance(metadata, dict):
        return manifest
    known = cast("dict[str, object]", metadata)
    namespace = known.get("namespace") or DEFAULT_NAMESPACE
    uid = known.get("uid") or f"{namespace}.{known.get('name')}"
    return {**manifest, "metadata": {**known, "namespace": namespace, "uid": uid}}


def _problems(workload: WasmWorkload) -> Iterator[str]:
    """What the schema and its rules refuse, of what would matter here."""
    spec = workload.spec
    if not workload.metadata.name:
        yield "metadata.name: empty"
    if (spec.module.image is None) == (spec.module.config_map is None):
        yield "spec.module: exactly one of image and configMap is allowed"
    if (spec.run.command is None) == (spec.run.http is None):
        yield "spec.run: exactly one of command and http is allowed"
    if spec.instances < 0:
        yield f"spec.instances: {spec.instances} is given, 0 or more is allowed"
    if spec.min_instances is not None and not 0 <= spec.min_instances <= spec.instances:
        yield f"spec.minInstances: {spec.min_instances} is given, 0 to {spec.instances} (instances) is allowed"
    if spec.limits.memory_pages is not None and spec.limits.memory_pages < 1:
        yield f"spec.limits.memoryPages: {spec.limits.memory_pages} is given, 1 or more is allowed"
    command = spec.run.command
    if command is not None and command.deadline is not None and command.deadline <= 0:
        yield f"spec.run.command.deadline: {command.deadline} is given, more than 0s is allowed"


def _refuse_unknown(path: Path, fields: tuple[str, ...]) -> None:
    if fields:
        each = "there is no such field" if len(fields) == 1 else "there are no such fields"
        raise UserError(f"{path}: {', '.join(fields)}: {each}")

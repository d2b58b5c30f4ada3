"""Compiled modules: verified, loaded and linked, once for each.

NB: compiled code is trusted like the agent itself, for it runs without further checks. So an artifact comes in a memfd
that nobody can change any more, and its digest is compared before a byte of it is looked at.
"""

import fcntl
import hashlib
import mmap
import os
from dataclasses import dataclass
from typing import Final

import wasmtime

from wasmpool_agent import canonical, component_api
from wasmpool_agent.protocol import ArtifactKind, LoadModule, LoadReason, Part
from wasmpool_agent.wasi.linking import imports_of, unprovided
from wasmpool_agent.wasi.p2 import FUNCTIONS
from wasmpool_agent.worker.component import Program

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class ArtifactRefusedError(Exception):
    """The artifact can't be loaded here. `reason` is what ModuleFailed says."""

    def __init__(self, reason: LoadReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CoreArtifact:
    """A core module. `number`: equal for equal modules. `functions`: the names of those that it exports."""

    instance_pre: wasmtime.InstancePre
    number: int
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComponentArtifact:
    """A component. `number`: as of a core module."""

    program: Program
    number: int


Artifact = CoreArtifact | ComponentArtifact


class Artifacts:
    """By key. An artifact that is dropped while instances run it lives until they have ended: Wasmtime counts."""

    def __init__(self, linker: wasmtime.Linker) -> None:
        self._linker = linker
        self._loaded: dict[str, Artifact] = {}

    def load(self, message: LoadModule, fds: tuple[int, ...]) -> Artifact:
        """Idempotent by key. `fds`, one for each part, stay the caller's. Raises ArtifactRefusedError."""
        known = self._loaded.get(message.key)
        if known is not None:
            return known
        for part, fd in zip(message.parts, fds, strict=True):
            _verify(part, fd)
        number = int(message.parts[0].sha256[:15], 16)
        paths = [f"/proc/self/fd/{fd}" for fd in fds]
        try:
            artifact: Artifact
            match message.kind:
                case ArtifactKind.MODULE:
                    artifact = self._core(paths[0], number)
                case ArtifactKind.COMPONENT:
                    artifact = ComponentArtifact(self._component(fds[0], paths[1:]), number)
                case ArtifactKind.COMPONENT_API:
                    artifact = ComponentArtifact(component_api.Program.load(self._linker.engine, paths), number)
        except wasmtime.WasmtimeError as error:
            raise ArtifactRefusedError(LoadReason.INCOMPATIBLE, str(error)) from error
        except canonical.Unsupported as error:
            raise ArtifactRefusedError(LoadReason.UNSUPPORTED_IMPORT, str(error)) from error
        self._loaded[message.key] = artifact
        return artifact

    def _core(self, path: str, number: int) -> CoreArtifact:
        module = wasmtime.Module.deserialize_file(self._linker.engine, path)
        functions = tuple(export.name for export in module.exports if isinstance(export.type, wasmtime.FuncType))
        return CoreArtifact(self._link(module), number, functions)

    def _component(self, plan: int, paths: list[str]) -> canonical.Program:
        engine = self._linker.engine
        modules = [wasmtime.Module.deserialize_file(engine, path) for path in paths]
        return canonical.Program.load(engine, os.pread(plan, os.fstat(plan).st_size, 0), modules, FUNCTIONS)

    @property
    def engine(self) -> wasmtime.Engine:
        """That all of them are of."""
        return self._linker.engine

    def get(self, key: str) -> Artifact | None:
        """None where it was never loaded, or dropped."""
        return self._loaded.get(key)

    def drop(self, key: str) -> None:
        """Unknown keys are ignored."""
        self._loaded.pop(key, None)

    def __len__(self) -> int:
        return len(self._loaded)

    def _link(self, module: wasmtime.Module) -> wasmtime.InstancePre:
        missing = unprovided(imports_of(module))
        if missing:
            raise ArtifactRefusedError(LoadReason.UNSUPPORTED_IMPORT, missing)
        try:
            return self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise ArtifactRefusedError(LoadReason.UNSUPPORTED_IMPORT, str(error)) from error


def _verify(message: Part, fd: int) -> None:
    size = os.fstat(fd).st_size
    if size != message.size or not size:
        raise ArtifactRefusedError(LoadReason.CORRUPT, f"the artifact has {size} bytes, {message.size} were announced")
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & _SEALS != _SEALS:
        raise ArtifactRefusedError(LoadReason.CORRUPT, "the artifact is not in a memfd that is sealed against changes")
    with mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as content:
        digest = hashlib.sha256(content).hexdigest()
    if digest != message.sha256:
        raise ArtifactRefusedError(
            LoadReason.CORRUPT, f"the artifact's sha256 is {digest}, {message.sha256} was announced"
        )

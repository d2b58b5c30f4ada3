"""A real registry, the distribution project's, on an address of this machine; and real clients that push to it.

It ends with the process that started it, however that happens. Tests of the agent on a cluster use it as well: give it
an address that the nodes reach.
"""

import base64
import contextlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.cluster import binaries, processes
from tests.cluster.certificates import Trust
from tests.cluster.console import ClusterError
from tests.oci.tokens import TokenServer
from wasmpool_agent.oci.settings import RegistrySettings

START_SECONDS: Final = 30.0
WASM: Final = "application/wasm"
_LISTENING: Final = re.compile(r"listening on [^ \"]*:([0-9]+)")


@dataclass(frozen=True)
class Login:
    """Of a registry with a password file. `bcrypt`: of the password; nothing installed here makes such hashes."""

    name: str
    password: str
    bcrypt: str


ADA: Final = Login("ada", "correct horse", "$2b$04$kb6buqI4coTqubC013U6vuI85z5nOxGHRrXb1PAR.T367hVPd8izi")
BOB: Final = Login("bob", "battery staple", "$2b$04$3Tje9nz1j/1.ckYBYNUdiejLOXpGhOJxhBDqnx6XXmjFl0CF3FlPm")


class Registry:
    """A context manager. `trust`: with it TLS, by its certificate `registry`. `logins`, `tokens`: who may do what.

    `push_as`: a name and password for pushing, where that needs one. `enter`: a command in front of every other, that
    leads to the network where it is to be.
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        trust: Trust | None = None,
        logins: Sequence[Login] = (),
        tokens: TokenServer | None = None,
        push_as: tuple[str, str] | None = None,
        enter: Sequence[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._address = address
        self._port = 0
        self._trust = trust
        self._logins = logins
        self._tokens = tokens
        self._push_as = push_as or ((logins[0].name, logins[0].password) if logins else None)
        self._enter = tuple(enter)
        self._pid: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """As it stands in a reference."""
        return f"{self._address}:{self._port}"

    @property
    def port(self) -> int:
        """The same after a restart."""
        return self._port

    @property
    def ca(self) -> bytes | None:
        """PEM, of a registry with TLS."""
        return self._trust.ca.read_bytes() if self._trust is not None else None

    def settings(self, *, mirrors: tuple[str, ...] = ()) -> RegistrySettings:
        """What a client needs to know of it."""
        return RegistrySettings(self.host, plain_http=self._trust is None, ca_bundle=self.ca, mirrors=mirrors)

    def start(self) -> None:
        """Returns when it listens. Raises ClusterError."""
        log = self._directory / "registry.log"
        log.unlink(missing_ok=True)
        (self._directory / "config.yml").write_text(json.dumps(self._configuration()))
        program = binaries.one("registry")
        self._pid = processes.start(
            [*self._enter, program, "serve", self._directory / "config.yml"],
            state_dir=self._directory,
            name="registry",
            log=log,
            owned=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while (found := _LISTENING.search(log.read_text(errors="replace"))) is None:
            if time.monotonic() > deadline or not processes.is_alive(self._pid):
                self.stop()
                raise ClusterError(f"the registry did not start:\n{processes.tail(log)}")
            time.sleep(0.02)
        self._port = int(found[1])

    def stop(self) -> None:
        """Idempotent. What was pushed stays."""
        if self._pid is not None:
            processes.kill([self._pid])
            self._pid = None

    def push_artifact(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        media_type: str | None = WASM,
        config: tuple[str, bytes] | None = None,
        artifact_type: str | None = None,
    ) -> str:
        """With oras, as `acme/app:1`; the manifest's digest. `media_type`: of each file; None: oras's own choice."""
        options = ["--artifact-type", artifact_type] if artifact_type is not None else []
        with self._folder(files) as folder:
            if config is not None:
                (folder / ".config.json").write_bytes(config[1])
                options += ["--config", f".config.json:{config[0]}"]
            named = [f"{file}:{media_type}" if media_type is not None else file for file in files]
            plain = f"--plain-http={str(self._trust is None).lower()}"
            said = self._run(
                ["oras", "push", plain, "--format", "json", *options, f"{self.host}/{name}", *named], folder
            )
        return str(json.loads(said)["digest"])

    def push_image(self, name: str, layers: Iterable[bytes], *, platform: str | None = None, oci: bool = True) -> str:
        """With crane: layers are tars, gzipped or not; the manifest's digest."""
        files = {f"layer-{number}.tar": layer for number, layer in enumerate(layers)}
        with self._folder(files) as folder:
            options = [part for file in files for part in ("-f", file)] + ["--oci-empty-base"] * oci
            said = self._run(["crane", "append", *options, "-t", f"{self.host}/{name}"], folder)
            if platform is not None:
                said = self._run(
                    ["crane", "mutate", "--set-platform", platform, f"{self.host}/{name}", "-t", f"{self.host}/{name}"],
                    folder,
                )
        return said.strip().rpartition("@")[2]

    def push_index(self, name: str, members: Iterable[str], *, oci: bool = True) -> str:
        """With crane, of images in this registry: `acme/app:1`; the index's digest."""
        options = [part for member in members for part in ("-m", f"{self.host}/{member}")]
        options += ["--docker-empty-base"] * (not oci)
        said = self._run(["crane", "index", "append", *options, "-t", f"{self.host}/{name}"], self._directory)
        return said.strip().rpartition("@")[2]

    def blob(self, digest: str) -> Path:
        """Where it keeps a blob."""
        algorithm, _, digits = digest.partition(":")
        return self._directory / "data/docker/registry/v2/blobs" / algorithm / digits[:2] / digits / "data"

    @contextlib.contextmanager
    def _folder(self, files: Mapping[str, bytes]) -> Generator[Path]:
        with tempfile.TemporaryDirectory(dir=self._directory) as name:
            folder = Path(name)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            yield folder

    def _run(self, command: Sequence[str], folder: Path) -> str:
        docker = self._directory / "docker"
        docker.mkdir(exist_ok=True)
        auths: dict[str, object] = {}
        if self._push_as is not None:
            auths[self.host] = {"auth": base64.b64encode(":".join(self._push_as).encode()).decode()}
        (docker / "config.json").write_text(json.dumps({"auths": auths}))
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self._directory),
            "DOCKER_CONFIG": str(docker),
        }
        if self._trust is not None:
            environment["SSL_CERT_FILE"] = str(self._trust.ca)
        done = subprocess.run(
            [*self._enter, str(binaries.one(command[0])), *command[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": f"{self._address}:{self._port}", "secret": "of-this-test"}
        if self._trust is not None:
            http["tls"] = {
                "certificate": str(self._trust.certificate("registry")),
                "key": str(self._trust.key("registry")),
            }
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._directory / "data")},
                "delete": {"enabled": True},
            },
            "http": http,
        }
        if self._logins:
            path = self._directory / "htpasswd"
            path.write_text("".join(f"{login.name}:{login.bcrypt}\n" for login in self._logins))
            configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(path)}}
        if self._tokens is not None:
            configuration["auth"] = {"token": self._tokens.configuration(self._directory / "issuer.crt")}
        return configuration


def tar(files: Mapping[str, bytes | None]) -> bytes:
    """A layer; None makes a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    return buffer.getvalue()

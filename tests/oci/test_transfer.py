"""A module arrives whole and right, or not at all: cuts, stalls, tampering, two processes at once, redirects."""

import asyncio
import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.oci.front import Front, Pass, Say, Seen
from tests.oci.pulling import MOST, QUICK, login, module, pull, resolve, with_client
from tests.oci.registry import Registry, tar
from wasmpool_agent.oci.client import RegistryClient, Resolved
from wasmpool_agent.oci.credentials import NO_CREDENTIALS
from wasmpool_agent.oci.errors import (
    ArtifactInvalidError,
    DigestMismatchError,
    PullError,
    TooLargeError,
    TooSlowError,
    UnauthorizedError,
    UnreachableError,
)
from wasmpool_agent.oci.manifest import Descriptor
from wasmpool_agent.oci.parts import STALE_SECONDS, Origin, remove_stale
from wasmpool_agent.oci.reference import parse
from wasmpool_agent.oci.settings import Limits, RegistrySettings

pytestmark = pytest.mark.cluster

SIZE = 5_000_000


@pytest.fixture
def wasm(registry: Registry) -> bytes:
    data = module(SIZE)
    registry.push_artifact("acme/app:1", {"app.wasm": data})
    return data


@pytest.fixture
def layer(wasm: bytes) -> str:
    return f"sha256:{hashlib.sha256(wasm).hexdigest()}"


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with Front(registry.port, lambda _: Pass()) as made:
        yield made


def plain(front: Front) -> list[RegistrySettings]:
    return [RegistrySettings(front.host, plain_http=True)]


def part_of(front: Front, layer: str, scope: str = "", size: int = SIZE) -> str:
    """The name of its file."""
    described = Descriptor("application/wasm", layer, size)
    return Origin(front.host, "acme/app", scope).file_name(described)


def blobs(front: Front) -> list[Seen]:
    return [seen for seen in front.seen if seen.is_blob]


def test_after_a_cut_it_goes_on_from_there(front: Front, wasm: bytes, downloads: Path) -> None:
    front.rule = lambda seen: Pass(cut_after=2_000_000 if seen.is_blob and "range" not in seen.headers else None)
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm
    first, second = blobs(front)
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=2000000-"
    assert not list(downloads.iterdir())


def test_many_cuts_are_no_failure_as_long_as_there_is_more_each_time(
    front: Front, wasm: bytes, downloads: Path
) -> None:
    front.rule = lambda seen: Pass(cut_after=400_000 if seen.is_blob else None)
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm
    assert len(blobs(front)) == 13


def test_cuts_without_a_byte_more_end_it(front: Front, wasm: bytes, downloads: Path) -> None:
    front.rule = lambda seen: Pass(cut_after=0 if seen.is_blob else None)
    with pytest.raises(UnreachableError) as caught:
        pull(plain(front), f"{front.host}/acme/app:1", downloads)
    assert caught.value.temporary
    assert len(blobs(front)) == QUICK.attempts


def test_what_says_nothing_for_too_long_is_given_up(front: Front, wasm: bytes, downloads: Path) -> None:
    front.rule = lambda seen: Pass(stall_after=1_000_000 if seen.is_blob and "range" not in seen.headers else None)
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm
    assert blobs(front)[1].headers["range"] == "bytes=1000000-"


def test_the_whole_may_not_take_longer_than_is_allowed(front: Front, wasm: bytes) -> None:
    front.rule = lambda seen: Say(503, b'{"errors": [{"code": "DOWN", "message": "later"}]}')
    limits = Limits(resolve_seconds=0.5, first_wait_seconds=0.2, attempts=100)
    with pytest.raises(UnreachableError, match=r"not done after 0\.5 s; last: .* 503: DOWN later") as caught:
        resolve(plain(front), f"{front.host}/acme/app:1", limits=limits)
    assert caught.value.temporary


def test_a_part_of_a_killed_process_is_gone_on_from(front: Front, wasm: bytes, layer: str, downloads: Path) -> None:
    (downloads / part_of(front, layer)).write_bytes(wasm[:3_000_000])
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm
    assert [seen.headers.get("range") for seen in blobs(front)] == ["bytes=3000000-"]


def test_what_came_for_one_is_never_gone_on_from_for_another(
    front: Front, wasm: bytes, layer: str, downloads: Path
) -> None:
    (downloads / part_of(front, layer, scope="team-a")).write_bytes(wasm)
    front.rule = lambda seen: Say(403) if seen.is_blob else Pass()

    async def work(client: RegistryClient) -> bytes:
        resolved = await client.resolve(parse(f"{front.host}/acme/app:1"))
        return await client.fetch(resolved, NO_CREDENTIALS, downloads, MOST, scope="team-b")

    with pytest.raises(UnauthorizedError):
        with_client(plain(front), work)
    assert [path.name for path in downloads.iterdir()] == [part_of(front, layer, scope="team-a")]


@pytest.mark.parametrize("difference", ["registry", "repository", "scope", "size"])
def test_a_part_is_another_one_whatever_differs(difference: str) -> None:
    described = Descriptor("application/wasm", f"sha256:{'0' * 64}", 2 if difference == "size" else 1)
    whose = {"registry": "a", "repository": "b", "scope": "c"}
    one = Origin(**whose).file_name(Descriptor("application/wasm", f"sha256:{'0' * 64}", 1))
    assert Origin(**{**whose, **({difference: "x"} if difference in whose else {})}).file_name(described) != one


def test_what_is_refused_for_good_leaves_no_part(front: Front, downloads: Path, registry: Registry) -> None:
    registry.push_image("acme/two:1", [tar({"a.wasm": module(), "b.wasm": module()})])
    with pytest.raises(ArtifactInvalidError, match=r"2 \.wasm files"):
        pull(plain(front), f"{front.host}/acme/two:1", downloads)
    assert not list(downloads.iterdir())


def test_what_nobody_goes_on_with_is_removed_in_the_end(downloads: Path) -> None:
    names = {"old": b"x", "new": b"x", "empty": b""}
    for name, content in names.items():
        (downloads / f"{name}.part").write_bytes(content)
    now = (downloads / "new.part").stat().st_mtime
    old = now - 2 * STALE_SECONDS
    os.utime(downloads / "old.part", (old, old))
    remove_stale(downloads, now)
    assert [path.name for path in downloads.iterdir()] == ["new.part"]


def test_a_registry_that_drips_is_given_up_and_may_be_asked_again(front: Front, wasm: bytes, downloads: Path) -> None:
    slow = replace(QUICK, least_bytes_per_second=1e9, slow_seconds=0.005)

    async def work(client: RegistryClient) -> bytes:
        resolved = await client.resolve(parse(f"{front.host}/acme/app:1"))
        return await client.fetch(resolved, NO_CREDENTIALS, downloads, MOST)

    with pytest.raises(TooSlowError, match=r"fewer than 1e\+09 bytes per second come") as caught:
        with_client(plain(front), work, limits=slow)
    assert caught.value.temporary
    assert len(blobs(front)) == 1
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm


def test_a_registry_that_cuts_again_and_again_is_as_slow_as_all_of_it_together(
    front: Front, wasm: bytes, downloads: Path
) -> None:
    front.rule = lambda seen: Pass(cut_after=2_000 if seen.is_blob else None)
    slow = replace(QUICK, least_bytes_per_second=1e9, slow_seconds=0.05, attempts=10_000)

    async def work(client: RegistryClient) -> bytes:
        resolved = await client.resolve(parse(f"{front.host}/acme/app:1"))
        return await client.fetch(resolved, NO_CREDENTIALS, downloads, MOST)

    with pytest.raises(TooSlowError):
        with_client(plain(front), work, limits=slow)
    assert 1 < len(blobs(front)) < SIZE // 2_000, "before all of it had come"


def test_a_part_that_is_whole_costs_no_request(front: Front, wasm: bytes, layer: str, downloads: Path) -> None:
    (downloads / part_of(front, layer)).write_bytes(wasm)
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm
    assert not blobs(front)


@pytest.mark.parametrize("left", [b"x" * 1_000_000, b"x" * SIZE, b"x" * (SIZE + 1)], ids=["some", "all", "more"])
def test_a_part_of_other_bytes_is_loaded_anew(
    front: Front, wasm: bytes, layer: str, downloads: Path, left: bytes
) -> None:
    (downloads / f"{layer.replace(':', '-')}.part").write_bytes(left)
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm


def test_a_registry_without_ranges_is_asked_for_all_of_it_again(front: Front, wasm: bytes, downloads: Path) -> None:
    front.rule = lambda seen: Pass(
        cut_after=2_000_000 if seen.is_blob and "range" not in seen.headers else None, without_ranges=True
    )
    assert pull(plain(front), f"{front.host}/acme/app:1", downloads) == wasm


def test_a_tampered_blob_on_the_registrys_disk_is_refused_and_nothing_of_it_stays(
    registry: Registry, wasm: bytes, layer: str, downloads: Path
) -> None:
    with registry.blob(layer).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"tampered")
    with pytest.raises(DigestMismatchError) as caught:
        pull([registry.settings()], f"{registry.host}/acme/app:1", downloads)
    assert layer in str(caught.value)
    assert not list(downloads.iterdir())


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_blob_of_another_size_is_refused_before_it_is_read(
    front: Front, wasm: bytes, downloads: Path, size: int
) -> None:
    front.rule = lambda seen: Pass(tamper=(lambda body: (body + b"x")[:size]) if seen.is_blob else lambda body: body)
    with pytest.raises(DigestMismatchError, match=f"the registry has {size} bytes, the manifest says {SIZE}"):
        pull(plain(front), f"{front.host}/acme/app:1", downloads)
    assert not list(downloads.iterdir())


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(front: Front, wasm: bytes) -> None:
    pinned = resolve(plain(front), f"{front.host}/acme/app:1").reference
    front.rule = lambda seen: Pass(tamper=lambda body: body + b" ")
    with pytest.raises(DigestMismatchError, match=f"wanted is {pinned.digest}"):
        resolve(plain(front), str(pinned))
    with pytest.raises(DigestMismatchError, match="wanted is"):
        resolve(plain(front), f"{front.host}/acme/app:1")


def test_a_manifest_without_end_is_not_read(front: Front, wasm: bytes) -> None:
    front.rule = lambda seen: Say(200, b" " * 5_000_000, {"Content-Type": "application/json"})
    with pytest.raises(TooLargeError, match="more than 4194304 bytes"):
        resolve(plain(front), f"{front.host}/acme/app:1")


def test_what_is_temporary_is_tried_again_and_retry_after_is_heard(front: Front, wasm: bytes) -> None:
    answers: list[Pass | Say] = [Say(503), Say(429, headers={"Retry-After": "100000"}), Say(500), Pass(), Pass()]
    front.rule = lambda _: answers.pop(0)
    assert resolve(plain(front), f"{front.host}/acme/app:1").size_bytes == SIZE
    assert len(front.seen) == 4


def test_redirects_are_followed_without_the_authorization(
    registry: Registry, front: Front, wasm: bytes, layer: str, downloads: Path
) -> None:
    with Front(registry.port, lambda _: Pass()) as storage:

        def redirecting(seen: Seen) -> Pass | Say:
            if "authorization" not in seen.headers:
                return Say(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            location = f"{storage.url}{seen.path}?X-Signature=a%2Fb%20c&d=%7E"
            return Say(307, headers={"Location": location}) if seen.is_blob else Pass()

        front.rule = redirecting
        entries = [*plain(front), *plain(storage)]
        credentials = login({front.host: ("ada", "right")})
        assert pull(entries, f"{front.host}/acme/app:1", downloads, credentials) == wasm
        (seen,) = storage.seen
        assert "authorization" not in seen.headers
        assert seen.path.endswith("?X-Signature=a%2Fb%20c&d=%7E"), "a signature is of the query as it was sent"


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http://169.254.169.254/latest/meta-data", "is not HTTPS"),
        ("https://169.254.169.254/latest/meta-data", "never contacted"),
        ("https://[fe80::1]/", "never contacted"),
        ("https://[::ffff:169.254.169.254]/", "never contacted"),
        ("https://127.0.0.1:1/", "never contacted"),
        ("https://localhost:1/", "never contacted"),
        ("http://example.invalid/", "is not HTTPS"),
        ("ftp://example.invalid/", "redirected to what is no URL"),
        ("https://[", "redirected to what is no URL"),
    ],
)
def test_redirects_lead_nowhere_that_could_not_be_asked_at_once(
    front: Front, wasm: bytes, downloads: Path, location: str, problem: str
) -> None:
    front.rule = lambda seen: Say(307, headers={"Location": location}) if seen.is_blob else Pass()
    with pytest.raises(PullError, match=problem) as caught:
        pull(plain(front), f"{front.host}/acme/app:1", downloads)
    assert not caught.value.temporary


def test_redirects_in_a_circle_end(front: Front, wasm: bytes) -> None:
    front.rule = lambda seen: Say(307, headers={"Location": seen.path})
    with pytest.raises(PullError, match="more than 5 redirects"):
        resolve(plain(front), f"{front.host}/acme/app:1")


def test_two_tasks_with_one_directory_do_not_disturb_each_other(
    registry: Registry, wasm: bytes, downloads: Path
) -> None:
    async def twice(client: RegistryClient) -> list[bytes]:
        resolved = await client.resolve(parse(f"{registry.host}/acme/app:1"))
        work = [client.fetch(resolved, NO_CREDENTIALS, downloads, MOST) for _ in range(3)]
        return await asyncio.gather(*work)

    assert with_client([registry.settings()], twice) == [wasm] * 3


def _pull_in_a_process(host: str, directory: str, digest: str) -> None:
    data = pull([RegistrySettings(host, plain_http=True)], f"{host}/acme/app:1", Path(directory))
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest


def test_two_processes_with_one_directory_do_not_disturb_each_other(
    front: Front, wasm: bytes, layer: str, downloads: Path
) -> None:
    front.rule = lambda seen: Pass(cut_after=500_000 if seen.is_blob else None)
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_pull_in_a_process, args=(front.host, str(downloads), layer)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
        assert one.exitcode == 0
        one.close()
    assert not list(downloads.iterdir())


def test_a_cancelled_fetch_leaves_what_it_has(front: Front, wasm: bytes, layer: str, downloads: Path) -> None:
    front.rule = lambda seen: Pass(stall_after=3_000_000 if seen.is_blob else None)
    came = 0

    async def cancelled(client: RegistryClient) -> None:
        resolved: Resolved = await client.resolve(parse(f"{front.host}/acme/app:1"))
        enough = asyncio.Event()

        def counting(size: int) -> None:
            nonlocal came
            came += size
            if came >= 3_000_000:
                enough.set()

        task = asyncio.create_task(client.fetch(resolved, NO_CREDENTIALS, downloads, MOST, counting))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with_client(plain(front), cancelled)
    (left,) = downloads.iterdir()
    assert left.read_bytes() == wasm[:3_000_000]


def test_what_the_disk_says_is_passed_on(registry: Registry, wasm: bytes, downloads: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pull([registry.settings()], f"{registry.host}/acme/app:1", downloads / "missing")

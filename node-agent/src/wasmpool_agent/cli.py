"""The command `wasmpool-agent`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import disable_created_metrics

from wasmpool_agent import check as checking
from wasmpool_agent.check_json import as_json
from wasmpool_agent.check_sources import find
from wasmpool_agent.check_table import as_table
from wasmpool_agent.errors import UserError, one_line
from wasmpool_agent.http_server import Address, Probes, serving
from wasmpool_agent.logs import LogFormat, configure, rfc3339
from wasmpool_agent.manifests import read_pool_strictly
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.registries import PULL_SECRETS, docker_config, mounted_secrets
from wasmpool_agent.pool_file import PoolFileError, read_pool
from wasmpool_agent.standalone import FileNode
from wasmpool_agent.standalone_plan import SERVE_HOST, Report
from wasmpool_agent.supervisor.ports import DesiredState
from wasmpool_agent.supervisor.service import Supervisor
from wasmpool_agent.supervisor.state import Clocks, Settings
from wasmpool_api.codec import FieldError
from wasmpool_api.instance_pool_node import AgentInfo
from wasmpool_api.meta import pool_node_name

DISTRIBUTION: Final = "wasmpool-node-agent"
LOCAL_EDGE_SECONDS: Final = 0.05
"""Between two looks at the status where no API server is to be spared."""
ADMITTED, REFUSED, WRONG = 0, 1, 2

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Gives the exit status: 0 all is well, 1 refused or failed, 2 a file, a field or an option is wrong."""
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.command(parsed)
    except UserError as error:
        sys.stderr.write(f"wasmpool-agent: {one_line(error)}\n")
        return WRONG
    except BrokenPipeError:
        return WRONG
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wasmpool-agent", description="Runs WebAssembly guests in the slots of a region of memory."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve one node of a pool; this is what runs in the agent's pod")
    serve.add_argument("--pool", type=Path, required=True, metavar="FILE", help="the InstancePool")
    serve.add_argument("--listen", default="0.0.0.0:9464", help="for /metrics, /healthz, /readyz; default %(default)s")
    serve.add_argument(
        "--cache-dir", type=Path, default=Path("/var/cache/wasmpool"), metavar="DIR", help="default %(default)s"
    )
    _add_logging(serve, LogFormat.JSON)
    serve.set_defaults(command=_serve)

    run = commands.add_parser("run", help="run workloads from a directory, without a cluster")
    run.add_argument("--pool", type=Path, required=True, metavar="FILE", help="the InstancePool")
    run.add_argument(
        "--workloads",
        type=Path,
        required=True,
        metavar="DIR",
        help="of WasmWorkloads and ConfigMaps; read again when changed",
    )
    run.add_argument("--listen", default="none", help="for /metrics, /healthz, /readyz, as host:port; default none")
    run.add_argument("--cache-dir", type=Path, metavar="DIR", help="kept for the next time; default: a temporary one")
    run.add_argument("--once", action="store_true", help="end when all is done: 0 if all succeeded, 1 otherwise")
    _add_logging(run, LogFormat.TEXT)
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check",
        help="say whether a pool would admit modules; runs nothing",
        epilog="exit status: 0 all are admitted, 1 one is refused, 2 a file, a field or an option is wrong",
    )
    check.add_argument(
        "modules",
        nargs="+",
        metavar="GUEST",
        help="a file, or oci://REGISTRY/REPOSITORY:TAG with the credentials of `docker login`",
    )
    check.add_argument("--pool", type=Path, metavar="FILE", help="the InstancePool; default: the limits' defaults")
    check.add_argument("--entrypoint", default="_start", help="the function that is to be called; default %(default)s")
    check.add_argument("--output", choices=("table", "json"), default="table", help="default %(default)s")
    check.add_argument(
        "--suggest", action="store_true", help="also say the smallest limits for these modules, and what they cost"
    )
    check.set_defaults(command=_check)

    commands.add_parser("version", help="print versions").set_defaults(command=_version)
    return parser


def _add_logging(parser: argparse.ArgumentParser, form: LogFormat) -> None:
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--log-format", type=LogFormat, choices=tuple(LogFormat), default=form)


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(f"wasmpool-agent {version(DISTRIBUTION)}, wasmtime {version('wasmtime')}\n")
    return 0


def _check(parsed: argparse.Namespace) -> int:
    pool = read_pool_strictly(parsed.pool) if parsed.pool is not None else checking.default_pool()
    found = asyncio.run(find(parsed.modules, pool))
    checked = [checking.check(each, pool, parsed.entrypoint) for each in found]
    suggested = checking.suggest(checked, pool, parsed.entrypoint) if parsed.suggest else None
    show = as_json if parsed.output == "json" else as_table
    sys.stdout.write(show(checked, pool, suggested, suggest=parsed.suggest) + "\n")
    return ADMITTED if all(it.finding.admitted for it in checked) else REFUSED


def _serve(parsed: argparse.Namespace) -> int:
    configure(parsed.log_format, parsed.log_level)
    try:
        pool = read_pool(parsed.pool)
    except (PoolFileError, FieldError) as error:
        raise UserError(f"--pool {error}") from error
    node, namespace = _environment("NODE_NAME"), _environment("POD_NAMESPACE")
    agent = AgentInfo(
        pod_uid=_environment("POD_UID"),
        pod_name=_environment("POD_NAME"),
        version=version(DISTRIBUTION),
        wasmtime_version=version("wasmtime"),
    )
    credentials = mounted_secrets(PULL_SECRETS, pool.metadata.namespace)
    # The operator mounts the cache at this very directory. NB: others may have theirs beside it.
    cache = _directory(parsed.cache_dir / f"{pool.metadata.namespace}.{pool.metadata.name}")
    settings = Settings(pool, parsed.pool, cache, agent, credentials)
    return asyncio.run(_serve_node(settings, node, namespace, Address.parse(parsed.listen)))


async def _serve_node(settings: Settings, node: str, namespace: str, address: Address | None) -> int:
    # Imported here, so that `check` and `run` need neither its time nor its memory.
    from wasmpool_agent.kube import open_node  # noqa: PLC0415

    name = pool_node_name(settings.pool.metadata.name, node)
    async with open_node(namespace, name, settings.cache) as desired:
        return await _supervise(settings, desired, node, address)


def _run(parsed: argparse.Namespace) -> int:
    configure(parsed.log_format, parsed.log_level)
    pool = read_pool_strictly(parsed.pool)
    node = os.uname().nodename
    agent = AgentInfo(
        pod_uid="standalone",
        pod_name=node,
        version=version(DISTRIBUTION),
        wasmtime_version=version("wasmtime"),
    )
    with ExitStack() as stack:
        cache = parsed.cache_dir
        if cache is None:
            cache = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="wasmpool-", ignore_cleanup_errors=True))
            )
        settings = Settings(
            pool,
            parsed.pool.resolve(),
            _directory(cache),
            agent,
            docker_config,
            edge_seconds=LOCAL_EDGE_SECONDS,
            serve_host=SERVE_HOST,
            leave_seconds=0.0,
        )
        return asyncio.run(_run_files(settings, parsed.workloads, node, Address.parse(parsed.listen), once=parsed.once))


async def _run_files(settings: Settings, directory: Path, node: str, address: Address | None, *, once: bool) -> int:
    files = FileNode(directory, settings.pool, once=once, tell=_tell)
    if not once:
        return await _supervise(settings, files, node, address)
    await _supervise(settings, files, node, address, until=files.settled)
    if files.region_problem:
        raise UserError(files.region_problem)
    return ADMITTED if files.settled.is_set() and files.all_succeeded else REFUSED


async def _supervise(
    settings: Settings,
    desired: DesiredState,
    node: str,
    address: Address | None,
    until: asyncio.Event | None = None,
) -> int:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of all series, and nobody asks them anything
    metadata = settings.pool.metadata
    metrics = Metrics(metadata.name, metadata.namespace, node)
    supervisor = Supervisor(settings, desired, metrics, Clocks(time.monotonic, lambda: datetime.now(UTC)))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.stop)
    reporter = supervisor.reporter
    probes = Probes(reporter.metrics_text, reporter.unready, reporter.progress)
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_stop_at(until, supervisor)) if until is not None else None
            if address is None:
                await supervisor.run()
            else:
                async with serving(address, probes) as real:
                    log.info("listening on %s:%d", real.host, real.port)
                    await supervisor.run()
            if watcher is not None:
                watcher.cancel()
    except* UserError as group_error:
        raise UserError(one_line(group_error.exceptions[0])) from group_error
    return 0


async def _stop_at(event: asyncio.Event, supervisor: Supervisor) -> None:
    await event.wait()
    supervisor.stop()


def _tell(report: Report) -> None:
    """One line of JSON on standard output, whole, for workers write theirs there too."""
    line = {
        "time": rfc3339(datetime.now(UTC)),
        "namespace": report.namespace,
        "workload": report.name,
        "state": report.state.value,
        "reason": report.reason,
        "message": report.message,
    }
    if report.component_host is not None:
        line["componentHost"] = report.component_host.value
    os.write(sys.stdout.fileno(), msgspec.json.encode(line) + b"\n")


def _environment(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise UserError(f"{name} is not in the environment; the agent's pod has it from the downward API")
    return value


def _directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"--cache-dir {path}: {error.strerror}") from error
    return path

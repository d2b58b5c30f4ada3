"""`python -m tests.cluster`: see README.md beside this file."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tests.cluster import binaries, images, lifecycle, machine, parts, processes, running
from tests.cluster.console import ClusterError, say, step
from tests.cluster.paths import default_state_dir
from tests.cluster.running import Running


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="A real Kubernetes on this machine.")
    # NB: a default at both levels would make the inner one win over what was given at the outer
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument("--state-dir", type=Path, help=f"what belongs to the cluster (default: {default_state_dir()})")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, parents=[state])
        added.set_defaults(command=command)
        return added

    one = add("up", _up, "start it, or find it up; what a killed one left is cleared first")
    one.add_argument("--nodes", type=int, default=1, choices=range(lifecycle.MOST_NODES + 1), help="0 needs no root")
    one.add_argument(
        "--huge-pages",
        type=int,
        default=lifecycle.DEFAULT_HUGE_PAGES,
        help="of 2 MiB, of this machine, for all nodes together (default: %(default)s)",
    )
    one.add_argument("--controllers", action="store_true", help="with --nodes 0: controller manager and scheduler too")
    add("down", _down, "end it and give back what it took")
    add("status", _status, "what runs; exit code 1 unless all of it does")
    for name, command, text in (
        ("kill", _kill, "SIGKILL to one part, node-1/kubelet for example"),
        ("start", _start, "start a part that was killed"),
        ("power-off", _power_off, "cut a node's power"),
        ("power-on", _power_on, "boot a node whose power was cut"),
    ):
        add(name, command, text).add_argument("part")
    one = add("reach", _reach, "a port of this machine's loopback that leads to a pod or service; prints it")
    one.add_argument("host")
    one.add_argument("port", type=int)
    one.add_argument("--at", default="node-1", help="as seen from there (default: %(default)s)")
    add("kubeconfig", _kubeconfig, "print the path of an administrator's kubeconfig")
    for tool in ("kubectl", "helm"):
        one = add(tool, _tool, f"{tool} on this cluster: {tool} -- ARGUMENTS")
        one.add_argument("arguments", nargs=argparse.REMAINDER)
        one.set_defaults(tool=tool)
    one = add("enter", _enter, "run a command in the network of a node: enter [--at node-1] -- COMMAND")
    one.add_argument("--at", default="node-1", help="control-plane, node-1, ... (default: %(default)s)")
    one.add_argument("--all", action="store_true", help="enter its mounts and processes as well")
    one.add_argument("arguments", nargs=argparse.REMAINDER)
    one = add("build", _build, "make all binaries ready, and nothing else")
    one.add_argument("names", nargs="*", metavar="PROGRAM", help="these only, `kwok` for example")
    add("images", _images, "build the project's images and load them into the nodes of the cluster that is up, if any")
    one = add("context", _context, "write an image's build context into a new folder, for any builder of images")
    one.add_argument("image", choices=[image.name for image in images.IMAGES])
    one.add_argument("folder", type=Path)
    one = add("load", _load, "load an image archive (OCI or docker) into the nodes")
    one.add_argument("archive", type=Path)
    return parser


def _state_dir(options: argparse.Namespace) -> Path:
    chosen: Path | None = options.state_dir
    return chosen.absolute() if chosen else default_state_dir()


def _running(options: argparse.Namespace) -> Running:
    found = running.load(_state_dir(options))
    if found is None:
        raise ClusterError(f"no cluster is up in {_state_dir(options)}; `python -m tests.cluster up` starts one")
    return found


def _up(options: argparse.Namespace) -> int:
    made = lifecycle.up(
        _state_dir(options), nodes=options.nodes, huge_pages=options.huge_pages, controllers=options.controllers
    )
    say(f"export KUBECONFIG={made.kubeconfig}")
    return 0


def _down(options: argparse.Namespace) -> int:
    left = lifecycle.down(_state_dir(options))
    for line in left:
        say(f"left behind: {line}")
    return 1 if left else 0


def _status(options: argparse.Namespace) -> int:
    found = running.load(_state_dir(options))
    if found is None:
        print(f"no cluster is up in {_state_dir(options)}")
        for changes in machine.all_recorded():
            print(f"there is, or was, one with nodes in {changes.state_dir}; `down --state-dir` ends it")
        return 1
    print(f"{found.server}  {found.nodes} node(s)  {found.huge_pages} huge pages  {found.state_dir}")
    for process in sorted(processes.all_of(found.state_dir), key=lambda process: process.name):
        print(f"  {process.pid:>8}  {process.name:<40} {process.program}")
    dead = lifecycle.broken(found)
    for name in dead:
        print(f"  {'dead':>8}  {name}")
    return 1 if dead else 0


def _kill(options: argparse.Namespace) -> int:
    parts.kill(_running(options), options.part)
    return 0


def _start(options: argparse.Namespace) -> int:
    parts.start(_running(options), options.part)
    return 0


def _power_off(options: argparse.Namespace) -> int:
    parts.power_off(_running(options), options.part)
    return 0


def _power_on(options: argparse.Namespace) -> int:
    parts.power_on(_running(options), options.part)
    return 0


def _reach(options: argparse.Namespace) -> int:
    print(parts.reach(_running(options), options.host, options.port, at=options.at))
    return 0


def _kubeconfig(options: argparse.Namespace) -> int:
    print(_running(options).kubeconfig)
    return 0


def _tool(options: argparse.Namespace) -> NoReturn:
    found = _running(options)
    program = binaries.one(options.tool)
    _become([str(program), *_after_dashes(options.arguments)], dict(found.environment()))


def _enter(options: argparse.Namespace) -> NoReturn:
    held = lifecycle.namespace(_running(options), options.at)
    command = _after_dashes(options.arguments) or [os.environ.get("SHELL", "/bin/sh")]
    _become(held.enter(command, kinds="mpn" if options.all else "n"), dict(os.environ))


def _build(options: argparse.Namespace) -> int:
    names = options.names or (*binaries.names_for(1), *binaries.REGISTRY, "probe")
    for name, path in binaries.ready(names).paths.items():
        print(f"{name:<26} {path}")
    return 0


def _context(options: argparse.Namespace) -> int:
    (image,) = (image for image in images.IMAGES if image.name == options.image)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    images.fill_context(image, folder)
    print(folder)
    return 0


def _images(options: argparse.Namespace) -> int:
    found = running.load(_state_dir(options))
    for image in images.IMAGES:
        archive = images.build(image)
        if found is not None and found.nodes:
            with step(f"{image.reference} is on the nodes"):
                images.install(found, image)
        print(archive)
    return 0


def _load(options: argparse.Namespace) -> int:
    archive: Path = options.archive
    if not archive.is_file():
        raise ClusterError(f"{archive}: there is no such file")
    images.load(_running(options), archive.absolute())
    return 0


def _after_dashes(arguments: list[str]) -> list[str]:
    return arguments[1:] if arguments[:1] == ["--"] else arguments


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)  # noqa: S606 it is this tool's purpose


if __name__ == "__main__":
    sys.exit(main())

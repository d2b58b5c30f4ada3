"""`python -m demo`: plan, up, down. `make demo` and `make down` call it."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from demo import access, cluster, diagnosis, guests, plan, standalone
from demo.console import Console, StepError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 only if everything that was shown is so."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="wasmpool, shown from nothing to running guests."
    )
    parser.add_argument("command", choices=("plan", "up", "down"))
    parser.add_argument("--cluster", choices=("own", "existing"), default="own")
    parser.add_argument("--record", type=Path, help="write a plain-text capture of the cluster's part to this file")
    options = parser.parse_args(arguments)
    own: bool = options.cluster == "own"
    if options.command == "plan":
        sys.stdout.write(plan.plan_own_cluster() if own else plan.plan_existing_cluster(access.current_context()))
        return 0
    return _up(own=own, record=options.record) if options.command == "up" else _down(own=own)


def _up(*, own: bool, record: Path | None) -> int:
    console = Console(cwd=access.ROOT, path=(access.ROOT / ".venv" / "bin",), record=record)
    build = cluster.start_build() if own else None
    try:
        console.heading("1  The agent alone")
        guests.build_c_guests(guests.BUILD)
        standalone.show(console)

        console.heading("2  A real Kubernetes" if own else f"2  The cluster of context {access.current_context()}")
        if build is not None:
            console.say(
                "Its binaries have been in the making since the start; the first time this takes most of the demo."
            )
            cluster.finish_build(console, build)
            reached = cluster.boot(console)
        else:
            reached = access.existing_cluster()

        console.heading("3  wasmpool on it")
        try:
            cluster.install(console, reached)
            cluster.use(console, own=own)
        except StepError:
            diagnosis.diagnose(console)
            raise
    except StepError as failure:
        sys.stdout.flush()
        sys.stderr.write(f"\nThe demo stops here, because something is not as it should be:\n{failure}\n")
        sys.stderr.write("`make down` undoes what was done so far.\n")
        return 1
    finally:
        if build is not None and build.poll() is None:
            build.terminate()
            build.wait()
    console.heading("What to try next")
    console.say(_next_steps(reached))
    return 0


def _down(*, own: bool) -> int:
    if own:
        return subprocess.run([sys.executable, "-m", "tests.cluster", "down"], cwd=access.ROOT, check=False).returncode
    console = Console(cwd=access.ROOT, path=access.existing_cluster().path)
    try:
        console.shell("kubectl delete -f examples/ --ignore-not-found --wait --timeout=60s", timeout=90)
        time.sleep(1)
        console.shell(f"helm uninstall {access.RELEASE} --namespace {access.SYSTEM_NAMESPACE} --ignore-not-found")
    except StepError as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    console.say(
        "The three CRDs stay, because deleting them would delete everybody's pools: kubectl get crd | grep wasmpool.dev"
    )
    return 0


def _next_steps(reached: access.Access) -> str:
    tools = f"  {reached.exports}\n\n" if reached.exports else ""
    down = "make down" if reached.own else "make down CLUSTER=existing"
    patch = """'{"spec":{"moduleLimits":{"memoryPages":544}}}'"""
    return f"""{tools}\
  kubectl scale wasm ticker --replicas=5    # more slots for it, at once
  kubectl scale wasm ticker --replicas=40   # more than there are: read its SlotsReserved condition
  kubectl describe ipool small              # capacity, reservations, memory
  kubectl get ipnode -o yaml                # what the operator asks of a node, and what its agent answers
  kubectl patch ipool small --type merge -p {patch}
                                            # room for too-big's 512 pages and for its heap to grow: new slots,
                                            # so the agent is replaced, and then too-big runs
  kubectl delete ipool small                # the pages are free again: grep HugePages /proc/meminfo
  {down:<41} # undo all of it"""


if __name__ == "__main__":
    raise SystemExit(main())

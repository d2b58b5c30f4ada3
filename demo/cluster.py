"""Second act: a real Kubernetes with wasmpool on it, and what its user sees. Every fact is checked."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from demo.access import RELEASE, ROOT, SYSTEM_NAMESPACE, Access, own_cluster
from demo.console import Console, StepError
from demo.host import huge_pages
from demo.standalone import guest_output

BUILD_LOG: Final = ROOT / ".out" / "demo" / "build.log"
POOL_HUGE_PAGES: Final = 16
_SLOTS_RESERVED: Final = 5
"""Three of ticker, two of web."""
_WANTED_CONDITIONS: Final = (
    ("hello", "Finished", "True"),
    ("mandelbrot", "Finished", "True"),
    ("ticker", "Ready", "True"),
    ("too-big", "Admitted", "False"),
    ("web", "Ready", "True"),
)
_AGENT: Final = "wasmpool-small"
_ADDRESS: Final = "kubectl get service web -o jsonpath={.spec.clusterIP}"
_ASK: Final = (
    'import sys, urllib.request; print(urllib.request.urlopen(f"http://{sys.argv[1]}/from/the/demo").read().decode())'
)
_AGENTS: Final = "-l wasmpool.dev/pool=small"
_SELECT_POOL: Final = "-l wasmpool.dev/pool=small --tail=-1"


def start_build() -> subprocess.Popen[bytes]:
    """Builds the cluster's binaries beside the first act; its output goes to BUILD_LOG."""
    BUILD_LOG.parent.mkdir(parents=True, exist_ok=True)
    with BUILD_LOG.open("wb") as log:
        return subprocess.Popen(
            # NB: nice, because the first act runs beside it
            [
                "nice",
                "bash",
                "-c",
                f"scripts/install-system-packages.sh && exec {sys.executable} -m tests.cluster build",
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish_build(console: Console, build: subprocess.Popen[bytes]) -> None:
    """Waits for it, with its last line as progress. Raises StepError where it failed."""
    shown = ""
    while build.poll() is None:
        last = _last_line(BUILD_LOG)
        if last != shown:
            console.say(f"  {last}")
            shown = last
        time.sleep(2)
    if build.returncode != 0:
        tail = "\n".join(BUILD_LOG.read_text(errors="replace").splitlines()[-30:])
        raise StepError(
            f"the cluster's binaries could not be made (exit code {build.returncode}), {BUILD_LOG}:\n{tail}"
        )
    console.checked("the cluster's binaries are there")


def boot(console: Console) -> Access:
    """Boots control plane and node, brings the images to it, and makes the console speak to it."""
    console.say("$ python -m tests.cluster up && python -m tests.cluster images")
    reached = own_cluster()
    use_access(console, reached)
    console.say(reached.exports)
    console.shell(
        "kubectl get nodes -o custom-columns='NODE:.metadata.name,VERSION:.status.nodeInfo.kubeletVersion,"
        "HUGE PAGES:.status.allocatable.hugepages-2Mi'"
    )
    return reached


def use_access(console: Console, reached: Access) -> None:
    """Commands of the console go to that cluster from here on."""
    console.path = (*reached.path, *console.path)
    console.environment = reached.environment


def install(console: Console, reached: Access) -> None:
    """The chart and nothing else."""
    tags = " ".join(f"--set-string {name}.image.tag={tag}" for name, tag in sorted(reached.tags.items()))
    console.shell(
        f"helm upgrade --install {RELEASE} charts/wasmpool --namespace {SYSTEM_NAMESPACE} --create-namespace {tags}",
        timeout=180,
    )
    console.shell(f"kubectl -n {SYSTEM_NAMESPACE} rollout status deployment --timeout=120s", timeout=150)
    console.checked("one operator, three kinds, and the policies that hold agents to their own node")


def clear(console: Console) -> None:
    """Removes what an earlier demo left of the examples, so that what is shown is this one's. Waits for the pages."""
    if not console.shell("kubectl get -f examples/ --ignore-not-found -o name", show=False).strip():
        return
    console.say("An earlier demo's examples are there. They go first:")
    console.shell("kubectl delete -f examples/ --ignore-not-found --wait --timeout=90s", timeout=120)
    gone = f"kubectl get pods -A {_AGENTS} -o name"
    _wait_for("the agents to end", lambda: not console.shell(gone, show=False).strip())


def use(console: Console, *, own: bool) -> None:
    """Applies the examples and shows what became of each."""
    clear(console)
    before = huge_pages()
    console.recording(True)
    if own:
        console.shell("grep HugePages_Free /proc/meminfo")
    console.shell("kubectl apply -f examples/")
    console.shell("kubectl wait --for=condition=Ready ipool/small --timeout=120s", timeout=150)
    if own:
        console.shell("grep HugePages_Free /proc/meminfo")
        fell = before.free - huge_pages().free
        if fell != POOL_HUGE_PAGES:
            raise StepError(f"HugePages_Free was to fall by {POOL_HUGE_PAGES}, it fell by {fell}")
        console.checked(
            f"the node's HugePages_Free fell by {fell}, from {before.free} to {before.free - fell}: the region"
        )
    for name, condition, status in _WANTED_CONDITIONS:
        _wait_for(
            f"wasm/{name} to have {condition}={status}", partial(_has_condition, console, name, condition, status)
        )
    _wait_for(
        "ipool/small to hold no slot for workloads that have finished",
        lambda: _status(console, "ipool/small").get("slots", {}).get("reserved") == _SLOTS_RESERVED,
    )
    _check_statuses(console)

    console.shell("kubectl get ipool,ipnode,wasm -A")
    console.checked(
        "hello finished twice, mandelbrot once, ticker runs three times, web is ready, "
        "too-big was refused and holds no slot"
    )

    console.say("\nWhat the guests printed is in the agent's log, a line each, as JSON with the workload's name:")
    out = console.shell(f'kubectl logs {_SELECT_POOL} | grep \'"workload":"hello".*"stream"\'')
    _expect(out.count("hello, wasmpool, from a slot") == 2, "hello's greeting twice in the log", out)
    out = console.shell(guest_output("mandelbrot", f"kubectl logs {_SELECT_POOL}"))
    _expect("####" in out and len(out.splitlines()) >= 21, "mandelbrot's picture in the log", out)
    console.say("web answers requests behind a Service; here the agent itself asks it, for it is a pod like any other:")
    out = console.shell(f"kubectl exec ds/{_AGENT} -- python3 -c '{_ASK}' $({_ADDRESS})")
    _expect("hello from a slot: /from/the/demo" in out, "web's answer", out)
    console.say("Why does too-big not run?")
    out = console.shell(
        'kubectl get wasm too-big -o jsonpath=\'{.status.conditions[?(@.type=="Admitted")].message}{"\\n"}\''
    )
    _expect("512" in out and "32" in out, "the refusal to name 512 wanted and 32 allowed pages", out)
    console.recording(False)


def _check_statuses(console: Console) -> None:
    hello = _status(console, "wasm/hello")
    _expect(hello.get("instances", {}).get("succeeded") == 2, "hello to have succeeded twice", hello)
    slots = _status(console, "ipool/small").get("slots", {})
    _expect(
        slots.get("free") == slots.get("allocatable", 0) - slots.get("reserved", 0),
        "free = allocatable - reserved",
        slots,
    )
    refused = _status(console, "wasm/too-big")
    _expect(refused.get("instances", {}).get("reserved") == 0, "too-big to hold no slot", refused)


def _status(console: Console, name: str) -> dict[str, Any]:
    loaded = json.loads(console.shell(f"kubectl get {name} -o json", show=False))
    status: dict[str, Any] = loaded.get("status", {})
    return status


def _has_condition(console: Console, workload: str, kind: str, status: str) -> bool:
    conditions = _status(console, f"wasm/{workload}").get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == status for condition in conditions)


def _wait_for(what: str, is_so: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise StepError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)


def _expect(is_so: bool, what: str, seen: object) -> None:
    if not is_so:
        raise StepError(f"expected {what}; seen: {seen}")


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1].strip()[:110] if lines else ""

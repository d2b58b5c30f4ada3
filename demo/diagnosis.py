"""What to look at when a step of the demo failed: printed at once, so that nobody has to ask for it."""

from typing import Final

from demo.access import SYSTEM_NAMESPACE
from demo.console import Console, StepError

_LOOK_AT: Final = (
    "kubectl get nodes -o wide",
    "kubectl get pods -A -o wide",
    "kubectl get ipool,ipnode,wasm -A -o wide",
    'kubectl get ipool,ipnode,wasm -A -o jsonpath=\'{range .items[*]}{.kind} {.metadata.name}{"\\n"}'
    '{range .status.conditions[*]}    {.type}={.status} {.reason}: {.message}{"\\n"}{end}{end}\'',
    "kubectl get events -A --sort-by=.lastTimestamp | tail -30",
    f"kubectl logs -n {SYSTEM_NAMESPACE} deployment/wasmpool-operator --all-containers --tail=40",
    "kubectl logs -l wasmpool.dev/pool=small --all-containers --tail=40 --prefix",
    "grep -i hugepages /proc/meminfo",
)


def diagnose(console: Console) -> None:
    """Runs every command of the list, whether or not those before it worked."""
    console.heading("What the cluster looks like now")
    for command in _LOOK_AT:
        console.say(f"$ {command}")
        try:
            _, out, err = console.run(["bash", "-c", command], timeout=30)
        except StepError as failure:
            console.say(str(failure))
            continue
        console.say(out + err)

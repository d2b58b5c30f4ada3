"""The demo's own behaviour: it runs commands as they are shown, and stops at the first thing that is not so.

Covers: the console's commands, exit codes, timeouts and record; the second act against a kubectl that lies or fails.
"""

import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from demo import cluster, guests
from demo.console import Console, StepError


def test_command_runs_as_it_is_shown_and_its_output_is_returned(tmp_path: Path) -> None:
    shown = io.StringIO()
    with redirect_stdout(shown):
        out = Console(cwd=tmp_path).shell("printf 'a\\nb\\n' | tail -1")
    assert out == "b\n"
    assert shown.getvalue().startswith("$ printf 'a\\nb\\n' | tail -1\nb\n")


def test_failure_anywhere_in_a_pipe_stops_the_demo_and_says_what_was_printed(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"(?s)`\(echo reason; exit 3\) \| cat` left with exit code 3.*reason"):
        Console(cwd=tmp_path).shell("(echo reason; exit 3) | cat", show=False)


def test_command_that_was_to_fail_and_does_not_stops_the_demo(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="exit code 0, 1 was expected"):
        Console(cwd=tmp_path).shell("true", expect=1, show=False)


def test_command_that_hangs_stops_the_demo(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="did not end within"):
        Console(cwd=tmp_path).shell("sleep 30", timeout=0.2, show=False)


def test_record_holds_commands_and_output_of_the_recorded_part_alone(tmp_path: Path) -> None:
    record = tmp_path / "record.txt"
    with redirect_stdout(io.StringIO()):
        console = Console(cwd=tmp_path, record=record)
        console.shell("echo before")
        console.recording(True)
        console.say("a sentence")
        console.shell("echo within")
        console.recording(False)
        console.shell("echo after")
    assert record.read_text() == "$ echo within\nwithin\n\n"


def test_guests_that_do_not_fit_into_a_config_map_are_not_packed() -> None:
    with pytest.raises(guests.GuestBuildError, match="1048577 bytes, a ConfigMap holds 1048576"):
        guests.config_map({"large.wasm": bytes(1024 * 1024 + 1)})


def test_compiler_that_refuses_a_guest_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(guests.GuestBuildError, match="no-such-guest"):
        guests.build_c_guest(guests.Guest("no-such-guest"), tmp_path / "out.wasm")


def _condition(kind: str, status: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "message": message}


def _kubectl(tmp_path: Path, statuses: dict[str, dict[str, Any]], logs: str) -> Path:
    """A kubectl that answers from a table, so that each lie can be told alone."""
    (tmp_path / "logs").write_text(logs)
    for name, status in statuses.items():
        (tmp_path / name.replace("/", "_")).write_text(json.dumps({"status": status}))
    refusal = next((one["message"] for one in statuses["wasm/too-big"]["conditions"] if one["type"] == "Admitted"), "")
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\n"
        f"cd {tmp_path}\n"
        'case "$*" in\n'
        "logs*) cat logs ;;\n"
        "exec*) echo hello from a slot: /from/the/demo ;;\n"
        f"*jsonpath*) echo {json.dumps(refusal)} ;;\n"
        '"get wasm/"*|"get ipool/"*) cat "${2/\\//_}" ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    return program.parent


def _logs() -> str:
    picture = ["." * 64] * 20 + ["." * 30 + "####" + "." * 30]
    said = [("hello", "hello, wasmpool, from a slot")] * 2 + [("mandelbrot", line) for line in picture]
    return "".join(
        json.dumps({"workload": workload, "stream": "stdout", "message": message}, separators=(",", ":")) + "\n"
        for workload, message in said
    )


def _truth() -> dict[str, dict[str, Any]]:
    refusal = "memory 0 needs 512 pages, pool small allows 32"
    return {
        "wasm/hello": {"conditions": [_condition("Finished", "True")], "instances": {"succeeded": 2}},
        "wasm/mandelbrot": {"conditions": [_condition("Finished", "True")]},
        "wasm/ticker": {"conditions": [_condition("Ready", "True")]},
        "wasm/too-big": {"conditions": [_condition("Admitted", "False", refusal)], "instances": {"reserved": 0}},
        "wasm/web": {"conditions": [_condition("Ready", "True")]},
        "ipool/small": {"slots": {"allocatable": 16, "reserved": 5, "free": 11}},
    }


def _use(tmp_path: Path, statuses: dict[str, dict[str, Any]], logs: str) -> str:
    shown = io.StringIO()
    with redirect_stdout(shown):
        cluster.use(Console(cwd=tmp_path, path=[_kubectl(tmp_path, statuses, logs)]), own=False)
    return shown.getvalue()


def test_second_act_shows_the_refusal_and_the_guests_output_when_all_is_so(tmp_path: Path) -> None:
    shown = _use(tmp_path, _truth(), _logs())
    assert "memory 0 needs 512 pages, pool small allows 32" in shown
    assert "####" in shown
    assert os.environ["PATH"], "the console leaves the test's environment alone"


@pytest.mark.parametrize(
    ("name", "status", "complaint"),
    [
        ("wasm/hello", {"instances": {"succeeded": 1}}, "hello to have succeeded twice"),
        ("ipool/small", {"slots": {"allocatable": 16, "reserved": 5, "free": 16}}, "free = allocatable - reserved"),
        ("wasm/too-big", {"instances": {"reserved": 1}}, "too-big to hold no slot"),
    ],
)
def test_second_act_stops_at_a_status_that_is_not_so(
    tmp_path: Path, name: str, status: dict[str, Any], complaint: str
) -> None:
    statuses = _truth()
    statuses[name] |= status
    with pytest.raises(StepError, match=complaint):
        _use(tmp_path, statuses, _logs())


def test_second_act_stops_where_a_guest_printed_nothing(tmp_path: Path) -> None:
    only_hello = "".join(line + "\n" for line in _logs().splitlines() if "hello" in line)
    with pytest.raises(StepError, match="mandelbrot's picture"):
        _use(tmp_path, _truth(), only_hello)


def test_second_act_stops_where_the_refusal_has_no_numbers(tmp_path: Path) -> None:
    statuses = _truth()
    statuses["wasm/too-big"]["conditions"] = [_condition("Admitted", "False", "the module is too big")]
    with pytest.raises(StepError, match="512 wanted and 32 allowed"):
        _use(tmp_path, statuses, _logs())

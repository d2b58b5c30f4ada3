"""What on-demand, and so every allocator, does not pass of the spec test-suite: a table, checked in and exact.

python -m tests.conformance.not_passed           prints the table as it is now
python -m tests.conformance.not_passed --write   writes it to not_passed.toml
python -m tests.conformance.not_passed --count   how many commands pass, and why the others don't
"""

import argparse
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.conformance.pools import BASELINE, SIZES, open_pool
from tests.conformance.running import PASSED, SKIPPED, run_script
from tests.conformance.scripts import Step, steps
from tests.conformance.testsuite import names, script

FILE: Final = Path(__file__).with_suffix(".toml")
SUPERSEDED: Final = "superseded"
_HEADER: Final = """\
# What no allocator passes of the WebAssembly spec test-suite, and why. The tests fail when this is not exact.
# Made by `python -m tests.conformance.not_passed --write`.
#
# A proposal's name: the engine refuses modules of it by name, as the agent does; how many commands of each script.
# "larger than a slot": modules that the pool's limits do not admit.
# superseded: what a proposal's own copy of a script expected before a later proposal changed the standard. By line.
# The standard's scripts, wasm-latest, are not in it.
"""


class NotPassed(msgspec.Struct, frozen=True):
    """Of one script. `skipped`: commands by reason; `superseded`: by line, what happened instead."""

    skipped: dict[str, int]
    superseded: dict[str, str]

    @classmethod
    def of(cls, script_steps: Sequence[Step], outcomes: Sequence[str]) -> "NotPassed":
        """`outcomes`: of its steps."""
        skipped = Counter(outcome.removeprefix(SKIPPED) for outcome in outcomes if outcome.startswith(SKIPPED))
        wrong = {
            str(step.line): outcome
            for step, outcome in zip(script_steps, outcomes, strict=True)
            if outcome != PASSED and not outcome.startswith(SKIPPED)
        }
        return cls(dict(sorted(skipped.items())), wrong)


def listed() -> dict[str, NotPassed]:
    """The table, by script."""
    content = tomllib.loads(FILE.read_text("utf-8"))
    superseded: dict[str, dict[str, str]] = content.pop(SUPERSEDED)
    found = {name: NotPassed({}, lines) for name, lines in superseded.items()}
    for reason in sorted(content):
        for name, count in content[reason].items():
            found.setdefault(name, NotPassed({}, {})).skipped[reason] = count
    return found


def as_toml(found: Iterable[tuple[str, NotPassed]]) -> str:
    """Only scripts that don't pass whole have a line."""
    skipped: dict[str, list[str]] = {}
    wrong: list[str] = []
    for name, not_passed in found:
        for reason, count in not_passed.skipped.items():
            skipped.setdefault(reason, []).append(f"{json.dumps(name)} = {count}\n")
        if not_passed.superseded:
            wrong.append(f"\n[{SUPERSEDED}.{json.dumps(name)}]\n")
            wrong += [f"{line} = {json.dumps(outcome)}\n" for line, outcome in not_passed.superseded.items()]
    parts = [_HEADER]
    for reason, lines in sorted(skipped.items()):
        parts += [f"\n[{json.dumps(reason)}]\n", *lines]
    return "".join(parts + wrong)


def _now() -> Iterator[tuple[str, int, NotPassed]]:
    """Of each script: its name, how many commands it has, what does not pass."""
    with open_pool(BASELINE, SIZES) as pool:
        for name in names():
            script_steps = list(steps(script(name)))
            yield name, len(script_steps), NotPassed.of(script_steps, run_script(pool, script_steps))


def _count() -> str:
    found = list(_now())
    reasons: Counter[str] = Counter()
    for _, _, not_passed in found:
        reasons.update(not_passed.skipped)
        reasons[SUPERSEDED] += len(not_passed.superseded)
    commands = sum(count for _, count, _ in found)
    total = f"{commands - reasons.total()} of {commands} commands of {len(found)} scripts pass"
    return "\n".join((total, *(f"{count:8}  {reason}" for reason, count in reasons.most_common())))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--count", action="store_true")
    chosen = parser.parse_args()
    if chosen.count:
        print(_count())
        return
    table = as_toml((name, not_passed) for name, _, not_passed in _now())
    if chosen.write:
        FILE.write_text(table, "utf-8")
    else:
        print(table, end="")


if __name__ == "__main__":
    main()

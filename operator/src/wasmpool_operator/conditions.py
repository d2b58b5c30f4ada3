"""Conditions as metav1 and kstatus mean them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from wasmpool_api.meta import Condition

MESSAGE_MAX_LENGTH = 1024


class Truth(StrEnum):
    """status of a condition. UNKNOWN is not FALSE: it says that nobody knows yet."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, value: bool) -> "Truth":
        """TRUE or FALSE."""
        return cls.TRUE if value else cls.FALSE


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition should say now."""

    type: str
    truth: Truth
    reason: str
    message: str = ""


def merged(
    before: Sequence[Condition], findings: Sequence[Finding], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions to publish: those of `findings` alone; a time is kept for as long as the status stays."""
    known = {condition.type: condition for condition in before}
    result: list[Condition] = []
    for finding in findings:
        old = known.get(finding.type)
        same = old is not None and old.status == finding.truth and old.last_transition_time
        message = finding.message
        if len(message) > MESSAGE_MAX_LENGTH:
            message = message[: MESSAGE_MAX_LENGTH - 3] + "..."
        result.append(
            Condition(
                type=finding.type,
                status=finding.truth.value,
                reason=finding.reason,
                message=message,
                last_transition_time=old.last_transition_time if old is not None and same else rfc3339(now),
                observed_generation=generation,
            )
        )
    return tuple(result)


def condition_of(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of that type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def rfc3339(moment: datetime) -> str:
    """Whole seconds in UTC, as metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str, now: datetime) -> float:
    """Seconds from an RFC 3339 time until `now`; 0 where there is no such time."""
    try:
        return max(0.0, (now - datetime.fromisoformat(text)).total_seconds())
    except ValueError:
        return 0.0

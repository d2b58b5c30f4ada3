"""Why nothing was pulled, as exceptions that carry their data.

Exception
+-- ReferenceInvalidError       what was given is no reference
+-- SettingsInvalidError        of a registry
+-- CredentialsInvalidError     a Secret's document can't be read
+-- PullError
    +-- NotFoundError           the registry has no such thing, or hides it
    +-- UnauthorizedError       these credentials may not pull it
    +-- DigestMismatchError     the bytes are not what their digest or size says
    +-- TooLargeError           more than is allowed
    +-- ArtifactInvalidError    it holds no module, or several
    +-- RejectedError           another answer that is no success
    +-- UnreachableError        no answer, or one that says: not now
        +-- AddressForbiddenError   where it is, nothing is ever asked
        +-- TooSlowError            bytes come, and too few
"""

from collections.abc import Sequence
from typing import Final

MOST_SHOWN: Final = 300


class ReferenceInvalidError(Exception):
    """The message has what was given and what is allowed."""

    def __init__(self, given: str, problem: str) -> None:
        super().__init__(f"{shown(given)!r} is no image reference: {problem}")
        self.given = given


class SettingsInvalidError(Exception):
    """The message names the registry and the field."""


class CredentialsInvalidError(Exception):
    """`source`: which Secret. Neither the message nor a cause has any of its content."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source


class PullError(Exception):
    """`temporary`: the same request may work later. `status`: of the HTTP answer, if there was one.

    `retry_after`: seconds that the registry asked to wait.
    """

    temporary: bool = False

    def __init__(
        self,
        message: str,
        *,
        temporary: bool | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.temporary = type(self).temporary if temporary is None else temporary
        self.status = status
        self.retry_after = retry_after


class NotFoundError(PullError):
    """The registry has no such thing, or does not say that it has."""


class UnauthorizedError(PullError):
    """These credentials may not pull it, or none did."""


class DigestMismatchError(PullError):
    """The bytes are not what their digest or their size says."""


class TooLargeError(PullError):
    """More than is allowed; the message has both figures."""


class ArtifactInvalidError(PullError):
    """It holds no module, or several, or can't be read."""


class RejectedError(PullError):
    """Another answer that is no success."""


class UnreachableError(PullError):
    """No answer, or one that says: not now."""

    temporary = True


class AddressForbiddenError(UnreachableError):
    """Where it is, nothing is ever asked."""

    temporary = False


class TooSlowError(UnreachableError):
    """Bytes come, and so few that others need not wait for them."""


def shown(text: str, most: int = MOST_SHOWN) -> str:
    """What somebody else wrote, for a person: short, on one line, and without control characters."""
    cut = text[: most + 1]
    safe = " ".join("".join(char if char.isprintable() else " " for char in cut).split())
    return safe if len(text) <= most else safe[: most - 1] + "…"


def all_of(errors: Sequence[PullError], decisive: PullError) -> PullError:
    """One error of the decisive one's kind that says what each said. It is temporary if one of them is."""
    if len(errors) == 1:
        return errors[0]
    return type(decisive)(
        "; ".join(str(error) for error in errors),
        temporary=any(error.temporary for error in errors),
        status=decisive.status,
        retry_after=decisive.retry_after,
    )

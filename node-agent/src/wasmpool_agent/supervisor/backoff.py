"""How long to wait before the next try."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first_seconds` to `most_seconds`."""

    first_seconds: float
    most_seconds: float

    def seconds(self, failures: int) -> float:
        """After so many failures in a row; 0 after none."""
        if failures <= 0:
            return 0.0
        # NB: bounded before it is raised: 2 ** 10000 is no float.
        return float(min(self.most_seconds, self.first_seconds * 2 ** min(failures - 1, 60)))


RESTARTS = Backoff(first_seconds=1.0, most_seconds=300.0)
"""Of instances. The kubelet's goes from 10 s to 5 min; an instance starts in microseconds, so 1 s is long enough."""
RESTARTS_FORGIVEN_AFTER_SECONDS = 600.0
"""A run of this length forgets the failures before it, as with the kubelet."""
PULLS = Backoff(first_seconds=1.0, most_seconds=60.0)
"""Of modules that are missing or broken. A minute at most: whoever mends one is waiting for it."""
REGISTRY_LOOKS = Backoff(first_seconds=5.0, most_seconds=300.0)
"""At an image that was refused: its tag may have moved, but public registries count who asks."""
REGION = Backoff(first_seconds=2.0, most_seconds=60.0)
WORKERS = Backoff(first_seconds=0.5, most_seconds=60.0)
API = Backoff(first_seconds=0.5, most_seconds=30.0)

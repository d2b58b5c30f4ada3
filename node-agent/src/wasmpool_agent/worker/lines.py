"""Standard output and error of guests, as lines that say whose they are."""

from datetime import UTC, datetime

import msgspec

from wasmpool_agent.worker.output import Backlog, LineStream, LogLine, LogWriter, rfc3339


class Lines:
    """Makes the streams of all guests of a worker."""

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._encoder = msgspec.json.Encoder()

    def streams(
        self, workload: str, revision: str, instance: int, index: int | None = None
    ) -> tuple[LineStream, LineStream]:
        """Of one instance. `workload`: namespace/name."""
        namespace, _, name = workload.rpartition("/")
        backlog = Backlog()

        def stream(which: str) -> LineStream:
            def line(message: str, partial: bool) -> LogLine:
                return LogLine(
                    time=rfc3339(datetime.now(UTC)),
                    namespace=namespace,
                    workload=name,
                    revision=revision,
                    instance=instance,
                    index=index,
                    stream=which,
                    message=message,
                    partial=partial,
                )

            return LineStream(self._log, backlog, line, self._encoder)

        return stream("stdout"), stream("stderr")

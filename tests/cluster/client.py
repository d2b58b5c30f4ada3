"""The Kubernetes API over HTTP, for tests that make hundreds of calls: a kubectl costs 100 ms, this 2."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias, cast
from urllib.parse import urlencode, urlsplit

Object: TypeAlias = dict[str, Any]


class ApiError(Exception):
    """The API server said no. `message` is its Status' message, `causes` the fields that it names, and what it says."""

    def __init__(self, code: int, status: Object) -> None:
        details: Object = status.get("details") or {}
        self.code = code
        self.reason: str = status.get("reason", "")
        self.message: str = status.get("message", "")
        self.causes: list[tuple[str, str]] = [
            (cause.get("field", ""), cause.get("message", ""))
            for cause in cast("list[Object]", details.get("causes") or [])
        ]
        super().__init__(f"{code} {self.reason}: {self.message}")


@dataclass(frozen=True)
class Credentials:
    """Where an API server is, what signed its certificate, and who is asking."""

    server: str
    ca: Path
    token: str


class Client:
    """One keep-alive connection, a context manager that closes it. Not for use by two threads at once."""

    def __init__(self, credentials: Credentials, *, timeout: float = 30) -> None:
        self.credentials = credentials
        address = urlsplit(credentials.server)
        self._connection = http.client.HTTPSConnection(
            address.hostname or "",
            address.port,
            timeout=timeout,
            context=ssl.create_default_context(cafile=str(credentials.ca)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent; the next call connects again."""
        self._connection.close()

    def get(self, path: str, **query: str) -> Object:
        """Raises ApiError, as all of these do."""
        return self.call("GET", path, query=query)

    def create(self, path: str, body: Object, **query: str) -> Object:
        """POST to a collection's path; what the server stored."""
        return self.call("POST", path, body, query=query)

    def replace(self, path: str, body: Object, **query: str) -> Object:
        """PUT to an object's path."""
        return self.call("PUT", path, body, query=query)

    def apply(self, path: str, body: Object, *, manager: str = "tests", force: bool = True) -> Object:
        """Server-side apply to an object's path."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        return self.call("PATCH", path, body, query=query, content_type="application/apply-patch+yaml")

    def merge(self, path: str, body: Object) -> Object:
        """JSON merge patch of an object."""
        return self.call("PATCH", path, body, content_type="application/merge-patch+json")

    def delete(self, path: str, **query: str) -> Object:
        """DELETE; a collection's path deletes all of it."""
        return self.call("DELETE", path, query=query)

    def text(self, path: str) -> str:
        """GET of something that is not an object: /readyz, /metrics, a log."""
        code, payload = self._exchange("GET", path, None, {})
        if code >= 400:
            raise ApiError(code, _status(payload))
        return payload.decode()

    def call(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Any request. Raises ApiError, and OSError or http.client.HTTPException where nobody answers."""
        target = f"{path}?{urlencode(query)}" if query else path
        payload = None if body is None else json.dumps(body).encode()
        code, answer = self._exchange(method, target, payload, {"Content-Type": content_type})
        if code >= 400:
            raise ApiError(code, _status(answer))
        found: Object = json.loads(answer)
        return found

    def _exchange(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        sent = {**headers, "Accept": "application/json", "Authorization": f"Bearer {self.credentials.token}"}
        reused = self._connection.sock is not None
        try:
            return self._once(method, target, body, sent)
        except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
            self.close()
            if not reused:
                raise
            # NB: the server may close an idle connection at any time; on a fresh one its silence means something
            return self._once(method, target, body, sent)
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def _once(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self._connection.request(method, target, body, dict(headers))
        response = self._connection.getresponse()
        return response.status, response.read()


def _status(payload: bytes) -> Object:
    try:
        found = json.loads(payload)
    except ValueError:
        return {"message": payload.decode(errors="replace")}
    return cast("Object", found) if isinstance(found, dict) else {"message": str(found)}

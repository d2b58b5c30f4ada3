"""A client of the API server that is as thin as can be: JSON over HTTP through `kubectl proxy`, which does the rest."""

import http.client
import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from wasmpool_api.meta import API_VERSION, PLURALS

Object: TypeAlias = dict[str, Any]
NAMESPACE = "default"


@dataclass(frozen=True)
class Refused:
    """The API server's answer to what it does not take."""

    code: int
    message: str
    causes: tuple[tuple[str, str], ...]
    """(field, message), as kubectl prints them."""

    def says(self, text: str) -> bool:
        """Whether a cause, or the message, contains it."""
        return text in self.message or any(text in message for _, message in self.causes)


@dataclass(frozen=True)
class Api:
    """Where `kubectl proxy` listens."""

    port: int

    def request(self, method: str, path: str, body: Object | None = None, content: str = "json") -> Object | Refused:
        """One request; an answer of 4xx is returned as Refused, not raised."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Content-Type": f"application/{content}"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            got: Object = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status < 400:
            return got
        causes = tuple((it.get("field", ""), it["message"]) for it in (got.get("details") or {}).get("causes", ()))
        return Refused(answer.status, got["message"], causes)

    def create(self, manifest: Object, *, dry_run: bool = False) -> Object | Refused:
        """Creates it as `kubectl create` would: a field that is not in the schema is an error."""
        options = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.request("POST", collection(manifest["kind"]) + options, manifest)

    def patch(self, kind: str, name: str, patch: Object, subresource: str = "") -> Object | Refused:
        """A merge patch."""
        return self.request("PATCH", one(kind, name, subresource), patch, "merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        """Gone, or was never there."""
        self.request("DELETE", one(kind, name))


def collection(kind: str) -> str:
    """Path of all objects of that kind in the tests' namespace."""
    return f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURALS[kind]}"


def one(kind: str, name: str, subresource: str = "") -> str:
    """Path of one object, or of a subresource of it."""
    return f"{collection(kind)}/{name}" + (f"/{subresource}" if subresource else "")


def taken(answer: Object | Refused) -> Object:
    """The object; an AssertionError with the complaint where it was refused."""
    assert not isinstance(answer, Refused), f"{answer.message}"
    return answer


def refused(answer: Object | Refused) -> Refused:
    """The refusal; an AssertionError where it was taken."""
    assert isinstance(answer, Refused), f"this should have been refused: {json.dumps(answer)[:500]}"
    return answer

"""What the API server's refusals mean to the operator: try again, plan anew, or say that it won't do."""

import json

import pytest

from wasmpool_operator.kube import error_of
from wasmpool_operator.ports import ClusterError, Conflict, NotServedYet, Refused, Unavailable

NO_MAPPING = (
    'serviceaccounts "wasmpool-small" is forbidden: cannot set blockOwnerDeletion in this case because cannot find '
    "RESTMapping for APIVersion wasmpool.dev/v1alpha1 Kind InstancePool"
)
UNKNOWN_FIELD = (
    "failed to create typed patch object (team/wasmpool-web; apps/v1, Kind=DaemonSet): "
    ".spec.template.spec.affinity.oops: field not declared in schema"
)


@pytest.mark.parametrize(
    ("status", "message", "meaning"),
    [
        (409, "the object has been modified", Conflict),
        (422, "spec.selector: field is immutable", Refused),
        (403, "User cannot patch resource", Refused),
        (403, NO_MAPPING, NotServedYet),
        (429, "too many requests", Unavailable),
        (500, UNKNOWN_FIELD, Refused),
        (500, "internal error", Unavailable),
        (503, "etcd has no leader", Unavailable),
        (418, "a teapot", ClusterError),
    ],
)
def test_each_refusal_has_one_meaning(status: int, message: str, meaning: type[ClusterError]) -> None:
    found = error_of("PATCH /x", status, json.dumps({"kind": "Status", "message": message}).encode())
    assert type(found) is meaning
    assert str(found) == f"PATCH /x: {status}: {message}"


def test_an_answer_that_is_no_status_is_shown_as_it_is() -> None:
    assert error_of("GET /x", 502, b"<html>bad gateway</html>").message == "<html>bad gateway</html>"

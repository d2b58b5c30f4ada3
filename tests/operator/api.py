"""A small HTTP client for the API server: kubeconfig in, dicts out. Nothing of the operator's own is used."""

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

_GROUPS = {
    "InstancePool": ("/apis/wasmpool.dev/v1alpha1", "instancepools"),
    "InstancePoolNode": ("/apis/wasmpool.dev/v1alpha1", "instancepoolnodes"),
    "WasmWorkload": ("/apis/wasmpool.dev/v1alpha1", "wasmworkloads"),
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "Pod": ("/api/v1", "pods"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "ControllerRevision": ("/apis/apps/v1", "controllerrevisions"),
    "Service": ("/api/v1", "services"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
}


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Every call is one request; `namespace` is empty for what has none."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = next(it["context"] for it in config["contexts"] if it["name"] == config["current-context"])
        cluster = next(it["cluster"] for it in config["clusters"] if it["name"] == context["cluster"])
        user = next(it["user"] for it in config["users"] if it["name"] == context["user"])
        self._server = str(cluster["server"]).rstrip("/")
        self._headers = {"Accept": "application/json"}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        self._ssl = _ssl_context(cluster, user)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        try:
            return self.request("GET", self.path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """All that match."""
        query = f"?labelSelector={urllib.request.quote(selector)}" if selector else ""
        items: list[Object] = self.request("GET", self.path(kind, namespace) + query)["items"]
        return items

    def create(self, manifest: Object) -> Object:
        """As kubectl create."""
        metadata = manifest["metadata"]
        return self.request("POST", self.path(manifest["kind"], metadata.get("namespace", "")), manifest)

    def patch(self, kind: str, namespace: str, name: str, change: Object, subresource: str = "") -> Object:
        """JSON merge patch."""
        path = self.path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, change, "application/merge-patch+json")

    def apply(self, manifest: Object) -> Object:
        """Server-side apply."""
        metadata = manifest["metadata"]
        path = self.path(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
        return self.request("PATCH", f"{path}?fieldManager=tests&force=true", manifest, "application/apply-patch+yaml")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """At once, without a grace period; gone already is as good."""
        try:
            self.request("DELETE", self.path(kind, namespace, name), {"gracePeriodSeconds": 0})
        except ApiError as error:
            if error.status != 404:
                raise

    def path(self, kind: str, namespace: str = "", name: str = "") -> str:
        """URL path."""
        root, plural = _GROUPS[kind]
        return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}" + (f"/{name}" if name else "")

    def request(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        """One request. Raises ApiError."""
        request = urllib.request.Request(  # noqa: S310 - the kubeconfig's own server
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=self._headers | {"Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=self._ssl, timeout=30) as response:  # noqa: S310
                answer: Object = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise ApiError(error.code, text[:600]) from None


def _ssl_context(cluster: Object, user: Object) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"),
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = user.get("client-certificate"), user.get("client-key")
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile("wb", suffix=".pem") as file:
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.write(base64.b64decode(user["client-key-data"]))
            file.flush()
            context.load_cert_chain(file.name)
    elif certificate:
        context.load_cert_chain(certificate, key)
    return context

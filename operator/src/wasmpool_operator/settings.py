"""kopf's settings, each with the reason where its default would hurt."""

import concurrent.futures
import logging

import kopf

from wasmpool_api.meta import GROUP, MANAGED_BY
from wasmpool_operator.cache import SELECTORS
from wasmpool_operator.resources import DAEMON_SETS, ENDPOINT_SLICES, NETWORK_POLICIES, PODS, SERVICES


def kopf_settings() -> kopf.OperatorSettings:
    """For an operator that only listens: with `on.event` handlers alone kopf writes nothing to any object."""
    settings = kopf.OperatorSettings()
    _set_persistence(settings)
    _set_network(settings)
    settings.posting.enabled = False  # no Events for our log lines
    settings.posting.loggers = False
    settings.posting.level = logging.WARNING
    settings.posting.reporting_component = MANAGED_BY
    settings.queueing.exit_timeout = 5
    settings.process.ultimate_exiting_timeout = 25  # default 600: longer than any grace period
    settings.background.cancellation_polling = 5
    settings.execution.executor = concurrent.futures.ThreadPoolExecutor(1, "kopf-sync")  # no handler is sync
    settings.scanning.disabled = True  # no right to watch CRDs or to list namespaces for their own sake is needed
    settings.peering.standalone = True  # one leader by our own Lease: equal peers would pause each other
    return settings


def _set_persistence(settings: kopf.OperatorSettings) -> None:
    # Without effect while only on.event handlers exist; set so that a later one can't meet another operator's marks.
    storage = settings.persistence
    storage.finalizer = f"{GROUP}/kopf"
    storage.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}", v1=False)
    storage.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{GROUP}", v1=False)


def _set_network(settings: kopf.OperatorSettings) -> None:
    settings.networking.connect_timeout = 5  # default: none
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 4, 8)
    settings.networking.enforce_retry_after = True
    settings.networking.trust_env = True  # as the client that writes: both must take the same route
    settings.watching.connect_timeout = 5
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 630
    settings.watching.reconnect_backoff = 1.0
    settings.watching.inactivity_timeout = 70.0  # bookmarks come every 60 s; below 62 it flaps
    settings.watching.chunk_size = 500
    for resource in (PODS, DAEMON_SETS, SERVICES, ENDPOINT_SLICES, NETWORK_POLICIES):
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = SELECTORS[resource]

"""For every test: the clusters as fixtures, and Hypothesis without deadlines, for a machine may be busy."""

from hypothesis import settings

from tests.cluster.fixtures import api_server, api_server_with_controllers, can_have_nodes, cluster

__all__ = ["api_server", "api_server_with_controllers", "can_have_nodes", "cluster"]

settings.register_profile("wasmpool", deadline=None)
settings.load_profile("wasmpool")

"""For every test: the clusters as fixtures, and Hypothesis without deadlines, for a machine may be busy."""

import os

from hypothesis import settings

from tests.cluster.fixtures import api_server, api_server_with_controllers, can_have_nodes, cluster

__all__ = ["api_server", "api_server_with_controllers", "can_have_nodes", "cluster"]

# In CI the same examples each time, so that a change is judged by itself; by hand new ones, which find what is left.
settings.register_profile("wasmpool", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("wasmpool")

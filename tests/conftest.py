"""Fixtures for every test: the clusters."""

from tests.cluster.fixtures import api_server, api_server_with_controllers

__all__ = ["api_server", "api_server_with_controllers"]

"""InstancePools: the agents that serve them, the nodes they are on, and their status."""

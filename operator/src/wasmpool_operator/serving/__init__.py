"""What http workloads are reached by: ports of the pool, Services, EndpointSlices and NetworkPolicies."""

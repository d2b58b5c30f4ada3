"""The wasmpool operator: kopf as informer, a keyed queue, and observe, plan, apply for each InstancePool."""

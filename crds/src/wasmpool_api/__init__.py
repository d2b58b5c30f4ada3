"""The wasmpool.dev/v1alpha1 API as Python types and pure functions.

Nothing in this package does I/O, reads a clock or starts a thread; import-linter holds it to that.

    quantities, sizes      what a size is, in bytes, pages and slots
    limits                 RFC ModuleLimits and InstanceLimits, componentLimits
    instance_pool, instance_pool_node, wasm_workload, revisions    the kinds, field for field
    codec                  dict -> type -> dict, with errors that name the field
    wasm                   inspection of a binary: what it needs
    admission              needs against limits: the verdict with every violation
    suggestion             the smallest limits that admit given modules
    region                 slots, region bytes and overhead of a pool
    placement              which slots of which node a workload holds
"""

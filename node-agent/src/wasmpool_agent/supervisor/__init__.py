"""The process that holds the region, the API token and the status, and never loads Wasmtime.

ports       what it needs from outside: the desired state, modules, a place for its status
backoff     how long to wait before the next try
cpus        how many CPUs this process may use
promises    which assignments are accepted, given the slots there are (pure)
runs        which instances of one workload to start and stop, and when (pure)
journal     which indexes were begun and how they ended, durably
claims      one assignment: how far it has come, and how that looks in the status (pure)
preparing   revision -> module -> verdict -> compiled code
reserving   engine probe, region, slot table
workers     the worker processes
instances   starts and stops what workers run
state       what is known, shared by the three below
claiming    claims as the assignments are, prepared in tasks (resuming: where an earlier process left one)
reporting   status, probes, figures
service     all of it together
"""

"""A real Kubernetes on this machine, for the tests and the demo: `python -m tests.cluster`.

Layers, lowest first; each imports only from those above it:

    paths, console              where things are kept, and what is said while something takes long
    binaries, gobuild           the programs of a cluster: found, or built from Go modules
    processes, namespaces       processes that are found again after anything was killed
    machine, network, cgroups   what is changed on this machine, and how it is given back
    certificates, client        trust, and the API over HTTP
    control_plane, node         command lines and configuration of the parts
    running                     what tests and commands do with a cluster that is up
    lifecycle, parts            up, down, status; what tests of failures do
    images                      the project's Containerfiles on a base of our own
    fixtures                    all of it for pytest
"""

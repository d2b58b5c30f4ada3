"""Modules out of OCI registries. Only `transport` opens connections, only `parts` writes files.

client        RegistryClient: resolve a tag, prove a right to pull, fetch a module
asking        one question to mirrors and registry, with each credential, again after a while
auth          what a registry wants to see: Basic, or a token of its token service
transport     one HTTP request with its redirects, by the registry's settings
transfer      a layer into its part; parts: what is not whole yet, locked, hashed, gone on from
layers, tar   the one .wasm file of a plain image
reference, settings, credentials, manifest, addresses, proxies, challenge: pure
"""

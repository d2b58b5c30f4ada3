"""Modules: where they come from, what is kept of them on disk.

sources      a revision's module and environment, through the ConfigMaps port
inspecting   what can be said of a module before it is compiled (pure)
store        modules and compiled code on disk, by digest and key
"""

"""The demo: wasmpool shown from nothing to running guests, with every step checked."""

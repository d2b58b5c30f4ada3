module wasmpool.dev/tests/pause

go 1.26.0

module wasmpool.dev/tests/files

go 1.23

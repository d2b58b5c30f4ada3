module wasmpool.dev/tests/clock

go 1.23

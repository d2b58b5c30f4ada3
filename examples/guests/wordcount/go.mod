module wasmpool.dev/examples/wordcount

go 1.21

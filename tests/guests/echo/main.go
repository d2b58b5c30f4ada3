// Answers GET with a few bytes and POST with what it was sent: upstream Go, whose functions of the host are written by
// hand, as no generator of them is used. Built by tests/bench/web_guests.py.
package main

import "unsafe"

//go:wasmimport wasi:http/types@0.2.12 [constructor]fields
func newFields() int32

//go:wasmimport wasi:http/types@0.2.12 [constructor]outgoing-response
func newResponse(fields int32) int32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-response.body
func responseBody(response int32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-body.write
func bodyWrite(body int32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [static]outgoing-body.finish
func bodyFinish(body, some, trailers int32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [static]response-outparam.set
func set(out, failed, response, a int32, b int64, c, d, e, f int32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.method
func requestMethod(request int32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.consume
func consume(request int32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-body.stream
func bodyStream(body int32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-body
func dropBody(body int32)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-request
func dropRequest(request int32)

//go:wasmimport wasi:io/streams@0.2.12 [method]input-stream.blocking-read
func read(stream int32, most int64, to unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.blocking-write-and-flush
func write(stream int32, data unsafe.Pointer, length int32, to unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]input-stream
func dropInput(stream int32)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]output-stream
func dropOutput(stream int32)

var result [64]byte
var space [65536 / 8]uint64

// NB: a collection reads clocks, and no function of the host may be called from here. So nothing is allocated: this
// program has one list of the host's at a time, of which it asks for no more than there is space.
//
//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	if size > uint32(unsafe.Sizeof(space)) {
		panic("more than was asked for")
	}
	return unsafe.Pointer(&space)
}

func at() unsafe.Pointer { return unsafe.Pointer(&result[0]) }

func handle32() int32 {
	if result[0] != 0 {
		panic("an error")
	}
	return *(*int32)(unsafe.Pointer(&result[4]))
}

func writeAll(stream int32, data []byte) {
	for len(data) > 0 {
		some := min(len(data), 4096)
		write(stream, unsafe.Pointer(&data[0]), int32(some), at())
		if result[0] != 0 {
			return
		}
		data = data[some:]
	}
}

//go:wasmexport wasi:http/incoming-handler@0.2.12#handle
func handle(request, out int32) {
	response := newResponse(newFields())
	responseBody(response, at())
	body := handle32()
	set(out, 0, response, 0, 0, 0, 0, 0, 0)
	bodyWrite(body, at())
	stream := handle32()
	requestMethod(request, at())
	if result[0] == 2 {
		consume(request, at())
		incoming := handle32()
		bodyStream(incoming, at())
		input := handle32()
		for {
			read(input, 65536, at())
			if result[0] != 0 {
				break
			}
			length := *(*uint32)(unsafe.Pointer(&result[8]))
			writeAll(stream, unsafe.Slice((*byte)(unsafe.Pointer(&space)), length))
		}
		dropInput(input)
		dropBody(incoming)
	} else {
		writeAll(stream, []byte("hello\n"))
	}
	dropOutput(stream)
	bodyFinish(body, 0, 0, at())
	dropRequest(request)
}

func main() {}

"""A worker: one process that runs guests, all of them on one thread, and speaks to the supervisor over one socket.

    __main__    the process: its arguments, its hardening, its end
    service     messages in, messages out
    artifacts   compiled modules, verified, loaded and linked
    instance    one run of one guest, from slot to wipe
    scheduler   which guest may run next, and for how long
    ticker      the thread whose ticks end a guest's time slice
    output      what guests write, as lines of JSON on standard output

Guests run as futures of wasmtime's asynchronous C API under one asyncio loop. A guest that waits costs nothing, one
that computes gives way at every tick, and any of them ends by dropping its future.
"""

;; Writes the pattern 0x5e over its whole memory, reads it back, and says so. Exit code 0 only if every byte holds it.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 32)
  (func (export "_start") (local $at i32)
    (memory.fill (i32.const 0) (i32.const 0x5e) (i32.const 2097152))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0x5e5e5e5e5e5e5e5e)) (then (call $proc_exit (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 2097152))))
    ;; the last act leaves the message and its iovec in memory; all the rest still is the secret
    (i64.store (i32.const 64) (i64.const 0x0a6e657474697277)) ;; "written\n"
    (i32.store (i32.const 80) (i32.const 64))
    (i32.store (i32.const 84) (i32.const 8))
    (drop (call $fd_write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 96)))
    (call $proc_exit (i32.const 0))))

;; Reads its whole memory before it writes anything. "only zeros" and exit code 0, or "not zero" and exit code 1.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 32)
  (func (export "_start") (local $at i32) (local $found i64)
    (loop $next
      (local.set $found (i64.or (local.get $found) (i64.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 2097152))))
    (if (i64.eqz (local.get $found))
      (then
        (i64.store (i32.const 64) (i64.const 0x72657a20796c6e6f))  ;; "only zer"
        (i32.store (i32.const 72) (i32.const 0x0a736f)))           ;; "os\n"
      (else
        (i64.store (i32.const 64) (i64.const 0x72657a20746f6e20))  ;; " not zer"
        (i32.store (i32.const 72) (i32.const 0x0a216f))))          ;; "o!\n"
    (i32.store (i32.const 80) (i32.const 64))
    (i32.store (i32.const 84) (i32.const 11))
    (drop (call $fd_write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 96)))
    (call $proc_exit (i64.ne (local.get $found) (i64.const 0)))))

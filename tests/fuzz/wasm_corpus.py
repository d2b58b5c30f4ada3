"""Modules to start from: each says what must be counted in it. Written as text; turned into binaries by Wasmtime."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime

from wasmpool_api.wasm import Feature

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "build"


@dataclass(frozen=True)
class Sample:
    """`needs`: what ModuleNeeds says where it is not 0; `features` likewise."""

    text: str
    needs: dict[str, Any] = field(default_factory=dict[str, Any])
    features: tuple[Feature, ...] = ()

    @property
    def binary(self) -> bytes:
        """The module."""
        return bytes(wasmtime.wat2wasm(self.text))


SAMPLES: dict[str, Sample] = {
    "nothing": Sample("(module)"),
    "a command": Sample(
        """(module
          (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 2 17)
          (table 5 10 funcref)
          (global (mut i32) (i32.const -1)) (global i64 (i64.const 123456789012)) (global f64 (f64.const 1.5))
          (elem (i32.const 0) func 0 1 2)
          (data (i32.const 8) "hello, world")
          (func (export "_start") (call 0 (i32.const 3)))
          (func (param i32) (result i32) (i32.add (local.get 0) (i32.const 1))))""",
        {
            "imported_functions": 2,
            "types": 4,
            "functions": 2,
            "tables": 1,
            "table_elements": 5,
            "memories": 1,
            "memory_pages": 2,
            "globals": 3,
        },
    ),
    "imports of all kinds": Sample(
        """(module (import "a" "f" (func)) (import "a" "t" (table 3 funcref)) (import "a" "m" (memory 4 9))
          (import "a" "g" (global i32)) (import "b" "h" (global (mut f32))) (global i32 (global.get 0)))""",
        {
            "types": 1,
            "imported_functions": 1,
            "imported_tables": 1,
            "imported_memories": 1,
            "imported_globals": 2,
            "globals": 1,
        },
    ),
    "imports of one module": Sample(
        """(module (import "a" (item "f" (func)) (item "t" (table 3 funcref)) (item "m" (memory 4 9)))
          (import "b" "h" (global i32)))""",
        {"types": 1, "imported_functions": 1, "imported_tables": 1, "imported_memories": 1, "imported_globals": 1},
    ),
    "imports of one type": Sample(
        """(module (import "a" (item "f") (item "g") (item "h") (func (param i32)))
          (import "a" (item "t") (item "u") (table 3 funcref)) (import "a" (item "m") (memory 4 9)))""",
        {"types": 1, "imported_functions": 3, "imported_tables": 2, "imported_memories": 1},
    ),
    "a start function": Sample("(module (func) (start 0))", {"types": 1, "functions": 1}),
    "passive data": Sample(
        '(module (memory 1) (data "a") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))))',
        {"types": 1, "functions": 1, "memories": 1, "memory_pages": 1},
    ),
    "a full memory": Sample("(module (memory 65536))", {"memories": 1, "memory_pages": 65536}),
    "an empty memory": Sample("(module (memory 0))", {"memories": 1}),
    "a full table": Sample("(module (table 4294967295 funcref))", {"tables": 1, "table_elements": 2**32 - 1}),
    "several memories": Sample(
        "(module (memory 1) (memory 7) (memory 3))", {"memories": 3, "memory_pages": 7}, (Feature.MULTI_MEMORY,)
    ),
    "an imported memory and one of its own": Sample(
        '(module (import "a" "m" (memory 9)) (memory 2))',
        {"imported_memories": 1, "memories": 1, "memory_pages": 2},
        (Feature.MULTI_MEMORY,),
    ),
    "several tables": Sample("(module (table 1 funcref) (table 8 funcref))", {"tables": 2, "table_elements": 8}),
    "a shared memory": Sample(
        "(module (memory 1 2 shared))", {"memories": 1, "memory_pages": 1}, (Feature.SHARED_MEMORY,)
    ),
    "a 64-bit memory": Sample(
        "(module (memory i64 3 281474976710656))", {"memories": 1, "memory_pages": 3}, (Feature.MEMORY64,)
    ),
    "the largest 64-bit memory": Sample(
        "(module (memory i64 281474976710656))", {"memories": 1, "memory_pages": 2**48}, (Feature.MEMORY64,)
    ),
    "a 64-bit table": Sample(
        "(module (table i64 1 2 funcref))", {"tables": 1, "table_elements": 1}, (Feature.MEMORY64,)
    ),
    "a 64-bit table of more than JSON can say": Sample(
        "(module (table i64 18446744073709551615 funcref))",
        {"tables": 1, "table_elements": 2**63 - 1},
        (Feature.MEMORY64,),
    ),
    "pages of a byte": Sample(
        "(module (memory 65537 4294967295 (pagesize 1)))",
        {"memories": 1, "memory_pages": 2},
        (Feature.CUSTOM_PAGE_SIZES,),
    ),
    "pages of the usual size, said": Sample(
        "(module (memory 2 (pagesize 65536)))", {"memories": 1, "memory_pages": 2}, (Feature.CUSTOM_PAGE_SIZES,)
    ),
    "an imported shared memory": Sample(
        '(module (import "a" "m" (memory 1 2 shared)))', {"imported_memories": 1}, (Feature.SHARED_MEMORY,)
    ),
    "vectors": Sample(
        "(module (global v128 (v128.const i64x2 1 2)) (func (param v128)))",
        {"types": 1, "functions": 1, "globals": 1},
        (Feature.SIMD,),
    ),
    "host references": Sample(
        "(module (table 1 externref) (global externref (ref.null extern)))",
        {"tables": 1, "table_elements": 1, "globals": 1},
        (Feature.EXTERN_REF,),
    ),
    "function references in a global": Sample(
        "(module (global funcref (ref.func 0)) (func))", {"types": 1, "functions": 1, "globals": 1}
    ),
    "a table with an initial value": Sample(
        "(module (func) (table 1 1 (ref null func) (ref.func 0)))",
        {"types": 1, "functions": 1, "tables": 1, "table_elements": 1},
        (Feature.FUNCTION_REFERENCES,),
    ),
    "typed references": Sample(
        "(module (type $t (func)) (func (param (ref null $t) (ref $t))))",
        {"types": 2, "functions": 1},
        (Feature.FUNCTION_REFERENCES,),
    ),
    "a recursion group": Sample(
        "(module (rec (type (struct)) (type (func)) (type (array i8))) (type (func (param i32))))",
        {"types": 4},
        (Feature.GC,),
    ),
    "an empty recursion group": Sample("(module (rec) (type (func)))", {"types": 1}, (Feature.GC,)),
    "subtypes": Sample(
        "(module (type $a (sub (struct (field i32)))) (type (sub final $a (struct (field i32) (field (mut i16))))))",
        {"types": 2},
        (Feature.GC,),
    ),
    "objects in globals": Sample(
        """(module (type $a (array i32)) (type $s (struct (field i64)))
          (global i31ref (ref.i31 (i32.const 1)))
          (global (ref $a) (array.new_fixed $a 2 (i32.const 1) (i32.const 2)))
          (global (ref $s) (struct.new $s (i64.const 1)))
          (global (ref $s) (struct.new_default $s))
          (global anyref (any.convert_extern (ref.null extern))))""",
        {"types": 2, "globals": 5},
        (Feature.EXTERN_REF, Feature.FUNCTION_REFERENCES, Feature.GC),
    ),
    "exceptions": Sample(
        '(module (type (func (param i32))) (import "a" "t" (tag (type 0))) (global exnref (ref.null exn)))',
        {"types": 1, "globals": 1},
        (Feature.EXCEPTIONS,),
    ),
    "a tag of its own": Sample(
        "(module (tag (param i32)) (memory 1) (global i32 (i32.const 0)))",
        {"types": 1, "globals": 1, "memories": 1, "memory_pages": 1},
        (Feature.EXCEPTIONS,),
    ),
    "continuations": Sample("(module (type $f (func)) (type (cont $f)))", {"types": 2}, (Feature.STACK_SWITCHING,)),
    "arithmetic in a constant": Sample(
        """(module (import "a" "g" (global i32))
          (global i32 (i32.add (global.get 0) (i32.mul (i32.const 2) (i32.const 3)))))""",
        {"imported_globals": 1, "globals": 1},
    ),
}


def all_features() -> wasmtime.Config:
    """Wasmtime with every proposal that it knows."""
    config = wasmtime.Config()
    for name in dir(config):
        if name.startswith("wasm_"):
            setattr(config, name, True)
    return config


def binaries() -> dict[str, bytes]:
    """The samples, and real programs."""
    made = {name: sample.binary for name, sample in SAMPLES.items()}
    return made | {path.name: path.read_bytes() for path in sorted(EXAMPLES.glob("*.wasm"))}

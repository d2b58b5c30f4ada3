"""Components to start from: each says what it imports and what it makes. Written as text, like the modules."""

import random
from dataclasses import dataclass

import wasmtime

from tests.fuzz.component_generator import Generator
from tests.fuzz.section_trees import Tree
from wasmpool_api.wasm import Feature


@dataclass(frozen=True)
class ComponentSample:
    """`makes`: core instances, memories, tables. `imports`: name, sort and functions. `adapters`: see below.

    `adapters`: core instances that Wasmtime adds, one for each pair of components that call each other. `runs`: whether
    Wasmtime takes it; it has no values, no components from the host and no other proposals that are still open.
    """

    text: str
    makes: tuple[int, int, int] = (0, 0, 0)
    imports: tuple[tuple[str, str, int], ...] = ()
    features: tuple[Feature, ...] = ()
    adapters: int = 0
    runs: bool = True

    @property
    def binary(self) -> bytes:
        """The component."""
        return bytes(wasmtime.wat2wasm(self.text))


def doubling(levels: int) -> str:
    """A component that makes 2^levels core instances: each level instantiates the one before twice."""
    text = ["(component $c0 (core module $m (memory 1)) (core instance (instantiate $m)))"]
    for level in range(1, levels + 1):
        inner = f"(alias outer 1 $c{level - 1} (component $inner))"
        text.append(f"(component $c{level} {inner} (instance (instantiate $inner)) (instance (instantiate $inner)))")
    return f"(component {' '.join(text)} (instance (instantiate $c{levels})))"


MODULE = '(core module $m (memory (export "memory") 2) (table 3 funcref) (func (export "f") (result i32) i32.const 7))'

COMPONENTS: dict[str, ComponentSample] = {
    "nothing": ComponentSample("(component)"),
    "a module that nobody instantiates": ComponentSample(f"(component {MODULE})"),
    "a module": ComponentSample(f"(component {MODULE} (core instance (instantiate $m)))", (1, 1, 1)),
    "a module three times": ComponentSample(
        f"(component {MODULE} {'(core instance (instantiate $m))' * 3})", (3, 3, 3)
    ),
    "modules wired to each other": ComponentSample(
        """(component
          (core module $libc (memory (export "memory") 4) (table (export "table") 5 funcref)
          (global (export "g") i32 (i32.const 0))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
          (core module $main (import "libc" "memory" (memory 1)) (import "libc" "table" (table 1 funcref))
            (import "libc" "g" (global i32)) (import "libc" "realloc" (func (param i32 i32 i32 i32) (result i32)))
            (import "host" "now" (func (result i64))) (func (export "run")))
          (import "wasi:clocks/monotonic-clock@0.2.3" (instance $clock (export "now" (func (result u64)))))
          (core instance $libc (instantiate $libc))
          (alias export $clock "now" (func $now))
          (core func $now (canon lower (func $now)))
          (core instance $host (export "now" (func $now)))
          (core instance $main (instantiate $main (with "libc" (instance $libc)) (with "host" (instance $host))))
          (func (export "run") (canon lift (core func $main "run"))))""",
        (2, 1, 1),
        (("wasi:clocks/monotonic-clock@0.2.3", "Instance", 1),),
    ),
    "interfaces of several versions": ComponentSample(
        """(component
          (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
          (alias export $error "error" (type $error))
          (import "wasi:io/streams@0.2.1" (instance
            (alias outer 1 $error (type $outer)) (export "error" (type (eq $outer)))
            (export "output-stream" (type $stream (sub resource)))
            (type $v (variant (case "last" u8) (case "closed"))) (export "stream-error" (type $e (eq $v)))
            (type $flush (func (param "self" (borrow $stream)) (result (result (error $e)))))
            (export "[method]output-stream.flush" (func (type $flush)))
            (type $check (func (param "self" (borrow $stream)) (result u64)))
            (export "[method]output-stream.check" (func (type $check)))))
          (import "wasi:cli/exit@0.3.0-rc-2026-01-01" (instance (export "exit" (func (param "code" u8)))))
          (import "plain" (func (param "names" (list string)) (result (tuple u8 char))))
          (import "handle" (type (sub resource)))
          (type $t (record (field "x" f32) (field "y" (option bool))))
          (import "point" (type (eq $t))))""",
        imports=(
            ("wasi:io/error@0.2.0", "Instance", 0),
            ("wasi:io/streams@0.2.1", "Instance", 2),
            ("wasi:cli/exit@0.3.0-rc-2026-01-01", "Instance", 1),
            ("plain", "Function", 1),
            ("handle", "Type", 0),
        ),
    ),
    "types of every kind": ComponentSample(
        """(component
          (type (record (field "a" bool) (field "b" s8))) (type (variant (case "a" u8) (case "b")))
          (type (list s16)) (type (tuple u16 s32 u32)) (type (flags "a" "b")) (type (enum "a" "b"))
          (type (option s64)) (type (result)) (type (result u64)) (type (result (error f32)))
          (type (result f64 (error char)))
          (type $r (resource (rep i32))) (type (own $r)) (type (borrow $r)) (type string)
          (type (func)) (type (func (param "a" string) (result 0)))
          (core type (func (param i32 i64 f32 f64) (result i32)))
          (core type $m (module (type (func)) (alias outer 1 0 (type)) (import "a" "b" (func (type 0)))
            (import "a" "m" (memory 1 2)) (export "t" (table 1 funcref)) (export "g" (global (mut i32)))))
          (type (component (import "a" (func)) (type $u u8) (import "b" (type (eq $u))) (export "c" (instance))))
          (type (instance (export "f" (func)) (core type (func)) (type (list u8))
            (export "m" (core module (type $m))))))""",
    ),
    "a nested component": ComponentSample(
        f"(component (component $c {MODULE} (core instance (instantiate $m))) (instance (instantiate $c)))", (1, 1, 1)
    ),
    "a nested component that nobody instantiates": ComponentSample(
        f"(component (component $c {MODULE} (core instance (instantiate $m))))"
    ),
    "a nested component three times": ComponentSample(
        f"""(component (component $c {MODULE} (core instance (instantiate $m)) (core instance (instantiate $m)))
          {"(instance (instantiate $c))" * 3})""",
        (6, 6, 6),
    ),
    "doubling": ComponentSample(doubling(5), (32, 32, 0)),
    "a module as an argument": ComponentSample(
        f"""(component {MODULE}
          (component $c (import "m" (core module $m (export "f" (func (result i32))))) (core instance (instantiate $m))
            (core instance (instantiate $m)))
          (instance (instantiate $c (with "m" (core module $m)))))""",
        (2, 2, 2),
    ),
    "different modules as arguments": ComponentSample(
        """(component (core module $small (memory 1)) (core module $large (memory 9) (table 2 funcref)
          (table 7 funcref))
          (component $c (import "m" (core module $m)) (core instance (instantiate $m)))
          (instance (instantiate $c (with "m" (core module $small))))
          (instance (instantiate $c (with "m" (core module $large))))
          (instance (instantiate $c (with "m" (core module $large)))))""",
        (3, 3, 4),
    ),
    "a component as an argument": ComponentSample(
        f"""(component
          (component $one {MODULE} (core instance (instantiate $m)))
          (component $twice (import "c" (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))
          (instance (instantiate $twice (with "c" (component $one)))))""",
        (2, 2, 2),
    ),
    "a module out of an instance": ComponentSample(
        f"""(component
          (component $c {MODULE} (export "m" (core module $m)))
          (instance $i (instantiate $c))
          (alias export $i "m" (core module $m))
          (core instance (instantiate $m)))""",
        (1, 1, 1),
    ),
    "an instance of exports as an argument": ComponentSample(
        f"""(component {MODULE}
          (component $c (import "i" (instance $i (export "n" (instance (export "m" (core module))))))
            (alias export $i "n" (instance $n)) (alias export $n "m" (core module $m)) (core instance (instantiate $m)))
          (instance $n (export "m" (core module $m)))
          (instance $i (export "n" (instance $n)))
          (instance (instantiate $c (with "i" (instance $i)))))""",
        (1, 1, 1),
    ),
    "outer aliases over three levels": ComponentSample(
        f"""(component $top {MODULE}
          (component $a
            (component $b
              (component $c (alias outer $top $m (core module $m)) (core instance (instantiate $m)))
              (instance (instantiate $c)) (instance (instantiate $c)))
            (instance (instantiate $b)) (alias outer $top $m (core module $m)) (core instance (instantiate $m)))
          (instance (instantiate $a)) (instance (instantiate $a)))""",
        (6, 6, 6),
    ),
    "captured by a component that goes elsewhere": ComponentSample(
        """(component
          (component $maker (import "m" (core module $m))
            (component $made (alias outer 1 $m (core module $m)) (core instance (instantiate $m)))
            (export "made" (component $made)))
          (core module $one (memory 1)) (core module $two (table 1 funcref))
          (instance $a (instantiate $maker (with "m" (core module $one))))
          (instance $b (instantiate $maker (with "m" (core module $two))))
          (alias export $a "made" (component $x)) (alias export $b "made" (component $y))
          (instance (instantiate $x)) (instance (instantiate $y)) (instance (instantiate $y)))""",
        (3, 1, 2),
    ),
    "exports take indexes": ComponentSample(
        """(component
          (core module $a (memory 1)) (component $c (core module $m (table 1 funcref)) (core instance (instantiate $m)))
          (export $a2 "a" (core module $a)) (core instance (instantiate $a2)) (core instance (instantiate 1))
          (instance $i (instantiate $c)) (export "i" (instance $i)) (instance (export "j" (instance 1))))""",
        (3, 2, 1),
    ),
    "components that call each other": ComponentSample(
        """(component
          (component $callee (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func (export "f") (canon lift (core func $i "f"))))
          (component $caller (import "f" (func $f)) (core func $f (canon lower (func $f)))
            (core module $m (import "" "f" (func)) (func (export "g") (call 0)))
            (core instance $i (instantiate $m (with "" (instance (export "f" (func $f))))))
            (func (export "g") (canon lift (core func $i "g"))))
          (instance $callee (instantiate $callee))
          (instance $caller (instantiate $caller (with "f" (func $callee "f"))))
          (export "g" (func $caller "g")))""",
        (2, 0, 0),
        adapters=1,
    ),
    "resources": ComponentSample(
        """(component
          (import "r" (type $r (sub resource))) (core func $drop (canon resource.drop $r))
          (type $own (resource (rep i32))) (core func (canon resource.new $own)) (core func (canon resource.rep $own))
          (core module $m (import "" "drop" (func (param i32))))
            (core instance (instantiate $m (with "" (instance (export "drop" (func $drop)))))))""",
        (1, 0, 0),
        (("r", "Type", 0),),
    ),
    "a module from the host": ComponentSample(
        '(component (import "m" (core module $m)) (core instance (instantiate $m)))',
        (1, 0, 0),
        (("m", "CoreModule", 0),),
    ),
    "a component from the host": ComponentSample(
        '(component (import "c" (component $c)) (instance $i (instantiate $c)) (export "i" (instance $i)))',
        imports=(("c", "Component", 0),),
        runs=False,
    ),
    "an instance within an instance from the host": ComponentSample(
        """(component (import "a" (instance
          (type (instance (export "f" (func)) (export "g" (func)))) (export "x" (instance (type 0)))
          (export "y" (instance (type 0))) (export "h" (func)))))""",
        imports=(("a", "Instance", 5),),
    ),
    "an instance whose type comes out of another": ComponentSample(
        """(component
          (import "a" (instance $a (type (instance (export "f" (func)) (export "g" (func))))
          (export "t" (type (eq 0)))))
          (alias export $a "t" (type $t))
          (import "b" (instance (type $t))))""",
        imports=(("a", "Instance", 0), ("b", "Instance", 2)),
        runs=False,
    ),
    "asynchronous functions": ComponentSample(
        """(component
          (import "f" (func $f async (result u32)))
          (core module $libc (memory (export "memory") 1)) (core instance $libc (instantiate $libc))
          (core func (canon lower (func $f) async (memory (core memory $libc "memory")))))""",
        (1, 1, 0),
        (("f", "Function", 1),),
        (Feature.COMPONENT_ASYNC,),
    ),
    "streams and futures": ComponentSample(
        """(component
          (core module $libc (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
          (core instance $libc (instantiate $libc))
          (alias core export $libc "memory" (core memory $memory))
          (alias core export $libc "realloc" (core func $realloc))
          (type $s (stream u8)) (type $f (future))
          (core func (canon stream.new $s)) (core func (canon stream.read $s (memory $memory)))
          (core func (canon stream.write $s async (memory $memory)))
          (core func (canon stream.cancel-read $s)) (core func (canon stream.cancel-write $s))
          (core func (canon stream.drop-readable $s))
          (core func (canon stream.drop-writable $s))
          (core func (canon future.new $f)) (core func (canon future.read $f (memory $memory)))
          (core func (canon future.write $f (memory $memory)))
          (core func (canon future.cancel-read $f)) (core func (canon future.cancel-write $f))
          (core func (canon future.drop-readable $f))
          (core func (canon future.drop-writable $f))
          (core func (canon task.return (result u32))) (core func (canon task.cancel))
          (core func (canon subtask.cancel)) (core func (canon subtask.drop))
          (core func (canon context.get i32 0)) (core func (canon context.set i32 0)) (core func (canon thread.yield))
          (core func (canon backpressure.inc)) (core func (canon backpressure.dec))
          (core func (canon waitable-set.new)) (core func (canon waitable-set.wait (memory $memory)))
          (core func (canon waitable-set.poll (memory $memory)))
          (core func (canon waitable-set.drop)) (core func (canon waitable.join)))""",
        (1, 1, 0),
        features=(Feature.COMPONENT_ASYNC,),
    ),
    "error contexts": ComponentSample(
        """(component
          (core module $libc (memory (export "memory") 1)) (core instance $libc (instantiate $libc))
          (core func (canon error-context.new (memory (core memory $libc "memory"))))
            (core func (canon error-context.drop)) (type error-context))""",
        (1, 1, 0),
        features=(Feature.COMPONENT_ERROR_CONTEXT,),
        runs=False,
    ),
    "threads": ComponentSample(
        "(component (core func (canon thread.index)) (core func (canon thread.available_parallelism)))",
        features=(Feature.COMPONENT_THREADS,),
        runs=False,
    ),
    "lists of a fixed length": ComponentSample(
        "(component (type (list u8 4)))", features=(Feature.COMPONENT_FIXED_LENGTH_LISTS,), runs=False
    ),
    "maps": ComponentSample("(component (type (map string u32)))", features=(Feature.COMPONENT_MAPS,)),
    "a value": ComponentSample(
        '(component (import "v" (value $v u32)) (export "w" (value $v)))',
        imports=(("v", "Value", 0),),
        features=(Feature.COMPONENT_VALUES,),
        runs=False,
    ),
    "a name of its own for an interface": ComponentSample(
        '(component (import "backup" (implements "a:b/store@1.2.3") (instance (export "get" (func)))))',
        imports=(("a:b/store@1.2.3", "Instance", 1),),
        features=(Feature.COMPONENT_IMPLEMENTS,),
    ),
    "a 64-bit memory and a shared one": ComponentSample(
        """(component (core module $m (memory i64 1)) (core module $n (memory 1 2 shared))
          (core instance (instantiate $m)))""",
        (1, 1, 0),
        features=(Feature.MEMORY64, Feature.SHARED_MEMORY),
    ),
    "core types with subtypes": ComponentSample(
        "(component (core type (sub (func))) (core rec (type (func)) (type (struct))))",
        features=(Feature.GC,),
    ),
}


def component_binaries() -> dict[str, bytes]:
    """The samples, and some generated ones, without names."""
    generated = {f"generated {seed}": Generator(random.Random(seed)).component() for seed in range(20)}  # noqa: S311
    made = {name: sample.binary for name, sample in COMPONENTS.items()}
    made |= {name: bytes(wasmtime.wat2wasm(text)) for name, text in generated.items()}
    return {name: Tree.read(binary).binary() for name, binary in made.items()}

"""Components on the core-module API: the Component Model's canonical ABI, hosted here.

    compile side    parts = compile_component(engine, component, may_wait)     in the compiler's child
                      -> [the plan, compiled core module 0, compiled core module 1, ...], all of them bytes
    worker side     program = Program.load(engine, plan, modules, functions)   once for each component
                      plan: parts[0]; modules: wasmtime.Module.deserialize(engine, part) of each of parts[1:], in order
                      functions: Mapping[str, Function], "wasi:io/poll#poll" -> (host, *lifted) -> lifted result
                    program.exports: dict[str, frozenset[str]]   {"wasi:cli/run@0.2.0": {"run"}}, "" for bare functions
                    program.missing: tuple[str, ...]             imports that nobody provides: they trap when called
    one instance    instance = program.instance(store, host)
                    call = instance.instantiate(placement)
                      placement: () -> context manager, entered around the poll that makes the memories
                    call = instance.call(export, function, *lifted)      then, once it has ended, call.result()
                    call = instance.drop(resource)                       a GuestResource that an export has returned
                    instance.close()                                     before store.close(), always

    both calls      poll() -> bool, close(), waits_for: Wait | None; as wasmtime_async.Call: one at a time, poll raises
                    GuestTrap or wasmtime.WasmtimeError

NB: the store must be new, and must not have been given to `yield_every_tick`: `instantiate` does that itself, after the
parts that run no guest code. Its limits must allow `program.core_instances` instances and `program.tables` tables.

Raised: `Unsupported` (by compile_component and Program.load), where this host refuses a component that another may
take, and says why; `wasmpool_api.wasm.ModuleInvalid` for bytes that are no component.

Values, as host functions get and give them and `call` takes and gives them:

    bool, u8 .. u64, s8 .. s64    bool, int              list<u8>     bytes; any buffer of bytes when lowered
    f32, f64                      float                  list<T>      list
    char, string                  str                    tuple        tuple
    record                        dict, by WIT's names   flags        frozenset of names
    variant                       (case, payload)        enum         its case
    option<T>                     None or the value; where T is an option itself, Some(value) for the outer some
    result<T, E>                  (True, value or None) or (False, error or None)
    own<R>, borrow<R>             of the host's resources the object itself; of the guest's own a GuestResource

The object behind a host resource is closed (`close()`, if it has that) when the guest drops its own handle, and when
the instance ends. What is lifted as own<R> has been given to the host: nobody closes it any more.
"""

from wasmpool_agent.canonical.compiling import compile_component
from wasmpool_agent.canonical.instance import ComponentCall, Instance
from wasmpool_agent.canonical.program import Program
from wasmpool_agent.canonical.values import GuestResource, Some, Unsupported

__all__ = [
    "ComponentCall",
    "GuestResource",
    "Instance",
    "Program",
    "Some",
    "Unsupported",
    "compile_component",
]

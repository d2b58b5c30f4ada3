"""The guest of tests/guests/asks.c: its world is that of the example's, and what it takes to send requests."""

from pathlib import Path
from typing import Final

from demo.components import build_component

_ROOT: Final = Path(__file__).resolve().parents[2]
_WEB: Final = _ROOT / "examples" / "guests" / "web"
_TYPES: Final = """    (export "outgoing-request" (type $outgoing (sub resource)))
    (export "request-options" (type $options (sub resource)))
    (export "incoming-response" (type $incoming (sub resource)))
    (export "future-incoming-response" (type $future (sub resource)))
    (alias outer 1 $pollable (type $pollable'))
    (export "pollable" (type $pollable (eq $pollable')))
    (type $method' (variant (case "get") (case "head") (case "post") (case "put") (case "delete") (case "connect")
      (case "options") (case "trace") (case "patch") (case "other" string)))
    (export "method" (type $method (eq $method')))
    (type $scheme' (variant (case "HTTP") (case "HTTPS") (case "other" string)))
    (export "scheme" (type $scheme (eq $scheme')))
    (export "[constructor]outgoing-request" (func (param "headers" (own $fields)) (result (own $outgoing))))
    (export "[method]outgoing-request.set-method"
      (func (param "self" (borrow $outgoing)) (param "method" $method) (result (result))))
    (export "[method]outgoing-request.set-scheme"
      (func (param "self" (borrow $outgoing)) (param "scheme" (option $scheme)) (result (result))))
    (export "[method]outgoing-request.set-authority"
      (func (param "self" (borrow $outgoing)) (param "authority" (option string)) (result (result))))
    (export "[method]outgoing-request.set-path-with-query"
      (func (param "self" (borrow $outgoing)) (param "path-with-query" (option string)) (result (result))))
    (export "[method]outgoing-request.body"
      (func (param "self" (borrow $outgoing)) (result (result (own $body)))))
    (export "[method]future-incoming-response.subscribe"
      (func (param "self" (borrow $future)) (result (own $pollable))))
    (export "[method]future-incoming-response.get" (func (param "self" (borrow $future))
      (result (option (result (result (own $incoming) (error $error-code)))))))
    (export "[method]incoming-response.status" (func (param "self" (borrow $incoming)) (result u16)))
    (export "[method]incoming-response.consume"
      (func (param "self" (borrow $incoming)) (result (result (own $incoming-body)))))
"""
_HANDLER: Final = """  (alias export $http "outgoing-request" (type $outgoing))
  (alias export $http "request-options" (type $options))
  (alias export $http "incoming-response" (type $incoming))
  (alias export $http "future-incoming-response" (type $future))
  (alias export $http "error-code" (type $code))
  (import "wasi:http/outgoing-handler@0.2.0" (instance $sender
    (alias outer 1 $outgoing (type $outgoing'))
    (export "outgoing-request" (type $outgoing (eq $outgoing')))
    (alias outer 1 $options (type $options'))
    (export "request-options" (type $options (eq $options')))
    (alias outer 1 $future (type $future'))
    (export "future-incoming-response" (type $future (eq $future')))
    (alias outer 1 $code (type $code'))
    (export "error-code" (type $code (eq $code')))
    (export "handle" (func (param "request" (own $outgoing)) (param "options" (option (own $options)))
      (result (result (own $future) (error $code)))))))
"""
_FUNCTIONS: Final = {
    "outgoing_new": '$http "[constructor]outgoing-request"',
    "outgoing_method": '$http "[method]outgoing-request.set-method"',
    "outgoing_scheme": '$http "[method]outgoing-request.set-scheme"',
    "outgoing_authority": '$http "[method]outgoing-request.set-authority"',
    "outgoing_path": '$http "[method]outgoing-request.set-path-with-query"',
    "outgoing_body": '$http "[method]outgoing-request.body"',
    "outgoing_handle": '$sender "handle"',
    "future_subscribe": '$http "[method]future-incoming-response.subscribe"',
    "future_get": '$http "[method]future-incoming-response.get"',
    "incoming_status": '$http "[method]incoming-response.status"',
    "incoming_consume": '$http "[method]incoming-response.consume"',
}
_DROPS: Final = {"future_drop": "$future", "incoming_drop": "$incoming"}


def asking_world() -> str:
    """As text."""
    lowered = [
        f"  (core func ${name} (canon lower (func {function}) (memory $m) (realloc $realloc)))"
        for name, function in _FUNCTIONS.items()
    ]
    lowered += [f"  (core func ${name} (canon resource.drop {type_}))" for name, type_ in _DROPS.items()]
    given = [f'      (export "{name}" (func ${name}))' for name in (*_FUNCTIONS, *_DROPS)]
    text = (_WEB / "world.wat").read_text()
    for anchor, before in (
        ('    (export "[constructor]outgoing-response"', _TYPES),
        ("  ;; The host puts what it returns at $next", _HANDLER),
        ("  (core module $program)\n", "\n".join(lowered) + "\n"),
        ('      (export "pollable_block"', "\n".join(given) + "\n"),
    ):
        assert text.count(anchor) == 1, anchor
        text = text.replace(anchor, before + anchor)
    return text


def build_asking_guest(directory: Path) -> bytes:
    """The component. Raises ComponentBuildError."""
    world = directory / "asking.wat"
    world.write_text(asking_world())
    return build_component(_ROOT / "tests" / "guests" / "asks.c", world, directory / "asks.wasm", include=_WEB)

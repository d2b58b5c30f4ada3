"""Covers: Quantity, Duration and IntOrPercent: what they read and refuse, and that what they write says the same.

Their patterns in the definitions must take exactly what the types take, or an object passes the API server and stops
the operator.
"""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crds.schemas import Schema, fields
from wasmpool_api.quantities import Duration, IntOrPercent, Quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64Ki", 65536),
        ("6Gi", 6 * 2**30),
        ("1.5Gi", 3 * 2**29),
        (".5Ki", 512),
        ("6.", 6),
        ("500M", 500_000_000),
        ("1k", 1000),
        ("7Ei", 7 * 2**60),
        (4096, 4096),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_a_quantity_is_read(text: str | int, value: int) -> None:
    assert Quantity.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", "-1", -1, "1.5", "0.3Ki", "6gi", "6 Gi", "1e3", "500m", "8Ei", 2**63, "Gi", ".", "1" * 33, "٣", "1\n"]
)
def test_what_is_no_quantity_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"quantity|whole number"):
        Quantity.parse(text)


@given(st.integers(0, 2**63 - 1))
def test_a_quantity_written_and_read_again_is_the_same(value: int) -> None:
    assert Quantity.parse(str(Quantity(value))) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1536, "1536"), (3 * 2**30, "3Gi"), (10**9, "1000000000")],
)
def test_a_quantity_is_written_in_the_largest_unit_that_is_exact(value: int, text: str) -> None:
    assert str(Quantity(value)) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1m30s", 90),
        ("250ms", 0.25),
        ("1h2m3.5s4ms", 3723.504),
        ("5m", 300),
        ("5m7ms", 300.007),
        ("1.5s", 1.5),
        ("0s", 0),
        ("0.000000001s", 1e-9),
        ("99999999h", 99999999 * 3600),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1s1h", "1.5m", "1d", "30 s", "30s\n", "999999999h", "1e3s", "1.s", "٣s", "1us"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 30s"):
        Duration.parse(text)


@given(st.from_regex(r"([0-9]{1,8}h)?([0-9]{1,8}m)?([0-9]{1,12}(\.[0-9]{1,9})?s)?([0-9]{1,12}ms)?", fullmatch=True))
def test_a_duration_written_and_read_again_is_the_same(text: str) -> None:
    if not 0 < len(text) <= 32:
        return
    try:
        duration = Duration.parse(text)
    except ValueError as error:
        assert str(error).endswith("it is too long")  # noqa: PT017 - most are not
        return
    assert Duration.parse(str(duration)) == pytest.approx(duration, abs=1e-9, rel=1e-15)
    assert str(Duration.parse(str(duration))) == str(duration)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0s"), (0.25, "250ms"), (90, "90s"), (1e6, "1000000s"), (3723.504, "3723.504s"), (1e-4, "0.0001s")],
)
def test_a_duration_is_written_without_loss(value: float, text: str) -> None:
    assert str(Duration(value)) == text


@pytest.mark.parametrize(
    ("value", "down", "up"), [("25%", 2, 3), ("0%", 0, 0), ("100%", 10, 10), (3, 3, 3), ("1%", 0, 1)]
)
def test_a_part_of_ten_is_rounded_as_the_name_says(value: str | int, down: int, up: int) -> None:
    part = IntOrPercent.parse(value)
    assert (part.of_rounded_down(10), part.of_rounded_up(10)) == (down, up)
    assert part.to_builtin() == value


@pytest.mark.parametrize("value", ["101%", "-1%", "5", "", "%", "05%", "1.5%", -1, 2**31])
def test_what_is_no_part_is_refused(value: str | int) -> None:
    with pytest.raises(ValueError, match=r"percentage|not within"):
        IntOrPercent.parse(value)


@given(st.integers(0, 100), st.integers(0, 10**9))
def test_a_percentage_is_exact(percent: int, whole: int) -> None:
    part = IntOrPercent(percent=percent)
    down, up = part.of_rounded_down(whole), part.of_rounded_up(whole)
    assert down * 100 <= percent * whole <= up * 100
    assert up - down <= 1


PATTERNS: list[tuple[type[Any], Schema]] = [
    (kind, field.schema)
    for owner in ("InstancePool", "WasmWorkload")
    for field in fields(owner)
    for name, kind in (
        ("requestDeadline", Duration),
        ("deadline", Duration),
        ("addressSpaceSize", Quantity),
        ("maxShare", IntOrPercent),
        ("maxUnavailable", IntOrPercent),
        ("maxSurge", IntOrPercent),
    )
    if field.path.endswith(f".{name}")
]


def test_all_of_them_are_in_the_definitions() -> None:
    assert len(PATTERNS) == 8


@given(st.data())
@pytest.mark.parametrize(("kind", "schema"), PATTERNS)
def test_the_schemas_take_exactly_the_texts_that_the_types_take(kind: type[Any], schema: Schema, data: Any) -> None:
    alphabet = "0123456789.%hms KMGTPEik-+e\n"
    text = data.draw(st.one_of(st.from_regex(schema["pattern"]), st.text(alphabet, max_size=12)))
    pattern = schema["pattern"]
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    by_schema = (
        re.fullmatch(pattern[1:-1], text, re.ASCII) is not None
        and schema.get("minLength", 0) <= len(text) <= schema["maxLength"]
    )
    try:
        kind.parse(text)
    except ValueError as error:
        # What a pattern can't say is left to a rule: whole numbers, and those that fit 64 bits.
        by_type = "is not a whole number" in str(error) or "not within 0 to" in str(error)
    else:
        by_type = True
    assert by_schema == by_type, text

"""Covers: that what inspection calls unsupported is exactly what the agent's engines refuse.

One more in the one list would refuse modules that run; one less would admit modules that don't compile.
"""

import pytest
import wasmtime

from tests.fuzz.wasm_corpus import SAMPLES
from tests.fuzz.wasm_inspection import is_valid
from wasmpool_agent.engine import compiler_config
from wasmpool_api.instance_pool import InstancePoolSpec
from wasmpool_api.limits import InstanceLimits
from wasmpool_api.quantities import Quantity
from wasmpool_api.wasm import UNSUPPORTED, Feature


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """One as the agent's compiler has it."""
    limits = InstanceLimits(count=1, address_space_size=Quantity(2**31))
    return wasmtime.Engine(compiler_config(InstancePoolSpec(instance_limits=limits)))


@pytest.mark.parametrize("name", SAMPLES)
def test_an_engine_refuses_what_inspection_calls_unsupported(engine: wasmtime.Engine, name: str) -> None:
    sample = SAMPLES[name]
    assert is_valid(engine, sample.binary) == (not UNSUPPORTED.intersection(sample.features))


def test_every_unsupported_feature_of_core_modules_is_in_a_sample() -> None:
    seen = {feature for sample in SAMPLES.values() for feature in sample.features}
    of_core_modules = {feature for feature in UNSUPPORTED if not feature.startswith("Component")}
    # One that no sample can have: no engine parses shared-everything threads.
    assert of_core_modules - seen == {Feature.SHARED_EVERYTHING}

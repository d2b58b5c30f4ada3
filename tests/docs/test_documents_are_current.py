"""What is generated is what its source makes, and what the documents point at exists.

Covers: docs/api.md, docs/benchmarks.md, examples/guests.yaml, the examples as objects of the API, links and make
targets in every document.
"""

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import guests, plan
from demo.access import RELEASE, SYSTEM_NAMESPACE
from tests.bench import page
from tests.bench.plot import draw
from tests.bench.report import Report
from tests.cluster import lifecycle
from wasmpool_api.admission import judge
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.wasm import inspect_module
from wasmpool_api.wasm_workload import WasmWorkload

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/*/*.md"), *ROOT.glob("examples/*.md")]
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"^make (?P<first>[a-z-]+)|`make (?P<second>[a-z-]+)", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def _examples() -> list[tuple[Path, dict[str, Any]]]:
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        found.extend(
            (path.relative_to(ROOT), document) for document in yaml.safe_load_all(path.read_text()) if document
        )
    return found


def test_api_reference_is_what_the_crds_say() -> None:
    run = subprocess.run(
        [sys.executable, "docs/generate_api_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_config_map_of_the_examples_is_what_their_sources_build(tmp_path: Path) -> None:
    assert guests.config_map(guests.build_c_guests(tmp_path)) == guests.CONFIG_MAP.read_text()


@pytest.mark.parametrize(
    ("path", "manifest"), _examples(), ids=lambda value: str(value) if isinstance(value, Path) else ""
)
def test_every_example_is_an_object_of_the_api(path: Path, manifest: dict[str, Any]) -> None:
    kinds: dict[str, type[InstancePool] | type[WasmWorkload]] = {
        "InstancePool": InstancePool,
        "WasmWorkload": WasmWorkload,
    }
    if manifest["kind"] in kinds:
        decode(kinds[manifest["kind"]], manifest)
    else:
        assert manifest["kind"] == "ConfigMap", path


def test_every_workload_of_the_examples_names_a_guest_and_a_pool_that_are_there() -> None:
    manifests = [manifest for _, manifest in _examples()]
    pools = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "InstancePool"}
    keys = {key for manifest in manifests if manifest["kind"] == "ConfigMap" for key in manifest["binaryData"]}
    for manifest in manifests:
        if manifest["kind"] == "WasmWorkload":
            assert manifest["spec"]["poolRef"]["name"] in pools
            assert manifest["spec"]["module"]["configMap"]["key"] in keys


@pytest.mark.parametrize(
    ("guest", "admitted"), [("hello", True), ("mandelbrot", True), ("ticker", True), ("too-big", False), ("web", True)]
)
def test_guests_of_the_examples_are_judged_as_the_examples_say(guest: str, admitted: bool) -> None:
    pool = decode(InstancePool, yaml.safe_load((ROOT / "examples" / "pool.yaml").read_text()))
    modules = yaml.safe_load(guests.CONFIG_MAP.read_text())["binaryData"]
    needs = inspect_module(base64.b64decode(modules[f"{guest}.wasm"]))
    verdict = judge(needs, pool.spec.module_limits, None, pool.metadata.name)
    assert verdict.admitted is admitted
    if not admitted:
        assert verdict.message == "memory 0 needs 512 pages, pool small allows 32"
        assert verdict.message in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    text = CODE.sub("", document.read_text())
    for match in LINK.finditer(text):
        target = match["target"]
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for match in MAKE.finditer(document.read_text()):
        assert (match["first"] or match["second"]) in targets, f"{document.name} speaks of `{match[0]}`"


def test_announcement_of_the_demo_names_what_it_takes() -> None:
    assert plan.CLUSTER_HUGE_PAGES == lifecycle.DEFAULT_HUGE_PAGES
    own = plan.plan_own_cluster()
    assert f"adds {plan.CLUSTER_HUGE_PAGES} of 2 MiB" in own
    for part in ("packages", "caches", "cgroups", "network", "processes", "make down"):
        assert part in own
    existing = plan.plan_existing_cluster("somewhere")
    for part in ("'somewhere'", f"`{RELEASE}`", f"`{SYSTEM_NAMESPACE}`"):
        assert part in existing


def test_the_page_of_benchmarks_shows_the_figures_beside_it(tmp_path: Path) -> None:
    report = Report.read(page.FIGURES)
    assert page.page(page.PAGE.read_text(), report, Report.read(page.BACKINGS)) == page.PAGE.read_text()
    draw(report, "us per life", page.BASELINE, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_text() == page.PICTURE.read_text()

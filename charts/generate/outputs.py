"""Which files are made, and their content. Pure but for the reading of the sources."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

BEGIN = "<!-- values: made by python -m charts.generate from values.schema.json and values.yaml -->"
END = "<!-- end of values -->"


def outputs(repository: Path, dashboards: Mapping[str, str]) -> dict[Path, str | None]:
    """Path → content, or None for a file that must go."""
    chart = repository / "charts" / "wasmpool"
    made: dict[Path, str | None] = {}
    # NB: Helm packages only what is inside the chart's directory, and follows no link out of it: hence copies.
    for source in sorted((repository / "crds" / "manifests").glob("*.yaml")):
        made[chart / "files" / "crds" / source.name] = source.read_text()
    for name, content in dashboards.items():
        made[chart / "dashboards" / f"{name}.json"] = content
    for copies in (chart / "files" / "crds", chart / "dashboards"):
        for present in copies.glob("*"):
            made.setdefault(present, None)
    readme = chart / "README.md"
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    made[readme] = with_table(readme.read_text(), schema, values)
    return made


def with_table(readme: str, schema: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The README with its table of values brought up to date."""
    rows = "\n".join(f"| `{path}` | {default} | {text} |" for path, default, text in rows_of(schema, values))
    table = f"{BEGIN}\n| value | default | what it does |\n|---|---|---|\n{rows}\n{END}"
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md of the chart needs the lines {BEGIN!r} and {END!r}, around its table of values")
    return before + table + after


def rows_of(schema: Mapping[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, default, description) of every value that is not just a group of others."""
    for name, part in schema["properties"].items():
        here = f"{path}.{name}" if path else name
        if name not in values:
            continue
        if isinstance(values[name], dict) and values[name] and "properties" in part:
            yield from rows_of(part, values[name], here)
        else:
            default = json.dumps(values[name])
            text = re.sub(r"\s+", " ", part["description"]).replace("|", "\\|")
            yield here, f"`{default}`", text + accepted(part)


def accepted(part: Mapping[str, Any]) -> str:
    """The allowed values, where the schema lists or bounds them."""
    if "enum" in part:
        return f" ({', '.join(part['enum'])})"
    if "minimum" in part and "maximum" in part:
        return f" ({part['minimum']} to {part['maximum']})"
    return ""

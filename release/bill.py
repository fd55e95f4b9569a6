"""What a wheel is made of: `python release/bill.py SBOM NOTICES`.

SBOM: a bill of materials as CycloneDX 1.6 JSON: the crates that are linked into the extension, the npm packages that are bundled into the
page, the Python packages that are needed at run time. NOTICES: the licence of each, with the texts they ask to be passed on.

Crates come from `cargo metadata` (only what is linked, of this platform), npm packages from `web/package-lock.json` (only what is not for
development) with the texts in `web/node_modules`. Without `web/` there is no page, and so nothing of it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
TEXTS = re.compile(r"^(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


class Part(NamedTuple):
    """A package that is shipped or needed."""

    kind: str
    name: str
    version: str
    licence: str
    where: Path | None


def crates() -> list[Part]:
    """What is linked into the extension."""
    rustc = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    target = next(line.split()[1] for line in rustc.splitlines() if line.startswith("host:"))
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    packages = {one["id"]: one for one in metadata["packages"]}
    nodes = {one["id"]: one for one in metadata["resolve"]["nodes"]}
    waiting = [one for one, package in packages.items() if package["name"] == "barograph-python"]
    linked: set[str] = set()
    while waiting:
        here = waiting.pop()
        if here in linked:
            continue
        linked.add(here)
        for dependency in nodes[here]["deps"]:
            # Neither tests nor build scripts are shipped; nor is what a macro was made with.
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    out = []
    for one in linked:
        package = packages[one]
        macro = any("proc-macro" in target["kind"] for target in package["targets"])
        if package["source"] is not None and not macro:
            folder = Path(package["manifest_path"]).parent
            out.append(Part("cargo", package["name"], package["version"], package["license"] or "see its text", folder))
    return out


def bundled() -> list[Part]:
    """What is bundled into the page."""
    lock = ROOT / "web" / "package-lock.json"
    if not lock.exists():
        return []
    out = []
    for place, package in json.loads(lock.read_text(encoding="utf-8"))["packages"].items():
        if not place or package.get("dev") or package.get("optional"):
            continue
        name = place.rpartition("node_modules/")[2]
        folder = ROOT / "web" / place
        licence = package.get("license") or _licence_of(folder) or "see its text"
        out.append(Part("npm", name, package["version"], licence, folder if folder.exists() else None))
    return out


def _licence_of(folder: Path) -> str | None:
    try:
        return json.loads((folder / "package.json").read_text(encoding="utf-8")).get("license")
    except OSError:
        return None


def needed() -> list[Part]:
    """What is needed at run time and installed beside, not shipped."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = []
    for requirement in project["dependencies"]:
        name, rest = re.match(r"([A-Za-z0-9._-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        out.append(Part("pypi", name, rest.strip(), "", None))
    return out


def version() -> str:
    return str(tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"])


def sbom(parts: list[Part]) -> dict[str, Any]:
    """CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/."""
    components = []
    for part in parts:
        exact = part.kind != "pypi"
        purl = f"pkg:{part.kind}/{part.name.replace('@', '%40')}" + (f"@{part.version.replace('+', '%2B')}" if exact else "")
        component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": part.name, "purl": purl}
        if exact:
            component["version"] = part.version
        else:
            component["scope"] = "optional" if not part.version else "required"
            component["properties"] = [{"name": "barograph:requirement", "value": f"{part.name}{part.version}"}]
        if part.licence and part.licence != "see its text":
            # Old crates write "MIT/Apache-2.0".
            component["licenses"] = [{"expression": part.licence.replace("/", " OR ")}]
        components.append(component)
    own = f"pkg:pypi/barograph@{version()}"
    main = {"type": "library", "bom-ref": own, "name": "barograph", "version": version(), "purl": own}
    main["licenses"] = [{"expression": "Apache-2.0"}]
    # The same parts give the same number: a build that is repeated gives the same bytes.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": main, "tools": {"components": [{"type": "application", "name": "barograph release/bill.py"}]}},
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def notices(parts: list[Part]) -> str:
    """Name, version and licence of each, then every text once, with those it is of."""
    shipped = [part for part in parts if part.kind != "pypi"]
    lines = ["What is shipped inside barograph, under its own licence each. barograph itself: Apache-2.0, see LICENSE.", ""]
    lines += [f"{part.kind:<6} {part.name} {part.version}: {part.licence}" for part in shipped]
    texts: dict[str, list[str]] = {}
    for part in shipped:
        found = sorted(path for path in part.where.iterdir() if path.is_file() and TEXTS.match(path.name)) if part.where else []
        for path in found:
            text = path.read_text(encoding="utf-8", errors="replace").strip().replace("\r\n", "\n")
            texts.setdefault(text, []).append(f"{part.name} {part.version} ({path.name})")
    for text, of in sorted(texts.items(), key=lambda one: one[1]):
        lines += ["", "=" * 100, ", ".join(of), "", text]
    return "\n".join(lines) + "\n"


def main() -> None:
    bill, texts = (Path(name) for name in sys.argv[1:])
    parts = sorted({*crates(), *bundled()}, key=lambda part: (part.kind, part.name, part.version)) + needed()
    bill.write_text(json.dumps(sbom(parts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    texts.write_text(notices(parts), encoding="utf-8")
    counts = {kind: sum(part.kind == kind for part in parts) for kind in ("cargo", "npm", "pypi")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()), file=sys.stderr)


if __name__ == "__main__":
    main()

"""The directions of ARCHITECTURE.md, held."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "barograph"


def dependencies(crate):
    manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text())
    return set(manifest.get("dependencies", {})).union(*(target["dependencies"] for target in manifest.get("target", {}).values()))


def test_core_engine_and_border_depend_in_one_direction():
    assert not {name for name in dependencies("core") if name.startswith(("barograph", "arrow", "pyo3", "tokio"))}
    assert {name for name in dependencies("engine") if name.startswith("barograph")} == {"barograph-core"}
    server = dependencies("server")
    assert {name for name in server if name.startswith("barograph")} == {"barograph-core", "barograph-engine"}
    assert "barograph-server" in dependencies("python")
    assert not {"pyo3", "tokio", "hyper"} & dependencies("engine")
    assert "pyo3" not in server


def test_the_maths_knows_no_clock_no_file_no_thread():
    for crate in ("core", "engine"):
        for path in (ROOT / "rust" / crate / "src").rglob("*.rs"):
            code = path.read_text().split("#[cfg(test)]")[0]
            assert not re.search(r"std::(time|fs|net|thread|env)\b|SystemTime|Instant::now", code), path


def test_library_code_does_not_panic():
    for path in (ROOT / "rust").rglob("src/**/*.rs"):
        code = path.read_text().split("#[cfg(test)]")[0]
        assert not re.search(r"\.unwrap\(\)|\.expect\(|panic!|unreachable!|todo!|unimplemented!", code), path


def test_only_the_border_and_the_vector_code_are_unsafe():
    for path in (ROOT / "rust").rglob("src/**/*.rs"):
        if path.name not in ("border.rs", "ifma.rs"):
            assert not re.search(r"\bunsafe\s*(\{|fn|impl)", path.read_text()), path


def test_importing_loads_neither_numpy_nor_polars():
    code = "import barograph, sys; print({'numpy', 'polars', 'pyarrow', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_heavy_modules_are_imported_where_they_are_used():
    for path in PACKAGE.glob("*.py"):
        if path.name == "demo.py":
            continue
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"numpy", "polars", "pandas", "pyarrow"}, path


def test_names_of_modules_do_not_shadow_what_they_hold():
    import barograph as bg

    for name in bg.__all__:
        assert getattr(bg, name) is not None
        assert not (name.islower() and callable(getattr(bg, name)) and (PACKAGE / f"{name}.py").exists()), name


def test_adapters_stand_alone():
    """Nothing imports an adapter; an adapter imports its framework, the monitor, and what that is made or exported with."""
    allowed = {"monitors", "errors", "client", "watching", "references", "protobuf", "sketches"}
    inside = sorted((ROOT / "python/barograph/adapters").glob("*.py"))
    for path in (ROOT / "python/barograph").rglob("*.py"):
        if path not in inside:
            assert "barograph.adapters" not in re.sub(r'"""[\s\S]*?"""', "", path.read_text()), path
    for path in inside:
        assert set(re.findall(r"^from barograph\.(\S+) import", path.read_text(), re.MULTILINE)) <= allowed, path

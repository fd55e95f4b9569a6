"""What stands in README and docs runs; so do the docstrings."""

import doctest
import importlib
import importlib.util
import os
import re
import runpy
from pathlib import Path

import barograph as bg
import polars as pl
import pytest
from pages import blocks, run
from sidecars import TOKEN, Sidecar

ROOT = Path(__file__).parents[2]
SIDECAR = ROOT / "docs/start/sidecar.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    "barograph",
    "barograph.adapters.predictor",
    "barograph.backtests",
    "barograph.causes",
    "barograph.client",
    "barograph.conditions",
    "barograph.decisions",
    "barograph.detectors",
    "barograph.estimates",
    "barograph.feedback",
    "barograph.gates",
    "barograph.histories",
    "barograph.lineages",
    "barograph.metrics",
    "barograph.monitors",
    "barograph.privacies",
    "barograph.profiles",
    "barograph.references",
    "barograph.rollbacks",
    "barograph.rollout",
    "barograph.row_sketches",
    "barograph.scaling.capacity",
    "barograph.scaling.forecasts",
    "barograph.scaling.loads",
    "barograph.scaling.queue_simulations",
    "barograph.scaling.queues",
    "barograph.schemas",
    "barograph.scores",
    "barograph.sequences",
    "barograph.sketches",
    "barograph.triggers",
    "barograph.webhooks",
]


ENGINES = [ROOT / "docs" / "guides" / f"{name}.md" for name in ("dask", "processes", "ray", "spark")]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (SIDECAR, *ENGINES)], ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page, {})


@pytest.mark.parametrize("page", ENGINES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_pages_of_engines_names_what_there_is(page):
    # They speak of the reader's cluster and files: what they call is held against what exists, and `tests/engines` calls it.
    for block in blocks(page):
        compile(block, str(page), "exec")
        for module, names in re.findall(r"^from (barograph\S*) import (.+)$", block, re.M):
            there = importlib.import_module(module)
            for name in names.split(","):
                plain = name.split(" as ")[0].strip()
                assert hasattr(there, plain) or importlib.util.find_spec(f"{module}.{plain}"), (module, plain)


def test_python_on_the_page_of_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = pl.read_parquet(Path(bg.__file__).parent / "data" / "flights_nyc_2013.parquet").head(3000)
    Path("flights").mkdir()
    batches = list(rows.iter_slices(1000))
    for at, part in enumerate(batches):
        part.write_parquet(f"flights/{at}.parquet")
    reference = bg.Reference(rows)
    names = {"schema": reference.schema, "reference": reference, "batches": batches, "folder": tmp_path, "bg": bg, "os": os}
    found = run(ROOT / "docs" / "guides" / "processes.md", names)
    assert found["profile"] == bg.profile(rows, reference=reference)
    assert set(found["segments"]) == {"EWR", "JFK", "LGA"}
    assert found["monitor"].counts()["events"] == 0


def test_python_on_the_page_that_starts_a_sidecar(tmp_path, monkeypatch):
    with Sidecar(tmp_path) as running:
        # Where the page's own `barograph serve` puts its token.
        (tmp_path / "barograph-data").mkdir()
        (tmp_path / "barograph-data" / "token").write_text(TOKEN)
        monkeypatch.chdir(tmp_path)
        run(SIDECAR, {}, lambda block: block.replace("7464", str(running.port)))
    assert (tmp_path / "drift.svg").stat().st_size > 2000


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0


@pytest.mark.parametrize("program", sorted((ROOT / "examples").glob("*.py")), ids=lambda program: program.name)
def test_programs(program, capsys):
    runpy.run_path(str(program), run_name="__main__")
    said = {
        "serve_a_model.py": 'barograph_events_total{model="credit"} 200',
        "close_the_loop.py": "better by +",
        "rent_bikes.py": "frozen 105.4, kept up 88.2",
        "plan_capacity.py": "3 replicas keep p99 response <= 60000ms",
    }.get(program.name, "PSI is above")
    assert said in capsys.readouterr().out

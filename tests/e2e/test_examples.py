"""What stands in README and docs runs; so do the docstrings."""

import doctest
import importlib
import importlib.util
import re
import runpy
from pathlib import Path

import pytest
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


def run(page, folder, monkeypatch, change=lambda block: block):
    """The blocks of a page, one after another in an empty folder; names go on from one to the next."""
    monkeypatch.chdir(folder)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        if "reference.parquet" not in block:
            exec(compile(change(block), str(page), "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (SIDECAR, *ENGINES)], ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_pages(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", ENGINES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_pages_of_engines_names_what_there_is(page):
    # They speak of the reader's cluster and files: what they call is held against what exists, and `tests/engines` calls it.
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        compile(block, str(page), "exec")
        for module, names in re.findall(r"^from (barograph\S*) import (.+)$", block, re.M):
            there = importlib.import_module(module)
            for name in names.split(","):
                plain = name.split(" as ")[0].strip()
                assert hasattr(there, plain) or importlib.util.find_spec(f"{module}.{plain}"), (module, plain)


def test_python_on_the_page_that_starts_a_sidecar(tmp_path, monkeypatch):
    with Sidecar(tmp_path) as running:
        # Where the page's own `barograph serve` puts its token.
        (tmp_path / "barograph-data").mkdir()
        (tmp_path / "barograph-data" / "token").write_text(TOKEN)
        run(SIDECAR, tmp_path, monkeypatch, lambda block: block.replace("7464", str(running.port)))
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

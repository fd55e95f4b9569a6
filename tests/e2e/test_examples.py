"""What stands in README and docs runs; so do the docstrings."""

import doctest
import importlib
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_pages(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        if "reference.parquet" not in block:
            exec(compile(block, str(page), "exec"), {})


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

"""How peers behave, as facts that anybody can repeat: `python benches/facts.py` prints the tables of `docs/compare.md`.

Each fact is a few lines of the peer's public API on seeded numbers, run in the environment its peer is pinned in (`make bench-peers`),
beside the same numbers in barograph. The first table installs each peer afresh, without pins, into an environment that is thrown away:
it needs a package index, and says what a user finds on that day.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "barograph" / "peers"
ENVIRONMENTS = {"barograph": sys.executable, "Evidently": str(CACHE / "evidently/bin/python"), "NannyML": str(CACHE / "nannyml/bin/python")}
# What a first user would type.
FIRST = {
    "barograph": "import barograph as bg; bg.profile({'x': [1.0, 2.0]})",
    "Evidently": "import evidently; from evidently import Dataset, Report",
    "NannyML": "import nannyml",
    "whylogs": "import whylogs as why, pandas as pd; why.log(pandas=pd.DataFrame({'x': [1.0, 2.0]}))",
}
PACKAGES = {"Evidently": "evidently", "NannyML": "nannyml", "whylogs": "whylogs pandas"}

COMMON = """
import json, warnings
warnings.filterwarnings("ignore")
import numpy as np
draw = np.random.default_rng(0)
before, after = draw.normal(size=50_000), draw.normal(0.5, 1, 50_000)
outlier = after.copy(); outlier[0] = 1e6
nulls = draw.normal(size=50_000); nulls[draw.random(50_000) < 0.3] = np.nan
CASES = {"shifted by half a standard deviation": after, "the same and one value of a million": outlier, "30 % nulls, else unchanged": nulls}
"""
DRIFT = {
    "barograph": COMMON
    + """
import barograph as bg, polars as pl
reference = bg.Reference({"x": before})
out = {}
for name, values in CASES.items():
    report = bg.compare(reference, pl.DataFrame({"x": values}).with_columns(pl.col("x").fill_nan(None)))
    row = report.to_frame().filter(method="psi").row(0, named=True)
    out[name] = f"PSI {row['value']:.3f}, " + ("drift" if report.drifted else "no drift")
print(json.dumps(out))
""",
    "Evidently": COMMON
    + """
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift
def data(values):
    return Dataset.from_pandas(pd.DataFrame({"x": values}), DataDefinition(numerical_columns=["x"]))
out = {}
for name, values in CASES.items():
    value = float(Report([ValueDrift(column="x", method="psi")]).run(data(values), data(before)).dict()["metrics"][0]["value"])
    # 0.1 is its threshold for PSI.
    out[name] = f"PSI {value:.3f}, " + ("drift" if value >= 0.1 else "no drift")
print(json.dumps(out))
""",
    "NannyML": COMMON
    + """
import os; os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
import pandas as pd, nannyml
made = nannyml.UnivariateDriftCalculator(column_names=["x"], continuous_methods=["wasserstein", "jensen_shannon"], chunk_number=10)
made.fit(pd.DataFrame({"x": before}))
out = {}
for name, values in CASES.items():
    frame = made.calculate(pd.DataFrame({"x": values})).filter(period="analysis").to_df()["x"]
    said = []
    for method, word in (("jensen_shannon", "JS"), ("wasserstein", "Wasserstein")):
        column = frame[method]
        said.append(f"{word} {column['value'].mean():.3f}, {int(column['alert'].sum())} of 10 chunks alert")
    out[name] = "; ".join(said)
print(json.dumps(out))
""",
}
QUIET = {
    "barograph": """
import json
import barograph as bg, numpy as np
draw = np.random.default_rng(1)
names = [f"x{at}" for at in range(100)]
frame = lambda: {name: draw.normal(size=20_000) for name in names}
reference = bg.Reference(frame())
now = frame()
batches = [{name: values[at * 2000:(at + 1) * 2000] for name, values in now.items()} for at in range(10)]
print(json.dumps(sum(bg.compare(reference, batch).drifted for batch in batches)))
""",
    "Evidently": """
import json, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import DriftedColumnsCount
draw = np.random.default_rng(1)
names = [f"x{at}" for at in range(100)]
data = lambda f: Dataset.from_pandas(f, DataDefinition(numerical_columns=names))
frame = lambda: pd.DataFrame({name: draw.normal(size=20_000) for name in names})
before, now, hit = frame(), frame(), 0
# The first of the metrics of DataDriftPreset, which tells the same count in a fifth of the time: the others draw a picture per column.
for at in range(10):
    found = Report([DriftedColumnsCount()]).run(data(now.iloc[at * 2000:(at + 1) * 2000]), data(before)).dict()["metrics"]
    hit += found[0]["value"]["count"] > 0
print(json.dumps(hit))
""",
    "NannyML": """
import json, os, warnings
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd, nannyml
draw = np.random.default_rng(1)
names = [f"x{at}" for at in range(100)]
frame = lambda: pd.DataFrame({name: draw.normal(size=20_000) for name in names})
made = nannyml.UnivariateDriftCalculator(column_names=names, continuous_methods=["jensen_shannon"], chunk_size=2000).fit(frame())
result = made.calculate(frame()).filter(period="analysis").to_df()
alerts = np.column_stack([result[name]["jensen_shannon"]["alert"] for name in names])
print(json.dumps(int(alerts.any(axis=1).sum())))
""",
}


def run(python: str, code: str) -> str:
    """What it prints last, or the last line of its error."""
    if not Path(python).exists():
        return json.dumps("not installed: make bench-peers")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "DO_NOT_TRACK": "1"})
    if done.returncode:
        return json.dumps("fails: " + done.stderr.strip().splitlines()[-1][:120])
    return done.stdout.strip().splitlines()[-1]


def version(python: str, package: str) -> str:
    return json.loads(run(python, f"import json; from importlib import metadata; print(json.dumps(metadata.version({package!r})))"))


def fresh(who: str) -> list[str]:
    """Version, size and the first call of a package that was installed today without pins."""
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as name:
        python = f"{name}/env/bin/python"
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, f"{name}/env"], check=True)
        done = subprocess.run(
            [uv, "pip", "install", "-q", "--python", python, *PACKAGES[who].split()], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return ["?", "", "does not install: " + done.stderr.strip().splitlines()[-1][:120], ""]
        size = sum(path.stat().st_size for path in Path(name, "env").rglob("*") if path.is_file() and not path.is_symlink())
        return [version(python, PACKAGES[who].split()[0]), f"{size / 1e6:,.0f}", *first(python, who)]


def first(python: str, who: str) -> list[str]:
    """The first call, and the CPU seconds of it in a process of its own, the second time."""
    code = f"import json, time; began = time.process_time(); {FIRST[who]}; print(json.dumps(time.process_time() - began))"
    run(python, code)
    found = json.loads(run(python, code))
    return ["works", f"{found:.2f}"] if isinstance(found, float) else [found, ""]


def table(heads: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def main() -> None:
    began = time.perf_counter()
    print(f"{datetime.date.today():%d %B %Y}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    own = version(sys.executable, "barograph")
    rows = [["barograph", own, "", *first(sys.executable, "barograph")], *([who, *fresh(who)] for who in PACKAGES)]
    table(["", "version", "MB of a fresh environment", "first call", "CPU-s of it"], rows)
    answers = {who: json.loads(run(python, DRIFT[who])) for who, python in ENVIRONMENTS.items()}
    names = next(answer for answer in answers.values() if isinstance(answer, dict))
    table(["", *answers], [[name, *(one[name] if isinstance(one, dict) else str(one) for one in answers.values())] for name in names])
    quiet = {who: json.loads(run(python, QUIET[who])) for who, python in ENVIRONMENTS.items()}
    table(
        ["ten unchanged batches of 2,000 rows, 100 columns", *quiet],
        [["batches with at least one drifted column", *map(str, quiet.values())]],
    )
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

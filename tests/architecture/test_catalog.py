"""One word all the way: the catalogue against files, faces, golden rows, bench rows and method pages."""

import json
import re
from pathlib import Path

import barograph as bg
import pytest

ROOT = Path(__file__).parents[2]
NAMES = [(family, name) for family, names in bg.catalog().items() for name in names]
PYTHON_ALONE = {"dle", "pape", "prediction_powered_mean"}
SHARES = {"null_share", "nonfinite_share", "out_of_range_share", "unseen_share"}
DERIVED = {
    **{f"{kind}_metrics": kind for kind in ("binary", "multiclass", "regression", "ranking")},
    "cramers_v": "chi_square",
    "wasserstein_normalised": "wasserstein",
    "wasserstein_clipped": "wasserstein",
    "distinct_share": "../sketches/categories",
    "psi_total": "psi",
    **dict.fromkeys(SHARES, "share"),
}


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_place_has_it(family, name):
    assert (ROOT / "rust/core/src" / family / f"{DERIVED.get(name, name)}.rs").exists()
    assert (ROOT / "docs/methods" / f"{name}.md").exists()
    assert f"methods/{name}.md" in (ROOT / "mkdocs.yml").read_text()
    assert (ROOT / f"docs/methods/pictures/{name}.svg").exists()
    assert f"](pictures/{name}.svg)" in (ROOT / "docs/methods" / f"{name}.md").read_text()
    assert name in (ROOT / "benches/python" / f"test_{family}.py").read_text()
    golden = json.loads((ROOT / "tests/golden" / f"{family}.json").read_text())
    assert name in golden["covers"]


def test_faces_are_the_catalogue():
    faces = set(bg.scores.__all__) - {"Score", "share_change"}
    assert faces <= set(bg.catalog()["scores"])
    for family in ("sketches", "detectors", "metrics", "estimates"):
        names = {re.sub(r"(?<!^)([A-Z])", r"_\1", face).lower() for face in getattr(bg, family).__all__}
        assert names - PYTHON_ALONE == set(bg.catalog()[family])


@pytest.mark.parametrize("name", sorted(PYTHON_ALONE))
def test_what_is_made_in_python_has_its_places_too(name):
    assert f"methods/{name}.md" in (ROOT / "mkdocs.yml").read_text()
    assert (ROOT / "docs/methods" / f"{name}.md").exists()
    assert name in (ROOT / "benches/python/test_estimates.py").read_text()
    assert name in json.loads((ROOT / "tests/golden/estimates.json").read_text())["covers"]

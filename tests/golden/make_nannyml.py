"""NannyML's distances and the counts it takes them from: `python make_nannyml.py` writes nannyml.json beside it.

Needs nannyml, statsmodels, pyarrow, polars, and the package's folder on the path.
"""

import json
import warnings
from importlib.metadata import version
from math import isclose
from pathlib import Path

import numpy as np
import pairs
from nannyml.chunk import SizeBasedChunker
from nannyml.drift.univariate import methods
from nannyml.thresholds import ConstantThreshold
from scipy.spatial import distance

warnings.simplefilter("ignore")


def calculated(make, a, b):
    method = make(chunker=SizeBasedChunker(chunk_size=len(a) // 2), threshold=ConstantThreshold(upper=0.1))
    return method, float(method.fit(a).calculate(b))


def distances(load, numbers):
    a, b = (side.to_pandas().astype("float64" if numbers else "object") for side in load())
    make = methods.ContinuousJensenShannonDistance if numbers else methods.CategoricalJensenShannonDistance
    method, value = calculated(make, a, b)
    if numbers:
        counts = [np.histogram(side.dropna(), bins=method._bins)[0].tolist() for side in (a, b)]
    else:
        counts = [[int((side == name).sum()) for name in method._bins] for side in (a, b)]
    # What no bin of the reference holds goes into one more bin.
    rest = [int(side.notna().sum()) - sum(count) for side, count in zip((a, b), counts, strict=True)]
    if any(rest):
        counts = [[*count, more] for count, more in zip(counts, rest, strict=True)]
    p, q = (np.array(count) / sum(count) for count in counts)
    assert isclose(value, distance.jensenshannon(p, q, base=2), rel_tol=1e-9)
    out = {"reference": counts[0], "current": counts[1], "jensen_shannon": value}
    if not numbers and not any(rest):
        out["l_infinity"] = calculated(methods.LInfinityDistance, a, b)[1]
    return out


if __name__ == "__main__":
    found = {name: distances(load, True) for name, load in pairs.NUMBERS.items()}
    found |= {name: distances(load, False) for name, load in pairs.NAMES.items()}
    document = {"versions": {"nannyml": version("nannyml")}, "pairs": found}
    (Path(__file__).parent / "nannyml.json").write_text(json.dumps(document).replace('{"reference"', '\n{"reference"') + "\n")

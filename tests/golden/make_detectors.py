"""Positions river finds: `python make_detectors.py` (needs river) writes detectors.json beside it."""

import json
from importlib.metadata import version
from pathlib import Path

import streams
from river import drift
from river.drift import binary

CLASSES = {
    "adwin": drift.ADWIN,
    "page_hinkley": drift.PageHinkley,
    "ddm": binary.DDM,
    "eddm": binary.EDDM,
    "hddm_a": binary.HDDMA,
    "hddm_w": binary.HDDMW,
}
VARIANTS = {
    "adwin": [{"delta": 0.05, "clock": 1, "max_buckets": 3}],
    "page_hinkley": [{"threshold": 5.0, "mode": "down"}, {"threshold": 10.0, "mode": "up", "delta": 0.01}],
    "ddm": [{"warm_start": 100, "drift_threshold": 2.5}],
    "eddm": [{"alpha": 0.99, "beta": 0.97}],
    "hddm_a": [{"two_sided_test": True, "drift_confidence": 0.01}],
    "hddm_w": [{"two_sided_test": True, "lambda_val": 0.1}],
}


def positions(detector, values):
    out = []
    for at, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            out.append(at)
    return out


def kswin():
    """What river's draws come to: alarms of an unchanged stream and values until a shift is found, over seeds."""
    alarms, delays = [], []
    for seed in range(streams.KSWIN_RUNS):
        alarms.append(len(positions(drift.KSWIN(seed=seed), streams.unchanged(seed).tolist())))
        found = positions(drift.KSWIN(seed=seed, alpha=1e-4), streams.shifted(seed).tolist())
        delays += [at - 500 for at in found if at >= 500][:1]
    return {"alarms": alarms, "delays": delays}


def main():
    cases = []
    for name, make in CLASSES.items():
        for arguments in [{}, *VARIANTS[name]]:
            for stream, values in streams.STREAMS.items():
                values = values()
                if stream in streams.NUMBERS and name not in ("adwin", "page_hinkley"):
                    continue
                found = positions(make(**arguments), values.tolist())
                cases.append({"detector": name, "arguments": arguments, "stream": stream, "positions": found})
    covers = [*CLASSES, "kswin", "cusum", "ewma", "rank"]
    law = kswin()
    text = json.dumps({"versions": {"river": version("river")}, "covers": covers, "kswin": law, "cases": cases})
    (Path(__file__).parent / "detectors.json").write_text(text.replace('{"detector"', '\n{"detector"') + "\n")


if __name__ == "__main__":
    main()

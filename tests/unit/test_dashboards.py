"""Dashboards and alert rules against the metrics that are really exposed, and Prometheus' own checker where it is installed."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph import dashboards
from barograph.adapters.prometheus import exposition
from barograph.cli import main
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from prometheus_client.parser import text_string_to_metric_families

START = datetime(2026, 1, 5, tzinfo=UTC)
RULES = [
    {"metric": "error_rate", "above": 0.1, "severity": "ticket"},
    {"slo": "latency", "threshold": 0.2, "objective": 0.99},
    {"metric": "latency_p99", "detector": "cusum"},
]
FILE = """
[models.fraud]
[[models.fraud.rules]]
metric = "error_rate"
above = 0.1
severity = "ticket"
[[models.fraud.rules]]
slo = "latency"
threshold = 0.2
objective = 0.99
[[models.fraud.rules]]
metric = "latency_p99"
detector = "cusum"
[models."odd \\"name\\" {x}"]
window = "1d"
"""


def watched(name="fraud"):
    rng = np.random.default_rng(0)
    monitor = bg.Monitor(name, reference=bg.Reference({"a": rng.normal(size=5000)}), ticks="manual", rules=RULES)
    at = [START.replace(tzinfo=None) + timedelta(seconds=3.6 * i) for i in range(1000)]
    seconds = rng.lognormal(-5, 1, 1000)
    frame = pl.DataFrame({"a": rng.normal(2, 1, 1000), "at": at, "s": seconds, "failed": rng.random(1000) < 0.5})
    monitor.observe_frame(frame, time="at", latency_seconds="s", error="failed")
    monitor.tick(START + timedelta(hours=1))
    return monitor, seconds


def named(expression):
    """Metrics that an expression reads, without the words of PromQL."""
    bare = re.sub(r'"(\\\\.|[^"\\\\])*"', "", expression)
    return set(re.findall(r"barograph_\w+", bare))


@pytest.fixture
def written(tmp_path, capsys):
    path = tmp_path / "policies.toml"
    path.write_text(FILE)
    assert main(["dashboards", str(path), "-o", str(tmp_path / "out")]) == 0
    paths = capsys.readouterr().out.split("\n")[:-1]
    assert len(paths) == 4
    return [tmp_path / "out" / path.rsplit("/", 1)[1] for path in paths]


def test_everything_that_is_shown_or_judged_is_exposed(written):
    families = text_string_to_metric_families(exposition(watched()[0]).decode())
    families = list(families)
    # A native histogram goes by the name of its family.
    exposed = {name for family in families for name in (family.name, *(sample.name for sample in family.samples))}
    for path in written:
        text = path.read_text()
        if path.suffix == ".json":
            expressions = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
        else:
            expressions = [json.loads(line.split("expr: ")[1]) for line in text.splitlines() if "expr: " in line]
        assert expressions
        for expression in expressions:
            assert named(expression) <= exposed, expression


def test_panels_do_not_overlap_and_limits_are_drawn():
    policy = {"window": "1h", "task": "binary", "rules": RULES}
    panels = dashboards.grafana("m", policy)["panels"]
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    limits = next(panel for panel in panels if panel["title"] == "Error rate")["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert limits[1]["value"] == 0.1


def test_a_policy_without_a_name_needs_one(tmp_path, capsys):
    path = tmp_path / "policy.toml"
    path.write_text('window = "1h"\n')
    assert main(["dashboards", str(path), "-o", str(tmp_path)]) == 2
    assert "`--model` is missing" in capsys.readouterr().err
    assert main(["dashboards", str(path), "-o", str(tmp_path), "--model", "m"]) == 0
    assert (tmp_path / "m.rules.yml").exists()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_rules_and_metrics(written):
    for path in written:
        if path.suffix == ".yml":
            checked = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposition(watched()[0]), capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr


def message():
    """`MetricFamily` as Prometheus' metrics.proto declares it, the fields that are written."""
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="p", syntax="proto2")
    kinds = {"string": 9, "double": 1, "uint64": 4, "sint32": 17, "sint64": 18, "uint32": 13, "enum": 5}
    declared = {
        "LabelPair": "name=1:string value=2:string",
        "Number": "value=1:double",
        "BucketSpan": "offset=1:sint32 length=2:uint32",
        "Histogram": "sample_count=1:uint64 sample_sum=2:double schema=5:sint32 zero_threshold=6:double zero_count=7:uint64 "
        "negative_span=9:*BucketSpan negative_delta=10:*sint64 positive_span=12:*BucketSpan positive_delta=13:*sint64",
        "Metric": "label=1:*LabelPair gauge=2:Number counter=3:Number histogram=7:Histogram",
        "MetricFamily": "name=1:string help=2:string type=3:enum metric=4:*Metric",
    }
    for name, fields in declared.items():
        one = file.message_type.add(name=name)
        for field in fields.split():
            key, kind = field.split(":")
            label, number = key.split("=")
            plain = kind.lstrip("*")
            added = one.field.add(name=label, number=int(number), label=3 if kind[0] == "*" else 1, type=kinds.get(plain, 11))
            if plain not in kinds:
                added.type_name = f".p.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.MetricFamily"))


def read(data):
    kind, at = message(), 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield kind.FromString(data[at : at + size])
        at += size


def test_protobuf_says_what_the_text_says_and_the_native_histogram_loses_nothing():
    monitor, seconds = watched()
    families = {family.name: family for family in read(exposition(monitor, format="protobuf"))}
    text = {}
    for family in text_string_to_metric_families(exposition(monitor).decode()):
        for sample in family.samples:
            text[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    compared = 0
    for name, family in families.items():
        for metric in family.metric:
            labels = tuple(sorted((pair.name, pair.value) for pair in metric.label))
            if family.type == 4:
                continue
            value = metric.counter.value if family.type == 0 else metric.gauge.value
            assert text[name, labels] == pytest.approx(value, rel=1e-12)
            compared += 1
    assert compared > 15
    histogram = families["barograph_call_seconds"].metric[0].histogram
    counts = np.cumsum(histogram.positive_delta)
    assert (histogram.sample_count, counts.sum(), histogram.schema) == (1000, 1000, 6)
    assert histogram.sample_sum == pytest.approx(seconds.sum(), rel=0.0055)
    indices, at = [], 0
    for span in histogram.positive_span:
        at += span.offset
        indices.extend(range(at, at + span.length))
        at += span.length
    expected = np.unique(np.ceil(np.log2(seconds) * 64).astype(int), return_counts=True)
    assert (indices == expected[0]).all()
    assert (counts == expected[1]).all()
    below = {labels[0][1]: value for (name, labels), value in text.items() if name == "barograph_call_seconds_bucket"}
    assert below["0.0078125"] == (seconds <= 2**-7).sum()
    with pytest.raises(bg.errors.InvalidArgumentError, match="`format`"):
        exposition(monitor, format="json")
    assert exposition(monitor, format="openmetrics").endswith(b"# EOF\n")

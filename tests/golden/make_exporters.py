"""Makes the golden messages of the server's exporters with other people's encoders, and reads its golden texts with the reference parsers.

Versions: protobuf 7.36.2, opentelemetry-proto 1.45.2, prometheus_client 0.26.0. Run it from the top folder. What is described here is
`example()` in rust/server/src/exporters/mod.rs; buckets are computed from the values by their definition, not by a sketch. The declarations
are those of metrics.proto: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

import math
import sys
from fractions import Fraction
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.encoder import _VarintBytes
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

FOLDER = Path("rust/server/src/exporters/golden")
HOSTILE = 'a"b\\c\nd é 漢 \U0001f600\\n\r\x85\u2028'
VALUES = [0.0, 1e-6, 0.25, math.nextafter(0.25, 1), 0.3, 1.0, 1.0, 1.0, 64.0, 65.0]
SCALE = 6
SUM = 132.800001
BOUNDS = [2.0**power for power in range(-12, 7)]
FAMILIES = [
    ("gauge", "barograph_dropped_series", "Series left out of this answer, over the limit.", "", [({}, 0)]),
    (
        "counter",
        "barograph_events_total",
        "Events observed.",
        "",
        [({"model": HOSTILE}, 9_007_199_254_740_993), ({"model": "fraud"}, 2.5)],
    ),
    (
        "gauge",
        "barograph_drift",
        'Tested "scores"\nof C:\\the last window.',
        "",
        [({"model": "fraud", "column": "", "method": "psi"}, -1e-9)],
    ),
    ("gauge", "barograph_window_end_timestamp_seconds", "End of the last window.", "seconds", [({}, 1.7e9)]),
    (
        "histogram",
        "barograph_call_seconds",
        "Seconds that calls took.",
        "seconds",
        [({"model": "fraud"}, VALUES), ({"model": "idle"}, [])],
    ),
]


def cells():
    """Bucket i holds `(2**((i - 1) / 2**SCALE), 2**(i / 2**SCALE)]`; powers of fractions say it exactly."""
    found = {}
    for value in filter(None, VALUES):
        power = Fraction(value) ** 2**SCALE
        index = math.floor(math.log2(value) * 2**SCALE) - 1
        while power > Fraction(2) ** index:
            index += 1
        found[index] = found.get(index, 0) + 1
    return sorted(found.items())


def declared():
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="p", syntax="proto2")
    kinds = {"string": 9, "double": 1, "uint64": 4, "sint32": 17, "sint64": 18, "uint32": 13, "enum": 5}
    messages = {
        "LabelPair": "name=1:string value=2:string",
        "Number": "value=1:double",
        "Bucket": "cumulative_count=1:uint64 upper_bound=2:double",
        "BucketSpan": "offset=1:sint32 length=2:uint32",
        "Histogram": "sample_count=1:uint64 sample_sum=2:double bucket=3:*Bucket schema=5:sint32 zero_threshold=6:double "
        "zero_count=7:uint64 negative_span=9:*BucketSpan negative_delta=10:*sint64 positive_span=12:*BucketSpan positive_delta=13:*sint64",
        "Metric": "label=1:*LabelPair gauge=2:Number counter=3:Number histogram=7:Histogram",
        "MetricFamily": "name=1:string help=2:string type=3:enum metric=4:*Metric unit=5:string",
    }
    for name, fields in messages.items():
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


def protobuf():
    out, kind_of = b"", {"counter": 0, "gauge": 1, "histogram": 4}
    for kind, name, text, unit, series in FAMILIES:
        family = declared()(name=name, help=text, type=kind_of[kind])
        if unit:
            family.unit = unit
        for labels, value in series:
            metric = family.metric.add()
            for key, label in labels.items():
                metric.label.add(name=key, value=label)
            if kind != "histogram":
                getattr(metric, kind).value = value
                continue
            histogram = metric.histogram
            histogram.sample_count, histogram.sample_sum = len(value), SUM if value else 0.0
            for bound in BOUNDS:
                histogram.bucket.add(cumulative_count=sum(x <= bound for x in value), upper_bound=bound)
            histogram.schema, histogram.zero_threshold, histogram.zero_count = SCALE, 0.0, value.count(0.0)
            end, before = 0, 0
            for index, count in cells() if value else ():
                if histogram.positive_span and index == end:
                    histogram.positive_span[-1].length += 1
                else:
                    histogram.positive_span.add(offset=index - end, length=1)
                histogram.positive_delta.append(count - before)
                end, before = index + 1, count
            if not value:
                histogram.positive_span.add(offset=0, length=0)
        whole = family.SerializeToString(deterministic=True)
        out += _VarintBytes(len(whole)) + whole
    return out


def otlp():
    began, now = 1_700_000_000_000_000_000, 1_700_000_060_000_000_001
    names = {"barograph_call_seconds": "barograph.latency", "barograph_window_end_timestamp_seconds": "barograph.window_end_timestamp"}
    request = ExportMetricsServiceRequest()
    sender = request.resource_metrics.add()
    for key, value in (("service.name", "barograph"), ("host.name", 'é"\n')):
        sender.resource.attributes.add(key=key).value.string_value = value
    scope = sender.scope_metrics.add()
    scope.scope.name, scope.scope.version = "barograph", "0.1.0"
    for kind, name, text, unit, series in FAMILIES:
        short = names.get(name, name.removesuffix("_total").replace("_", ".", 1))
        metric = scope.metrics.add(name=short, description=text, unit="s" if unit else "1")
        data = {"counter": metric.sum, "gauge": metric.gauge, "histogram": metric.exponential_histogram}[kind]
        if kind == "counter":
            data.is_monotonic = True
        if kind != "gauge":
            data.aggregation_temporality = 2
        for labels, value in series:
            point = data.data_points.add(time_unix_nano=now)
            if kind != "gauge":
                point.start_time_unix_nano = began
            for key, label in labels.items():
                point.attributes.add(key="barograph.model" if key == "model" else key).value.string_value = label
            if kind != "histogram":
                setattr(point, "as_int" if isinstance(value, int) else "as_double", value)
                continue
            point.count, point.sum, point.scale, point.zero_count = len(value), SUM if value else 0.0, SCALE, value.count(0.0)
            if value:
                counts = dict(cells())
                # A bucket's number is that of its start here.
                point.positive.offset = min(counts) - 1
                point.positive.bucket_counts.extend(counts.get(index, 0) for index in range(min(counts), max(counts) + 1))
    return request.SerializeToString(deterministic=True)


def check(text, families):
    found = {}
    for family in families:
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    for kind, name, _, _, series in FAMILIES:
        for labels, value in series:
            if kind != "histogram":
                assert float(found.pop((name, tuple(sorted(labels.items()))))) == float(value), (name, labels)
                continue
            for suffix, expected in (("count", len(value)), ("sum", SUM if value else 0.0)):
                assert found.pop((f"{name}_{suffix}", tuple(sorted(labels.items())))) == expected
            for bound in [*BOUNDS, math.inf]:
                text_bound = "+Inf" if bound == math.inf else repr(bound)
                key = (f"{name}_bucket", tuple(sorted({**labels, "le": text_bound}.items())))
                assert found.pop(key) == sum(x <= bound for x in value), key
    assert not found, found


for file, parse in (("example.prom", prometheus), ("example.openmetrics", openmetrics)):
    if (FOLDER / file).exists():
        text = (FOLDER / file).read_bytes().decode()
        families = list(parse(text))
        check(text, families)
        assert [family.documentation for family in families] == [family[2] for family in FAMILIES]
        assert [family.type for family in families] == [family[0] for family in FAMILIES]
        if parse is openmetrics:
            assert [family.unit for family in families] == [family[3] for family in FAMILIES]
        print(f"{file} says what it should", file=sys.stderr)
(FOLDER / "example.protobuf").write_bytes(protobuf())
(FOLDER / "example.otlp").write_bytes(otlp())

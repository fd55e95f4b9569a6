// The pictures of a model over time: one axis, one brush, the same marks in each.
import { useMemo, useState } from "preact/hooks";
import type { Asked } from "../asking";
import type { Line, Quality, Series } from "../documents";
import { count, measured, method, metricsOf, number, seconds, share } from "../format";
import { Panel } from "../panel";
import type { Range } from "../range";
import { type Curve, TimeChart, type TimeChartProps } from "../timechart";

export interface TimelineProps {
  series: Asked<Series>;
  range: Range;
  brushed: (start: number, end: number) => void;
}

export function curve(line: Line, label: string): Curve {
  const banded = line.lower.some((value) => value !== null) && line.upper.some((value) => value !== null);
  return { label, times: line.times, values: line.values, ...(banded ? { lower: line.lower, upper: line.upper } : {}) };
}

function model(series: Series, word: string): Line | undefined {
  return series.lines.find((line) => line.column === "(model)" && line.method === word);
}

/** Points further apart than this are not joined: a window, or as many as one point stands for. */
export function stepOf(series: Series): number {
  const thinned = Math.max(1, ...series.lines.map((line) => line.windows / Math.max(1, line.times.length)));
  return series.window_seconds * 1e9 * (thinned > 1 ? 2.5 * 2 * thinned : 1.5);
}

function shared({ range, brushed }: TimelineProps, series: Series): Pick<TimeChartProps, "gaps" | "marks" | "step" | "range" | "brushed"> {
  const whole: [number, number] | null = series.since !== null && series.until !== null ? [series.since, series.until] : null;
  return { gaps: series.gaps, marks: series.marks, step: stepOf(series), range: range ?? whole, brushed };
}

/** A picture of lines that are picked out of the series. */
function Drawn({ series, pick, props, ...rest }: { series: Series; pick: (series: Series) => Curve[]; props: TimelineProps } & Pick<TimeChartProps, "title" | "tell" | "floor" | "height" | "limit">) {
  const curves = useMemo(() => pick(series), [series, pick]);
  return <TimeChart curves={curves} {...rest} {...shared(props, series)} />;
}

function lines(series: Series, wanted: [string, string][]): Curve[] {
  return wanted.flatMap(([word, label]) => {
    const line = model(series, word);
    return line ? [curve(line, label)] : [];
  });
}
const volume = (series: Series): Curve[] => lines(series, [["events", "events"]]).map((one) => ({ ...one, bars: true }));
const latency = (series: Series): Curve[] => lines(series, [["latency_p99", "p99"], ["latency_p50", "p50"]]);
const errors = (series: Series): Curve[] => lines(series, [["error_rate", "error rate"]]);

export function Volume(props: TimelineProps) {
  return (
    <Panel title="Volume" unit="events per window" asked={props.series} empty={(series) => (model(series, "events") ? null : "No window has closed in this time.")} tall>
      {(series) => <Drawn series={series} pick={volume} props={props} title="Volume" tell={count} floor={0} height={116} />}
    </Panel>
  );
}

export function Latency(props: TimelineProps) {
  return (
    <Panel title="Latency" unit="of a call, by window" asked={props.series} empty={(series) => (model(series, "latency_p99") ? null : "No latencies were sent in this time.")} tall>
      {(series) => <Drawn series={series} pick={latency} props={props} title="Latency" tell={seconds} floor={0} height={130} />}
    </Panel>
  );
}

export function Errors(props: TimelineProps) {
  const line = props.series.data ? model(props.series.data, "error_rate") : undefined;
  if (!line || line.values.every((value) => value === 0)) return null;
  return (
    <Panel title="Errors" unit="share of calls" asked={props.series} empty={() => null} tall>
      {(series) => <Drawn series={series} pick={errors} props={props} title="Errors" tell={share} floor={0} height={116} />}
    </Panel>
  );
}

export function QualityOverTime(props: TimelineProps & { quality: Asked<Quality> }) {
  const tiles = props.quality.data?.tiles ?? [];
  const known = metricsOf(tiles.flatMap((tile) => [...tile.metrics, ...(tile.estimated ?? [])].map((metric) => metric.metric)));
  const [chosen, setChosen] = useState<string | null>(null);
  const word = chosen && known.includes(chosen) ? chosen : (known[0] ?? "");
  return (
    <Panel
      title="Quality"
      {...(word ? { unit: method(word) } : {})}
      asked={props.quality}
      empty={(quality) =>
        known.length > 0 && tiles.every((tile) => [...tile.metrics, ...(tile.estimated ?? [])].every((metric) => metric.metric !== word || metric.reason))
          ? `${count(quality.labels)} labels have come, too few in each window of this time to judge by.`
          : known.length > 0 ? null : quality.labels > 0 ? `${count(quality.labels)} labels have come, and none of them for an event of this time.` : "No labels have come: there is no realised quality to show."
      }
      extra={
        known.length > 1 ? (
          <label>
            <span class="hidden">Metric</span>
            <select value={word} onChange={(event) => setChosen(event.currentTarget.value)}>
              {known.map((metric) => (
                <option key={metric} value={metric}>
                  {method(metric)}
                </option>
              ))}
            </select>
          </label>
        ) : null
      }
      tall
    >
      {() => <QualityChart {...props} word={word} />}
    </Panel>
  );
}

function QualityChart(props: TimelineProps & { quality: Asked<Quality>; word: string }) {
  const { word } = props;
  const data = props.quality.data;
  const curves = useMemo(() => {
    const of = (label: string, pick: "metrics" | "estimated"): Curve => {
      const points = (data?.tiles ?? []).flatMap((tile) => {
        const found = (tile[pick] ?? []).find((metric) => metric.metric === word);
        return found && found.value !== null && !found.reason ? [{ time: tile.start, ...found, value: found.value }] : [];
      });
      return {
        label,
        times: points.map((point) => point.time),
        values: points.map((point) => point.value),
        lower: points.map((point) => point.lower),
        upper: points.map((point) => point.upper),
      };
    };
    return [of("realised", "metrics"), of("estimated without labels", "estimated")].filter((one) => one.times.length > 0);
  }, [data, word]);
  const series = props.series.data;
  const longest = Math.max(0, ...(data?.tiles ?? []).map((tile) => tile.end - tile.start));
  if (!series) return null;
  const { step, ...rest } = shared(props, series);
  return <TimeChart title={`Quality, ${method(word)}`} curves={curves} tell={(value) => measured(word, value)} height={140} step={Math.max(step, 1.5 * longest)} {...rest} />;
}

function drifting(series: Series): Line[] {
  const found = series.lines.filter((line) => line.method === "psi" && line.values.length > 0);
  return found.sort((a, b) => Math.max(...b.values) - Math.max(...a.values)).slice(0, 5);
}
const drift = (series: Series): Curve[] => drifting(series).map((line) => ({ label: line.column, times: line.times, values: line.values }));

export function Drift(props: TimelineProps) {
  return (
    <Panel
      title="Drift"
      unit="PSI of the columns that moved most"
      asked={props.series}
      empty={(series) => (drifting(series).length > 0 ? null : "No window was compared with the reference in this time.")}
      tall
    >
      {(series) => {
        const limit = drifting(series).find((line) => line.threshold !== null)?.threshold ?? null;
        return (
          <Drawn
            series={series}
            pick={drift}
            props={props}
            title="Drift"
            tell={(value) => number(value, 3)}
            floor={0}
            height={150}
            limit={limit === null ? null : { value: limit, label: `tolerance ${number(limit)}` }}
          />
        );
      }}
    </Panel>
  );
}

// One column: reference and current over each other, what moved, and the history of its score.
import { useMemo } from "preact/hooks";
import { type Asked, useAsked } from "../asking";
import { Histogram, Names } from "../bars";
import type { Column, Row, Series, Summary } from "../documents";
import { count, instant, iso, measured, method, named, number, share, span } from "../format";
import { Panel, Behind } from "../panel";
import { curve, stepOf } from "../panels/timeline";
import { api, link } from "../route";
import { type Head, Table } from "../table";
import { TimeChart } from "../timechart";
import { Badge, ORDER } from "../verdict";

export function ColumnView({ model, name, query, beat }: { model: string; name: string; query: URLSearchParams; beat: number }) {
  const [start, end] = [query.get("start"), query.get("end")];
  const place = `columns/${encodeURIComponent(name)}`;
  const asked = useAsked<Column>(api(model, place, { window: start ? null : query.get("window"), start, end }), beat);
  const series = useAsked<Series>(api(model, "series", { column: name, points: 600 }), beat);
  const column = asked.data;
  const here = (more: Record<string, string | null>) => link(["models", model, "columns", name], more);
  return (
    <>
      <div class={`headline ${column?.verdict ?? ""}`}>
        <h1 class="columnname">
          <bdi>{named(name)}</bdi>
        </h1>
        {column ? (
          <>
            <p class="verdictline">
              <Badge of={column.verdict} large />{" "}
              <span class="soft">
                {`${column.role} of `}
                <a href={link(["models", model])} class="name">
                  <bdi>{named(model)}</bdi>
                </a>
                {`, ${column.kind}`}
              </span>
            </p>
            <p class="whyline">{column.reason ? <bdi>{column.reason}</bdi> : column.rows.find((row) => row.verdict === column.verdict && row.reason)?.reason}</p>
            <p class="soft">
              {span(column.window_start, column.window_end)}
              {column.provisional ? ", still open" : ""}: {count(column.n_current)} events against {count(column.n_reference)} of reference <code>{column.reference.slice(0, 8)}</code>
              {column.reference_created === null ? "" : ` (${instant(column.reference_created)} UTC)`}
            </p>
          </>
        ) : null}
        <nav class="chips" aria-label="Window">
          <a href={here({})} aria-current={!start && !query.get("window") ? "true" : "false"}>
            last closed
          </a>
          <a href={here({ window: "open" })} aria-current={query.get("window") === "open" ? "true" : "false"}>
            open
          </a>
          {start ? (
            <a href={here({ start, end })} aria-current="true">
              {span(Date.parse(start) * 1e6, Date.parse(end ?? "") * 1e6)}
            </a>
          ) : null}
        </nav>
      </div>
      <div class="two">
        <Panel title="Distribution" unit="share of events" asked={asked} empty={(data) => (data.bars || data.bins.length > 0 ? null : (data.reason ?? "There is nothing to draw."))} tall>
          {(data) => <Distribution column={data} />}
        </Panel>
        <Panel title="What moved" unit="contribution to the PSI over all bins" asked={asked} empty={(data) => (data.bins.length > 0 ? null : "No bin differs.")} tall>
          {(data) => <Bins column={data} />}
        </Panel>
      </div>
      <History series={series} window={(from, to) => here({ start: iso(from), end: iso(to) })} />
      <div class="two">
        <Panel title="Shares" unit="of all events" asked={asked} empty={(data) => (data.shares.length > 0 ? null : "Nothing is counted apart.")}>
          {(data) => <Pairs caption="Shares of what is no ordinary value" rows={data.shares.map((one) => ({ name: one.name, reference: share(one.reference), current: share(one.current) }))} head="What" />}
        </Panel>
        <Panel title={column?.quantiles.length ? "Quantiles" : "Commonest names"} asked={asked} empty={(data) => (data.quantiles.length + data.names.length > 0 ? null : "It has neither numbers nor names.")}>
          {(data) =>
            data.quantiles.length > 0 ? (
              <Pairs caption="Quantiles" head="Quantile" rows={quantileRows(data)} />
            ) : (
              <Pairs caption="Commonest names" head="Name" rows={data.names.map((one) => ({ name: named(one.name), reference: share(one.reference), current: share(one.current) }))} />
            )
          }
        </Panel>
      </div>
      <Panel title="All methods" asked={asked} empty={(data) => (data.rows.length > 0 ? null : "Nothing was measured.")}>
        {(data) => <Table caption="Every method" rows={data.rows} heads={METHODS} of={(row) => row.method} />}
      </Panel>
    </>
  );
}

function Distribution({ column }: { column: Column }) {
  return (
    <>
      {column.bars ? column.bars.edges ? <Histogram column={column} /> : <Names column={column} /> : <p class="empty">The values are too extreme to be drawn on one axis; the bins are beside it.</p>}
      {column.bars ? (
        <Behind title="Table of the distribution">
          {() => (
            <Pairs
              caption="Distribution"
              head="Bar"
              rows={(column.bars?.labels ?? []).map((label, at) => ({ name: label, reference: share(column.bars?.reference[at]), current: share(column.bars?.current[at]) }))}
            />
          )}
        </Behind>
      ) : null}
    </>
  );
}

function Bins({ column }: { column: Column }) {
  const most = Math.max(...column.bins.map((bin) => bin.contribution), 1e-12);
  const heads: Head<Column["bins"][number]>[] = [
    {
      name: "bin",
      title: "Bin",
      heads: true,
      cell: (bin) => (
        <bdi class="name" title={bin.bin}>
          {named(bin.bin)}
        </bdi>
      ),
    },
    { name: "reference", title: "Reference", right: true, falling: true, by: (bin) => bin.reference, cell: (bin) => share(bin.reference) },
    { name: "current", title: "Current", right: true, falling: true, by: (bin) => bin.current, cell: (bin) => share(bin.current) },
    {
      name: "contribution",
      title: "Adds to PSI",
      right: true,
      falling: true,
      by: (bin) => bin.contribution,
      cell: (bin) => (
        <span class="adds">
          <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect height="10" width={(100 * bin.contribution) / most} />
          </svg>
          {number(bin.contribution, 2)}
        </span>
      ),
    },
  ];
  return <Table caption="Bins, the one that moved most first" rows={column.bins} heads={heads} of={(bin) => bin.bin} page={8} />;
}

function Pairs({ caption, head, rows }: { caption: string; head: string; rows: { name: string; reference: string; current: string }[] }) {
  return (
    <Table
      caption={caption}
      rows={rows}
      of={(row) => row.name}
      page={24}
      heads={[
        {
          name: "name",
          title: head,
          heads: true,
          cell: (row) => (
            <bdi class="name" title={row.name}>
              {row.name}
            </bdi>
          ),
        },
        { name: "reference", title: "Reference", right: true, cell: (row) => row.reference },
        { name: "current", title: "Current", right: true, cell: (row) => row.current },
      ]}
    />
  );
}

function quantileRows(column: Column): { name: string; reference: string; current: string }[] {
  const of = (summary: Summary | null, key: string) => {
    const value = summary?.[key];
    return typeof value === "number" ? number(value) : "–";
  };
  const summed = (key: string, name: string) => ({ name, reference: of(column.reference_summary, key), current: of(column.current_summary, key) });
  const quantiles = column.quantiles.map((one) => ({ name: `${number(100 * one.q)} %`, reference: number(one.reference), current: number(one.current) }));
  return [summed("min", "smallest"), ...quantiles, summed("max", "largest"), summed("mean", "mean"), summed("std", "standard deviation")];
}

const METHODS: Head<Row>[] = [
  { name: "method", title: "Method", heads: true, by: (row) => method(row.method), cell: (row) => method(row.method) },
  { name: "value", title: "Value", right: true, cell: (row) => measured(row.method, row.value) },
  {
    name: "interval",
    title: "Interval",
    right: true,
    spare: 2,
    cell: (row) => (row.lower === null || row.upper === null ? "" : `${measured(row.method, row.lower)} to ${measured(row.method, row.upper)}`),
  },
  { name: "threshold", title: "Tolerance", right: true, cell: (row) => (row.threshold === null ? "" : measured(row.method, row.threshold)) },
  { name: "verdict", title: "Verdict", by: (row) => (row.verdict ? ORDER.indexOf(row.verdict) : 99), cell: (row) => <Badge of={row.verdict} /> },
  { name: "reason", title: "Why", spare: 1, cell: (row) => <span class="why">{row.reason ? <bdi>{row.reason}</bdi> : ""}</span> },
];

function History({ series, window }: { series: Asked<Series>; window: (start: number, end: number) => string }) {
  return (
    <Panel
      title="History of its score"
      unit="PSI against the reference"
      asked={series}
      empty={(data) => (data.lines.some((line) => line.method === "psi") ? null : "No closed window has a score of this column yet.")}
      tall
    >
      {(data) => <Scores series={data} window={window} />}
    </Panel>
  );
}

function Scores({ series, window }: { series: Series; window: (start: number, end: number) => string }) {
  const psi = series.lines.find((line) => line.method === "psi");
  const others = series.lines.filter((line) => line.method !== "psi" && line.values.some((value) => Math.abs(value) > 0));
  const curves = useMemo(() => (psi ? [curve(psi, "PSI")] : []), [psi]);
  if (!psi) return null;
  const whole: [number, number] | null = series.since !== null && series.until !== null ? [series.since, series.until] : null;
  const length = series.window_seconds * 1e9;
  const worst = psi.times.map((time, at) => ({ time, value: psi.values[at] ?? 0 })).sort((a, b) => b.value - a.value).slice(0, 5);
  return (
    <>
      <TimeChart
        title="PSI"
        curves={curves}
        tell={(value) => number(value, 3)}
        gaps={series.gaps}
        marks={series.marks}
        limit={psi.threshold === null ? null : { value: psi.threshold, label: `tolerance ${number(psi.threshold)}` }}
        step={stepOf(series)}
        range={whole}
        floor={0}
        height={150}
      />
      {others.length > 0 ? (
        <p class="soft">
          Last of the others:{" "}
          {others.map((line) => `${method(line.method)} ${measured(line.method, line.values.at(-1))}`).join(", ")}
        </p>
      ) : null}
      <p class="soft">
        Worst windows:{" "}
        {worst.map((one, at) => (
          <span key={one.time}>
            {at > 0 ? ", " : ""}
            <a href={window(one.time, one.time + length)}>
              {instant(one.time)} ({number(one.value, 3)})
            </a>
          </span>
        ))}
      </p>
    </>
  );
}

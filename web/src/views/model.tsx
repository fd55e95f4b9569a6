// One model: what is wrong since when, and its numbers over one axis of time.
import { useCallback } from "preact/hooks";
import { type Asked, useAsked } from "../asking";
import type { Mark, Overview, Quality, Series } from "../documents";
import { ago, instant, iso, measured, method, named, rate, seconds, span } from "../format";
import { Drift, Errors, Latency, QualityOverTime, Volume } from "../panels/timeline";
import { Behind, Guard, Wrong } from "../panel";
import { RangeBar, rangeOf, rangeQuery, type Range } from "../range";
import { api, link } from "../route";
import { judged, since, standing, why } from "../standing";
import { Table } from "../table";
import { Badge, Shape } from "../verdict";
import { ColumnsPanel } from "./columns";

/** The answer to "is it all right, since when not, and why". */
export function Headline({ name, overview }: { name: string; overview: Asked<{ models: Overview[] }> }) {
  const model = overview.data?.models.find((one) => one.name === name);
  if (!model) {
    return (
      <div class="headline">
        <h1>
          <bdi>{named(name)}</bdi>
        </h1>
        {overview.problem ? <Wrong problem={overview.problem} again={overview.again} stale={false} /> : null}
        <p role="status">{overview.loading ? "Loading…" : overview.data ? "There is no model of this name, or the token is not for it." : ""}</p>
      </div>
    );
  }
  const word = standing(model);
  const moved = word === "critical" || word === "warning";
  return (
    <div class={`headline ${word}`}>
      <h1>
        <bdi>{named(name)}</bdi>
      </h1>
      <p class="verdictline">
        <Badge of={word} large />
        {since(model) === null ? null : (
          <>
            {" since "}
            <time>{instant(since(model))} UTC</time> <span class="soft">({ago(since(model))})</span>
          </>
        )}
      </p>
      <p class="whyline">
        <bdi>{why(model)}</bdi>
        {moved && model.worst?.cause ? (
          <>
            <br />
            <span class="soft">
              What moved: <bdi>{model.worst.cause}</bdi>
            </span>
          </>
        ) : null}
      </p>
      <dl class="facts">
        <div>
          <dt>Events/s</dt>
          <dd>{rate(model.events_per_second)}</dd>
        </div>
        <div>
          <dt>Latency p99</dt>
          <dd>{seconds(model.latency_p99)}</dd>
        </div>
        <div>
          <dt>{model.quality ? method(model.quality.metric) : "Quality"}</dt>
          <dd title={model.quality?.reason ?? ""}>
            {model.quality?.reason || !model.quality ? <span class="none">{model.quality ? judged(model.quality) : "no labels"}</span> : judged(model.quality)}
          </dd>
        </div>
        {model.estimate ? (
          <div>
            <dt>{method(model.estimate.metric)}, estimated</dt>
            <dd>{measured(model.estimate.metric, model.estimate.value)}</dd>
          </div>
        ) : null}
        <div>
          <dt>Open alerts</dt>
          <dd>
            <a href={link(["models", name, "alerts"])}>{model.open_pages + model.open_tickets}</a>
          </dd>
        </div>
        <div>
          <dt>Last window</dt>
          <dd class="small">{span(model.window_start, model.window_end)}</dd>
        </div>
      </dl>
    </div>
  );
}

export function Model({ name, query, beat, go }: { name: string; query: URLSearchParams; beat: number; go: (query: Record<string, string | null>) => void }) {
  const range = rangeOf(query);
  const bounds = range ? { since: iso(range[0]), until: iso(range[1]) } : {};
  const series = useAsked<Series>(api(name, "series", { ...bounds, points: 600 }), beat);
  const quality = useAsked<Quality>(api(name, "quality", { ...bounds, points: 200 }), beat);
  const whole = series.data;
  const choose = useCallback((next: Range) => go(rangeQuery(next)), [go]);
  const props = { series, range, brushed: (start: number, end: number) => choose([start, end]) };
  return (
    <>
      <RangeBar range={range} last={whole?.until ?? null} choose={choose} />
      {whole && whole.since === null && range ? (
        <p class="empty block">
          From {span(range[0], range[1])} no event came and no window closed. Choose “All” to see what there is.
        </p>
      ) : null}
      <div class="timeline">
        <Volume {...props} />
        <Latency {...props} />
        <Errors {...props} />
        <QualityOverTime {...props} quality={quality} />
        <Drift {...props} />
      </div>
      {whole ? (
        <Guard of={whole}>
          <Marks name={name} marks={whole.marks} gaps={whole.gaps} />
        </Guard>
      ) : null}
      <ColumnsPanel model={name} beat={beat} />
    </>
  );
}

const WORDS: Record<Mark["kind"], string> = {
  deploy: "deploy",
  reference: "new reference",
  opened: "alert opened",
  escalated: "alert escalated",
  eased: "alert eased",
  resolved: "alert resolved",
};

/** What happened, as a list: the marks in the pictures. */
export function Marks({ name, marks, gaps }: { name: string; marks: Mark[]; gaps: [number, number][] }) {
  const rows = [
    ...marks.map((mark, at) => ({ at, time: mark.time, mark, gap: null as number | null })),
    ...gaps.map(([start, end], at) => ({ at: marks.length + at, time: start, mark: null, gap: end })),
  ].sort((a, b) => b.time - a.time);
  if (rows.length === 0) return null;
  return (
    <section class="panel" aria-label="What happened">
      <p class="key">
        <span class="critical">▼</span> alert opened · <span class="ok">●</span> resolved · flag: deploy · dashed flag: new reference · shaded: no events
      </p>
      <Behind title={`What happened in this time (${rows.length})`}>
        {() => (
          <Table
            caption="What happened, newest first"
            rows={rows}
            of={(row) => String(row.at)}
            heads={[
              { name: "time", title: "Window from (UTC)", heads: true, cell: (row) => instant(row.time) },
              {
                name: "what",
                title: "What",
                cell: (row) =>
                  row.mark ? (
                    row.mark.kind === "deploy" || row.mark.kind === "reference" ? (
                      WORDS[row.mark.kind]
                    ) : (
                      <a href={link(["models", name, "alerts"], { id: String(row.mark.id) })}>
                        <Shape of={row.mark.kind === "resolved" ? "ok" : row.mark.severity === "page" ? "critical" : "warning"} /> {WORDS[row.mark.kind]}
                      </a>
                    )
                  ) : (
                    `no events until ${instant(row.gap)}`
                  ),
              },
              {
                name: "text",
                title: "Of what",
                cell: (row) => (
                  <span class="why">
                    <bdi>{[row.mark?.column, row.mark?.text].filter(Boolean).join(": ")}</bdi>
                  </span>
                ),
              },
            ]}
          />
        )}
      </Behind>
    </section>
  );
}

// Every model in a line, worst first.
import { useMemo, useState } from "preact/hooks";
import type { Asked } from "../asking";
import type { Overview } from "../documents";
import { NONE, ago, count, instant, measured, named, rate, seconds } from "../format";
import { Panel } from "../panel";
import { link } from "../route";
import { judged, qualityName, since, standing, together, why } from "../standing";
import { type Head, Table } from "../table";
import { Badge, ORDER, type Standing } from "../verdict";

interface Line {
  model: Overview;
  standing: Standing;
}

function several(many: number, word: string): string {
  return many === 0 ? "" : `${count(many)} ${word}${many === 1 ? "" : "s"}`;
}

const HEADS: Head<Line>[] = [
  {
    name: "model",
    title: "Model",
    heads: true,
    by: ({ model }) => model.name,
    cell: ({ model }) => (
      <a href={link(["models", model.name])} class="name">
        <bdi>{named(model.name)}</bdi>
      </a>
    ),
  },
  {
    name: "verdict",
    title: "Verdict",
    by: ({ standing }) => ORDER.indexOf(standing),
    cell: ({ standing }) => <Badge of={standing} />,
  },
  {
    name: "since",
    title: "Since",
    by: ({ model }) => since(model),
    cell: ({ model }) => <time title={`${instant(since(model))} UTC`}>{ago(since(model))}</time>,
  },
  {
    name: "why",
    title: "Why",
    spare: 2,
    cell: ({ model }) => (
      <span class="why" title={why(model)}>
        <bdi>{why(model)}</bdi>
      </span>
    ),
  },
  {
    name: "rate",
    title: "Events/s",
    right: true,
    spare: 2,
    falling: true,
    by: ({ model }) => model.events_per_second,
    cell: ({ model }) => rate(model.events_per_second),
  },
  {
    name: "p99",
    title: "Latency p99",
    right: true,
    spare: 2,
    falling: true,
    by: ({ model }) => model.latency_p99,
    cell: ({ model }) => seconds(model.latency_p99),
  },
  {
    name: "quality",
    title: "Quality",
    right: true,
    spare: 1,
    by: ({ model }) => (model.quality?.reason ? null : (model.quality?.value ?? null)),
    cell: ({ model }) =>
      model.quality?.reason ? (
        <span class="none" title={model.quality.reason}>
          {judged(model.quality)}
        </span>
      ) : model.quality ? (
        <span title={model.quality.window_end === null ? "" : `of the window until ${instant(model.quality.window_end)} UTC`}>
          {judged(model.quality)} <small>{qualityName(model)}</small>
        </span>
      ) : (
        <span title="no labels have come">{NONE}</span>
      ),
  },
  {
    name: "estimate",
    title: "Estimated",
    right: true,
    spare: 1,
    by: ({ model }) => model.estimate?.value ?? null,
    cell: ({ model }) =>
      model.estimate ? (
        <span title={`${measured(model.estimate.metric, model.estimate.lower)} to ${measured(model.estimate.metric, model.estimate.upper)}, by the scores of the last window alone`}>
          {measured(model.estimate.metric, model.estimate.value)}
        </span>
      ) : (
        <span title="an estimate needs a binary model with labelled events to calibrate on">{NONE}</span>
      ),
  },
  {
    name: "alerts",
    title: "Alerts",
    right: true,
    falling: true,
    by: ({ model }) => 1000 * model.open_pages + model.open_tickets,
    cell: ({ model }) =>
      model.open_pages + model.open_tickets === 0 ? (
        <span class="none">none</span>
      ) : (
        <a href={link(["models", model.name, "alerts"])}>
          {count(model.open_pages + model.open_tickets)}
          <span class="wide"> ({[several(model.open_pages, "page"), several(model.open_tickets, "ticket")].filter(Boolean).join(", ")})</span>
        </a>
      ),
  },
];

export function Fleet({ overview }: { overview: Asked<{ models: Overview[] }> }) {
  const [only, setOnly] = useState<Standing | null>(null);
  const [text, setText] = useState("");
  const models = overview.data?.models;
  const lines = useMemo(() => (models ?? []).map((model) => ({ model, standing: standing(model) })), [models]);
  const counts = ORDER.map((word) => ({ word, count: lines.filter((line) => line.standing === word).length })).filter((one) => one.count > 0);
  const shown = useMemo(
    () => lines.filter((line) => (!only || line.standing === only) && line.model.name.toLowerCase().includes(text.toLowerCase())),
    [lines, only, text],
  );
  const { head, rest } = together(lines.map((line) => line.standing));
  return (
    <>
      <h1>{head}</h1>
      {rest ? <p class="rest soft">{rest}</p> : null}
      <Worst lines={lines} />
      <Panel
        title="Models"
        asked={overview}
        empty={() => (lines.length === 0 ? "There are no models yet. Events sent to /v1/models/NAME/events make one." : null)}
        extra={
          lines.length > 0 ? (
            <div class="tools">
              <div class="chips" role="group" aria-label="Show only">
                {counts.map(({ word, count: many }) => (
                  <button type="button" key={word} aria-pressed={only === word} onClick={() => setOnly(only === word ? null : word)}>
                    <Badge of={word} /> {count(many)}
                  </button>
                ))}
              </div>
              <label>
                <span class="hidden">Search by name</span>
                <input type="search" placeholder="Search by name" value={text} onInput={(event) => setText(event.currentTarget.value)} />
              </label>
            </div>
          ) : null
        }
      >
        {() =>
          shown.length === 0 ? (
            <p class="empty">No model is like that.</p>
          ) : (
            <Table caption="Models, worst first" rows={shown} heads={HEADS} of={(line) => line.model.name} sorted="verdict" />
          )
        }
      </Panel>
    </>
  );
}

/** Where the table has no room for the reasons: those of the worst models. */
function Worst({ lines }: { lines: Line[] }) {
  const bad = lines.filter(({ standing }) => standing === "critical" || standing === "warning");
  bad.sort((a, b) => ORDER.indexOf(a.standing) - ORDER.indexOf(b.standing));
  if (bad.length === 0) return null;
  return (
    <ul class="worst">
      {bad.slice(0, 3).map(({ model, standing }) => (
        <li key={model.name}>
          <Badge of={standing} />{" "}
          <a href={link(["models", model.name])} class="name">
            <bdi>{named(model.name)}</bdi>
          </a>{" "}
          <span class="soft">{ago(since(model))}</span>
          <span class="why">
            <bdi>{why(model)}</bdi>
          </span>
        </li>
      ))}
      {bad.length > 3 ? <li class="soft">and {count(bad.length - 3)} more below</li> : null}
    </ul>
  );
}

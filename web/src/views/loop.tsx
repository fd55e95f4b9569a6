// The loop back: which labels have come, how long they take, what quality they show, and what was decided on it.
import { useMemo } from "preact/hooks";
import { type Asked, useAsked } from "../asking";
import { Challengers, Requests, Triggers } from "../panels/feedback";
import type { Decision, Feedback, Quality, Series } from "../documents";
import { NONE, count, instant, measured, method, metricsOf, milliseconds, seconds, share } from "../format";
import { Guard, Panel } from "../panel";
import { api } from "../route";
import { type Head, Table } from "../table";
import { TimeChart } from "../timechart";
import { Shape } from "../verdict";
import { Marks } from "./model";

const COUNTS: [string, string][] = [
  ["orphan_labels", "labels that wait for their event, or never had one"],
  ["superseded_labels", "labels that a later one has replaced"],
  ["duplicate_ids", "events whose id had come before"],
  ["dropped", "events that were given up before their label came"],
  ["late", "events that came after their window had closed"],
  ["too_late", "events that came later than the policy allows"],
  ["untimed", "events without a time"],
  ["muted", "alerts that a deploy kept quiet"],
];

export function LoopView({ model, beat }: { model: string; beat: number }) {
  const quality = useAsked<Quality>(api(model, "quality", { points: 300 }), beat);
  const series = useAsked<Series>(api(model, "series", { points: 100, worst: 0 }), beat);
  const decision = useAsked<Decision>(api(model, "decisions"), beat);
  const feedback = useAsked<Feedback>(api(model, "feedback", { limit: 500 }), beat);
  return (
    <>
      <Panel title="May a roll-out go on?" unit="what a controller is told" asked={decision} empty={() => null}>
        {(data) => (
          <p class={`decision ${data.decision}`}>
            <Shape of={data.decision === "pass" ? "ok" : data.decision === "fail" ? "critical" : "waiting"} /> <b>{data.decision}</b>{" "}
            <span class="soft">{data.reason ?? (data.decision === "pass" ? "no alert is open" : "an alert is open")}</span>
          </p>
        )}
      </Panel>
      <Challengers asked={feedback} />
      <div class="two">
        <Triggers asked={feedback} />
        <Requests asked={feedback} />
      </div>
      <Panel
        title="Coverage of labels"
        unit="share of a window's events whose label has come"
        asked={quality}
        empty={(data) => (data.labels === 0 ? "No labels have come. POST them to …/labels with the ids of their events." : data.tiles.length === 0 ? "No events are kept." : null)}
        tall
      >
        {(data) => <Coverage quality={data} series={series} />}
      </Panel>
      <div class="two">
        <Panel title="How long labels take" unit="from the event to its first label" asked={quality} empty={(data) => (data.delays.length > 0 ? null : "No label has found its event yet.")}>
          {(data) => <Delays quality={data} />}
        </Panel>
        <Panel title="Coverage by age of the events" asked={quality} empty={(data) => (data.labels === 0 ? "No labels have come." : null)}>
          {(data) => <Ages quality={data} />}
        </Panel>
      </div>
      <Panel title="Quality by window" unit="by the labels that have come until now" asked={quality} empty={(data) => (data.tiles.some((tile) => tile.metrics.length > 0) ? null : "No window has labelled events.")}>
        {(data) => <Windows quality={data} />}
      </Panel>
      <Panel title="What did not go the usual way" asked={quality} empty={(data) => (Object.keys(data.counts).length === 0 ? "Nothing is counted while the model learns." : null)}>
        {(data) => (
          <dl class="counts">
            <div>
              <dt>labels that have come</dt>
              <dd>{count(data.labels)}</dd>
            </div>
            {COUNTS.filter(([key]) => data.counts[key] !== undefined).map(([key, words]) => (
              <div key={key}>
                <dt>{words}</dt>
                <dd>{count(data.counts[key])}</dd>
              </div>
            ))}
          </dl>
        )}
      </Panel>
      {series.data ? (
        <Guard of={series.data}>
          <Marks name={model} marks={series.data.marks} gaps={[]} />
        </Guard>
      ) : null}
    </>
  );
}

function covered(tile: Quality["tiles"][number]): number | null {
  return tile.events > 0 ? Math.min(1, tile.labelled / tile.events) : null;
}

function Coverage({ quality, series }: { quality: Quality; series: Asked<Series> }) {
  const curves = useMemo(() => {
    const known = quality.tiles.filter((tile) => tile.events > 0);
    return [{ label: "labelled", times: known.map((tile) => tile.start), values: known.map((tile) => covered(tile) ?? 0) }];
  }, [quality]);
  const longest = Math.max(0, ...quality.tiles.map((tile) => tile.end - tile.start));
  return <TimeChart title="Coverage of labels" curves={curves} tell={share} floor={0} limit={{ value: 1, label: "all" }} gaps={series.data?.gaps ?? []} marks={series.data?.marks ?? []} step={1.5 * longest} range={null} height={130} />;
}

/** How long labels took, and the lengths within which half and most of them came. */
function Delays({ quality }: { quality: Quality }) {
  const all = quality.delays.reduce((sum, one) => sum + one.labels, 0);
  let passed = 0;
  const rows = quality.delays.map((one, at) => {
    passed += one.labels;
    const from = quality.delays[at - 1]?.up_to_seconds ?? null;
    return { ...one, name: one.up_to_seconds === null ? `more than ${seconds(from)}` : `up to ${seconds(one.up_to_seconds)}`, within: passed / Math.max(1, all) };
  });
  const within = (part: number) => {
    const row = rows.find((row) => row.within >= part);
    return row?.up_to_seconds == null ? null : seconds(row.up_to_seconds);
  };
  const [half, most] = [within(0.5), within(0.9)];
  return (
    <>
      <p>
        {half ? `Half of the labels came within ${half}` : "Half of the labels took longer than is told apart"}
        {most ? `, nine in ten within ${most}.` : "."}
      </p>
      <Table
        caption="Labels by how long they took"
        rows={rows}
        of={(row) => row.name}
        heads={[
          { name: "length", title: "Took", heads: true, cell: (row) => row.name },
          { name: "labels", title: "Labels", right: true, cell: (row) => count(row.labels) },
          { name: "share", title: "Share", right: true, spare: 2, cell: (row) => share(row.labels / Math.max(1, all)) },
          {
            name: "within",
            title: "Come by then",
            right: true,
            cell: (row) => (
              <span class="adds wide-adds">
                <svg viewBox="0 0 100 9" preserveAspectRatio="none" aria-hidden="true">
                  <rect width={100 * row.within} height="9" />
                </svg>
                {share(row.within)}
              </span>
            ),
          },
        ]}
      />
      <p class="soft">
        Of {count(all)} labels that found their event
        {quality.delays_within_seconds === null ? "" : `, to within ${seconds(quality.delays_within_seconds)}`}. Corrections are not counted again.
      </p>
    </>
  );
}

/** Coverage of all events of about the same age: how many labels are still to come. */
function Ages({ quality }: { quality: Quality }) {
  const now = Date.now();
  const edges = [3600, 6 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400, Infinity];
  const rows = edges.map((edge, at) => {
    const from = edges[at - 1] ?? 0;
    const aged = quality.tiles.filter((tile) => {
      const age = (now - milliseconds(tile.end)) / 1000;
      return age >= from && age < edge;
    });
    const events = aged.reduce((sum, tile) => sum + tile.events, 0);
    return { name: edge === Infinity ? `older than ${seconds(from)}` : `${at === 0 ? "less than" : `${seconds(from)} to`} ${seconds(edge)}`, events, labelled: aged.reduce((sum, tile) => sum + tile.labelled, 0) };
  });
  return (
    <Table
      caption="Coverage by age"
      rows={rows.filter((row) => row.events > 0)}
      of={(row) => row.name}
      heads={[
        { name: "age", title: "Age", heads: true, cell: (row) => row.name },
        { name: "events", title: "Events", right: true, cell: (row) => count(row.events) },
        { name: "covered", title: "Labelled", right: true, cell: (row) => share(row.labelled / row.events) },
      ]}
    />
  );
}

function Windows({ quality }: { quality: Quality }) {
  const words = metricsOf(quality.tiles.flatMap((tile) => tile.metrics.map((metric) => metric.metric)));
  const rows = quality.tiles.filter((tile) => tile.metrics.length > 0).reverse();
  type Tile = Quality["tiles"][number];
  const heads: Head<Tile>[] = [
    { name: "time", title: "From (UTC)", heads: true, by: (tile) => tile.start, falling: true, cell: (tile) => instant(tile.start) },
    { name: "labelled", title: "Labelled", right: true, by: (tile) => covered(tile), cell: (tile) => `${count(tile.labelled)} (${share(covered(tile))})` },
    ...words.map((word, at): Head<Tile> => {
      const of = (tile: Tile) => tile.metrics.find((metric) => metric.metric === word);
      return {
        name: word,
        title: method(word),
        right: true,
        ...(at > 1 ? { spare: 2 as const } : {}),
        by: (tile) => (of(tile)?.reason ? null : (of(tile)?.value ?? null)),
        cell: (tile) => {
          const found = of(tile);
          if (!found) return NONE;
          if (found.reason)
            return (
              <span class="none" title={found.reason}>
                too few labels
              </span>
            );
          return (
            <span>
              {measured(word, found.value)}
              {found.lower !== null && found.upper !== null ? (
                <small class="wide">
                  {" "}
                  {measured(word, found.lower)} to {measured(word, found.upper)}
                </small>
              ) : null}
            </span>
          );
        },
      };
    }),
  ];
  return <Table caption="Quality by window, newest first" rows={rows} of={(tile) => String(tile.start)} heads={heads} page={15} />;
}

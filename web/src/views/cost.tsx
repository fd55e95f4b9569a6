// What watching costs: the process against its budget, what was left out to keep to it, and what each model takes.
import { useAsked } from "../asking";
import type { Budget as BudgetOf, Models } from "../documents";
import { NONE, bytes, count, named, number, seconds, share } from "../format";
import { Panel } from "../panel";
import { link } from "../route";
import { type Head, Table } from "../table";

type Line = Models["models"][number];

const HEADS: Head<Line>[] = [
  {
    name: "model",
    title: "Model",
    heads: true,
    by: (line) => line.name,
    cell: (line) => (
      <a class="name" href={link(["models", line.name])}>
        <bdi>{named(line.name)}</bdi>
      </a>
    ),
  },
  { name: "events", title: "Events", right: true, falling: true, by: (line) => line.events, cell: (line) => count(line.events) },
  { name: "memory", title: "Memory", right: true, falling: true, by: (line) => line.memory_bytes, cell: (line) => bytes(line.memory_bytes) },
  {
    name: "sampled",
    title: "Sampled out",
    right: true,
    falling: true,
    by: (line) => line.sampled_out,
    cell: (line) => (line.sampled_out === 0 ? <span class="none">none</span> : `${count(line.sampled_out)} (${share(line.sampled_out / Math.max(1, line.events))})`),
  },
  {
    name: "given_up",
    title: "Pooled or given up",
    spare: 2,
    cell: (line) => {
      const told = [line.given_up, line.forgotten > 0 ? `${count(line.forgotten)} tiles of past windows` : null].filter(Boolean).join("; ");
      return told ? (
        <span class="why" title={told}>
          {told}
        </span>
      ) : (
        <span class="none">nothing</span>
      );
    },
  },
  { name: "labels", title: "Labels", right: true, falling: true, spare: 2, by: (line) => line.labels, cell: (line) => count(line.labels) },
  { name: "requests", title: "Requests", right: true, falling: true, spare: 1, by: (line) => line.requests, cell: (line) => count(line.requests) },
  { name: "rejected", title: "Rejected", right: true, falling: true, spare: 1, by: (line) => line.rejected, cell: (line) => count(line.rejected) },
  { name: "late", title: "Late", right: true, falling: true, spare: 1, by: (line) => line.late, cell: (line) => count(line.late) },
  { name: "unknown", title: "Unknown fields", right: true, falling: true, spare: 1, by: (line) => line.unknown_fields, cell: (line) => count(line.unknown_fields) },
  { name: "mistyped", title: "Mistyped fields", right: true, falling: true, spare: 1, by: (line) => line.mistyped_fields, cell: (line) => count(line.mistyped_fields) },
];

/** Keys of a budget with their units. */
const BUDGETS: [keyof BudgetOf["limits"], string, (value: number) => string][] = [
  ["cpu", "Processor, of one core", share],
  ["memory", "Memory", bytes],
  ["disk", "Disk", bytes],
  ["wire", "Network", (value) => `${bytes(value)}/s`],
];

export function Cost({ beat }: { beat: number }) {
  const asked = useAsked<Models>("/v1/models", beat);
  return (
    <>
      <h1>What watching costs</h1>
      <Panel title="The sidecar" asked={asked} empty={() => null}>
        {({ server, models }) => (
          <>
            {server.problems.length > 0 ? (
              <div role="alert">
                <ul class="problems">
                  {server.problems.map((problem) => (
                    <li key={problem}>{problem}</li>
                  ))}
                </ul>
              </div>
            ) : null}
            <dl class="facts">
              <Fact name="Memory" value={bytes(server.memory_bytes)} />
              <Fact name="Waiting to be counted" value={bytes(server.queue_bytes)} />
              <Fact name="Events taken" value={count(server.events_total)} />
              <Fact name="Events/s since it started" value={number(server.events_total / Math.max(1, server.uptime_seconds), 3)} />
              <Fact name="Rejected" value={count(server.rejected_total)} />
              <Fact name="Sampled out" value={count(models.reduce((sum, model) => sum + model.sampled_out, 0))} />
              <Fact name="Up" value={seconds(server.uptime_seconds)} />
              <Fact name="Version" value={server.version} />
            </dl>
          </>
        )}
      </Panel>
      <Panel title="Against its budget" asked={asked} empty={({ server }) => (server.budget ? null : "This sidecar does not say what it may cost.")}>
        {({ server }) => (server.budget ? <Budget budget={server.budget} /> : null)}
      </Panel>
      <Panel title="By model" asked={asked} empty={(data) => (data.models.length === 0 ? "There are no models yet." : null)}>
        {(data) => <Table caption="Models by what they take" rows={data.models} heads={HEADS} of={(line) => line.name} sorted="events" />}
      </Panel>
    </>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Budget({ budget }: { budget: BudgetOf }) {
  const stated = BUDGETS.some(([key]) => typeof budget.limits[key] === "number");
  return (
    <>
      <p>
        {!stated
          ? "No limit is stated: it takes what it needs, and leaves nothing out."
          : budget.inclusion < 1
            ? `To keep to its budget it counts ${share(budget.inclusion)} of events, each for as many as it stands for: numbers stay true, their intervals get wider.`
            : "Within its budget every event is counted."}{" "}
        {budget.given_up ? `Detail given up: ${budget.given_up}.` : ""}
        {budget.over ? " A limit cannot be kept to: nothing more can be left out for it." : ""}
      </p>
      <Table
        caption="What it uses and may use"
        rows={BUDGETS}
        of={([key]) => key}
        heads={[
          { name: "what", title: "Of", heads: true, cell: ([, name]) => name },
          {
            name: "used",
            title: "Used",
            right: true,
            // The disk is looked through only where it has a limit.
            cell: ([key, , tell]) => (key === "disk" && budget.limits.disk === null ? NONE : tell(budget.used[key] ?? 0)),
          },
          { name: "limit", title: "Limit", right: true, cell: ([key, , tell]) => (typeof budget.limits[key] === "number" ? tell(budget.limits[key] ?? 0) : <span class="none">none stated</span>) },
          { name: "part", title: "Part of it", cell: ([key]) => <Part used={budget.used[key] ?? 0} limit={budget.limits[key]} /> },
        ]}
      />
      {stated ? null : (
        <p class="soft">
          Limits stand in <code>[budget]</code> of barograph.toml: <code>cpu</code>, <code>memory</code>, <code>disk</code>, <code>wire</code>.
        </p>
      )}
    </>
  );
}

function Part({ used, limit }: { used: number; limit: number | null }) {
  if (limit === null || limit <= 0) return <span class="none">{NONE}</span>;
  const part = used / limit;
  return (
    <span class="part">
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <rect class="rule" width="100" height="8" />
        <rect class={part > 1 ? "over" : "spent"} width={100 * Math.min(1, part)} height="8" />
      </svg>
      {share(part)}
      {part > 1 ? ", over" : ""}
    </span>
  );
}

// What watching costs: the process, and what each model gave it to do, against a budget where there is one.
import { useAsked } from "../asking";
import type { Budget as BudgetOf, Models } from "../documents";
import { bytes, count, named, number, seconds, share } from "../format";
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
  {
    name: "sampled",
    title: "Sampled out",
    right: true,
    falling: true,
    by: (line) => line.sampled_out,
    cell: (line) => (line.sampled_out === 0 ? "0" : `${count(line.sampled_out)} (${share(line.sampled_out / Math.max(1, line.events))})`),
  },
  { name: "labels", title: "Labels", right: true, falling: true, spare: 2, by: (line) => line.labels, cell: (line) => count(line.labels) },
  { name: "requests", title: "Requests", right: true, falling: true, spare: 1, by: (line) => line.requests, cell: (line) => count(line.requests) },
  { name: "rejected", title: "Rejected", right: true, falling: true, spare: 2, by: (line) => line.rejected, cell: (line) => count(line.rejected) },
  { name: "late", title: "Late", right: true, falling: true, spare: 1, by: (line) => line.late, cell: (line) => count(line.late) },
  { name: "unknown", title: "Unknown fields", right: true, falling: true, spare: 1, by: (line) => line.unknown_fields, cell: (line) => count(line.unknown_fields) },
  { name: "mistyped", title: "Mistyped fields", right: true, falling: true, spare: 1, by: (line) => line.mistyped_fields, cell: (line) => count(line.mistyped_fields) },
];

/** Keys of a budget with their units; what is not limited is not shown. */
const BUDGETS: [keyof BudgetOf["limits"], string, (value: number) => string][] = [
  ["cpu", "Processor, share of a core", share],
  ["memory", "Memory", bytes],
  ["disk", "Disk", bytes],
  ["wire", "Network, per second", (value) => `${bytes(value)}/s`],
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
              <Fact name="On its way" value={bytes(server.queue_bytes)} />
              <Fact name="Events taken" value={count(server.events_total)} />
              <Fact name="Events/s since it started" value={number(server.events_total / Math.max(1, server.uptime_seconds), 3)} />
              <Fact name="Rejected" value={count(server.rejected_total)} />
              <Fact name="Sampled out" value={count(models.reduce((sum, model) => sum + model.sampled_out, 0))} />
              <Fact name="Up" value={seconds(server.uptime_seconds)} />
              <Fact name="Version" value={server.version} />
            </dl>
            <Budget budget={server.budget} />
          </>
        )}
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

function Budget({ budget }: { budget: BudgetOf | undefined }) {
  const rows = BUDGETS.filter(([key]) => typeof budget?.limits[key] === "number");
  if (!budget || rows.length === 0) return <p class="soft">No budget is stated for this process: it takes what it needs, within its limits.</p>;
  return (
    <>
      <ul class="budget">
        {rows.map(([key, name, tell]) => {
          const [limit, spent] = [budget.limits[key] ?? 0, budget.used[key] ?? 0];
          const part = limit > 0 ? spent / limit : 0;
          return (
            <li key={key}>
              <span>{name}</span>
              <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
                <rect class="rule" width="100" height="8" />
                <rect class={part > 1 ? "over" : "spent"} width={100 * Math.min(1, part)} height="8" />
              </svg>
              <span>
                {tell(spent)} of {tell(limit)}
                {part > 1 ? ", over its budget" : ""}
              </span>
            </li>
          );
        })}
      </ul>
      <p class="soft">
        {budget.inclusion < 1 ? `To keep to it, ${share(budget.inclusion)} of events are counted, each for as many as it stands for. ` : "Every event is counted. "}
        {budget.given_up ? `Given up: ${budget.given_up}.` : ""}
      </p>
    </>
  );
}

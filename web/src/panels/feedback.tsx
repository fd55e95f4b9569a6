// What was told of the feedback loop: triggers, requests to fit again, and challengers with limits that hold however often one looks.
import { useMemo } from "preact/hooks";
import type { Asked } from "../asking";
import type { Feedback, GuardRow, RolloutDecision } from "../documents";
import { NONE, ago, count, instant, method, named, number, span } from "../format";
import { Panel } from "../panel";
import { Table } from "../table";
import { TimeChart } from "../timechart";
import { Shape, type Standing } from "../verdict";

const WORDS: Record<RolloutDecision["decision"], Standing> = { promote: "ok", hold: "waiting", "roll back": "critical", inconclusive: "insufficient" };
const MEANS: Record<GuardRow["verdict"], [Standing, string]> = {
  fine: ["ok", "within its margin"],
  harm: ["critical", "beyond its margin"],
  open: ["waiting", "undecided"],
  unknown: ["insufficient", "not judged"],
};

/** The looks at one challenger, oldest first. */
interface Race {
  champion: string;
  challenger: string;
  looks: RolloutDecision[];
  last: RolloutDecision;
}

function races(decisions: RolloutDecision[]): Race[] {
  const found = new Map<string, RolloutDecision[]>();
  for (const one of decisions) {
    const key = JSON.stringify([one.champion, one.challenger]);
    found.set(key, [one, ...(found.get(key) ?? [])]);
  }
  return [...found.values()]
    .flatMap((looks) => {
      const last = looks.at(-1);
      return last ? [{ champion: last.champion, challenger: last.challenger, looks, last }] : [];
    })
    .sort((a, b) => b.last.time - a.last.time);
}

export function Challengers({ asked }: { asked: Asked<Feedback> }) {
  return (
    <Panel
      title="Challengers"
      unit="how much worse than the champion, between limits that hold however often one looks"
      asked={asked}
      empty={(data) => (data.decisions.length > 0 ? null : "No challenger is known here. Whoever runs a roll-out tells it: client.tell(rollout).")}
    >
      {(data) =>
        races(data.decisions)
          .slice(0, 5)
          .map((race) => <Challenger key={`${race.champion}\n${race.challenger}`} race={race} />)
      }
    </Panel>
  );
}

function Challenger({ race }: { race: Race }) {
  const { last, looks } = race;
  return (
    <article class="challenger">
      <h3>
        <bdi class="name">{named(race.challenger)}</bdi> <span class="soft">against</span> <bdi class="name">{named(race.champion)}</bdi>
      </h3>
      <p>
        <span class={`verdict ${WORDS[last.decision] ?? "waiting"}`}>
          <Shape of={WORDS[last.decision] ?? "waiting"} />
          {last.decision}
        </span>{" "}
        <bdi>{last.reason}</bdi> <span class="soft">{`${instant(last.time)} UTC (${ago(last.time)})`}</span>
      </p>
      <Table
        caption={`Guards of ${race.challenger}`}
        rows={last.evidence}
        of={(row) => row.guard}
        heads={[
          { name: "guard", title: "Guard", heads: true, cell: (row) => <bdi class="name">{method(row.guard)}</bdi> },
          {
            name: "verdict",
            title: "So far",
            cell: (row) => {
              const [standing, words] = MEANS[row.verdict] ?? MEANS.unknown;
              return (
                <span class={`verdict ${standing}`} title={row.reason ?? ""}>
                  <Shape of={standing} />
                  {words}
                </span>
              );
            },
          },
          { name: "harm", title: "Harm", right: true, spare: 2, cell: (row) => number(row.harm, 3) },
          { name: "limits", title: "Limits", right: true, cell: (row) => (row.lower === null || row.upper === null ? NONE : `${number(row.lower, 3)} to ${number(row.upper, 3)}`) },
          { name: "margin", title: "Margin", right: true, spare: 2, cell: (row) => number(row.margin, 3) },
          { name: "champion", title: "Champion", right: true, spare: 2, cell: (row) => number(row.champion, 3) },
          { name: "challenger", title: "Challenger", right: true, spare: 2, cell: (row) => number(row.challenger, 3) },
          { name: "events", title: "Events of both", right: true, spare: 1, cell: (row) => `${count(row.champion_events)}, ${count(row.challenger_events)}` },
        ]}
      />
      {looks.length > 1 ? last.evidence.slice(0, 4).map((row) => <Harm key={row.guard} guard={row} looks={looks} />) : null}
    </article>
  );
}

/** How the limits of one guard closed in, look by look. */
function Harm({ guard, looks }: { guard: GuardRow; looks: RolloutDecision[] }) {
  const curves = useMemo(() => {
    const points = looks.flatMap((look) => {
      const row = look.evidence.find((one) => one.guard === guard.guard);
      return row && row.harm !== null ? [{ time: look.time, harm: row.harm, lower: row.lower, upper: row.upper }] : [];
    });
    const label = `harm by ${method(guard.guard)}`;
    return [{ label, times: points.map((one) => one.time), values: points.map((one) => one.harm), lower: points.map((one) => one.lower), upper: points.map((one) => one.upper) }];
  }, [guard.guard, looks]);
  if ((curves[0]?.times.length ?? 0) < 2) return null;
  return (
    <TimeChart
      title={`Harm by ${method(guard.guard)}`}
      curves={curves}
      tell={(value) => number(value, 3)}
      gaps={[]}
      marks={[]}
      limit={{ value: guard.margin, label: `margin ${number(guard.margin, 3)}` }}
      step={Infinity}
      range={null}
      height={120}
    />
  );
}

export function Triggers({ asked }: { asked: Asked<Feedback> }) {
  return (
    <Panel title="Triggers" unit="when it should be fitted again" asked={asked} empty={(data) => (data.triggers.length > 0 ? null : "No trigger is known here. Whoever checks one tells it: client.tell(trigger).")}>
      {(data) =>
        data.triggers.slice(0, 10).map((trigger) => (
          <div key={`${trigger.time}${trigger.conditions.at(-1)?.condition}`} class="trigger">
            <p class="soft">{`Checked ${instant(trigger.time)} UTC (${ago(trigger.time)})`}</p>
            <ul>
              {trigger.conditions.map((one) => (
                <li key={one.condition}>
                  <Shape of={one.holds === null ? "insufficient" : one.holds ? "warning" : "ok"} /> <bdi>{one.condition}</bdi>:{" "}
                  <b>{one.holds === null ? "unknown" : one.holds ? "holds" : "does not hold"}</b>
                  {one.reason ? (
                    <span class="soft">
                      {" "}
                      (<bdi>{one.reason}</bdi>)
                    </span>
                  ) : null}
                </li>
              ))}
            </ul>
          </div>
        ))
      }
    </Panel>
  );
}

export function Requests({ asked }: { asked: Asked<Feedback> }) {
  return (
    <Panel title="Requests to fit again" asked={asked} empty={(data) => (data.requests.length > 0 ? null : "No request is known here. Deliver one to the sidecar: request.deliver(client.tell).")}>
      {(data) => (
        <Table
          caption="Requests to fit again, newest first"
          rows={data.requests}
          of={(row) => row.id}
          page={5}
          heads={[
            { name: "time", title: "When (UTC)", heads: true, cell: (row) => <time title={row.id}>{instant(row.time)}</time> },
            {
              name: "reason",
              title: "Why",
              cell: (row) => (
                <span class="why" title={row.reason}>
                  <bdi>{row.reason}</bdi>
                </span>
              ),
            },
            {
              name: "rows",
              title: "To fit on",
              spare: 1,
              cell: (row) => (
                <span class="why">
                  {row.rows.since === null ? `all until ${instant(row.rows.until)} UTC` : span(row.rows.since, row.rows.until)}
                  {row.rows.version === null ? "" : `, version ${row.rows.version}`}
                </span>
              ),
            },
          ]}
        />
      )}
    </Panel>
  );
}

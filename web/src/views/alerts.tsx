// Every alert with its life: when it opened, what moved, how to get its number again, and what was said about it.
import { useState } from "preact/hooks";
import { type Asked, type Problem, send, useAsked } from "../asking";
import type { Alert, Alerts, Examples } from "../documents";
import { ago, count, instant, iso, measured, method, milliseconds, named, span } from "../format";
import { Behind, Panel, Wrong } from "../panel";
import { api, link } from "../route";
import { Badge, Shape, Urgency } from "../verdict";

/** The changes of one alert, oldest first. */
interface Life {
  id: number;
  changes: Alert[];
  last: Alert;
  open: boolean;
}

const PAGE = 20;

function lives(rows: Alert[]): Life[] {
  const byId = new Map<number, Alert[]>();
  for (const row of rows) byId.set(row.id, [...(byId.get(row.id) ?? []), row]);
  const out = [...byId].flatMap(([id, changes]) => {
    const last = changes.at(-1);
    return last ? [{ id, changes, last, open: last.state !== "resolved" }] : [];
  });
  // What disturbs somebody now comes first, then what is worse, then what is new.
  const page = (life: Life) => Number(life.open && life.last.severity === "page");
  const critical = (life: Life) => Number(life.open && life.last.verdict === "critical");
  return out.sort((a, b) => Number(b.open) - Number(a.open) || page(b) - page(a) || critical(b) - critical(a) || b.last.time - a.last.time || b.id - a.id);
}

/** Where its number is seen in full. */
function place(model: string, alert: Alert, end: number): { href: string; text: string } {
  const window = { start: iso(alert.window_start), end: iso(end) };
  if (alert.column.endsWith("]") && alert.column.includes(" [")) return { href: link(["models", model, "segments"]), text: "its segment" };
  const ofModel = /^(events|latency|error|missing|burn|roc|average|log_loss|brier|accuracy|balanced|f1|mae|rmse|r2|bias)/.test(alert.method ?? "");
  if (ofModel) return { href: link(["models", model], { since: iso(alert.window_start - 12 * (end - alert.window_start)), until: iso(end) }), text: "the model at that time" };
  return { href: link(["models", model, "columns", alert.column], window), text: "its column in that window" };
}

/** What to run to get the number of an alert again. */
export function command(model: string, alert: Alert, origin: string): string {
  const address = `${origin}/v1/models/${encodeURIComponent(model)}`;
  const auth = 'auth="Authorization: Bearer $BAROGRAPH_TOKEN"';
  const ofColumns = alert.method === null || /^(psi|null_share|nonfinite_share|out_of_range_share|unseen_share|schema)$/.test(alert.method);
  if (ofColumns && !alert.column.includes(" [")) {
    return [
      auth,
      `curl -sf -H "$auth" '${address}/reference' -o reference.bin`,
      `curl -sf -H "$auth" '${address}/profile?start=${iso(alert.window_start)}&end=${iso(alert.time)}' -o window.bin`,
      "barograph compare reference.bin window.bin",
    ].join("\n");
  }
  return [auth, `curl -sf -H "$auth" '${address}/history?since=${iso(alert.window_start)}&limit=1000'`].join("\n");
}

export function AlertsView({ model, query, beat }: { model: string; query: URLSearchParams; beat: number }) {
  const asked = useAsked<Alerts>(api(model, "alerts", { limit: 100000 }), beat);
  const [openOnly, setOpenOnly] = useState(false);
  const [at, setAt] = useState(0);
  const wanted = query.get("id");
  const all = lives(asked.data?.rows ?? []);
  const shown = all.filter((life) => (wanted ? String(life.id) === wanted : !openOnly || life.open));
  const page = shown.slice(at * PAGE, (at + 1) * PAGE);
  const pages = Math.ceil(shown.length / PAGE);
  return (
    <Panel
      title="Alerts"
      unit={asked.data ? `${count(all.filter((life) => life.open).length)} open, ${count(all.length)} in all` : ""}
      asked={asked}
      empty={() => (all.length > 0 ? null : "No alert has opened: within its budget of false alarms nothing has moved.")}
      extra={
        wanted ? (
          <a href={link(["models", model, "alerts"])}>Show all</a>
        ) : (
          <label class="check">
            <input
              type="checkbox"
              checked={openOnly}
              onChange={(event) => {
                setOpenOnly(event.currentTarget.checked);
                setAt(0);
              }}
            />{" "}
            open only
          </label>
        )
      }
    >
      {() => (
        <>
          {shown.length === 0 ? <p class="empty">{wanted ? `There is no alert ${wanted} of this model.` : "No alert is open."}</p> : null}
          <ul class="alerts">
            {page.map((life) => (
              <Card key={life.id} model={model} life={life} asked={asked} unfolded={wanted !== null} />
            ))}
          </ul>
          {pages > 1 ? (
            <nav class="pages" aria-label="Pages of alerts">
              <button type="button" disabled={at === 0} onClick={() => setAt(at - 1)}>
                Previous
              </button>
              <span>
                {at + 1} of {pages}
              </span>
              <button type="button" disabled={at >= pages - 1} onClick={() => setAt(at + 1)}>
                Next
              </button>
            </nav>
          ) : null}
        </>
      )}
    </Panel>
  );
}

function Card({ model, life, asked, unfolded }: { model: string; life: Life; asked: Asked<Alerts>; unfolded: boolean }) {
  const { last, changes } = life;
  const worst = [...changes].reverse().find((change) => change.state !== "resolved") ?? last;
  const first = changes[0] ?? last;
  const where = place(model, worst, worst.time);
  const cause = worst.cause?.split("; ") ?? [];
  const standing = [...changes].reverse().find((change) => change.standing)?.standing ?? null;
  const muted = standing?.muted_until !== null && standing?.muted_until !== undefined && milliseconds(standing.muted_until) > Date.now();
  return (
    <li class={`alert ${life.open ? worst.verdict : "resolved"}`}>
      <header>
        <h3>
          <Shape of={life.open ? worst.verdict : "ok"} /> <bdi class="name">{named(last.column)}</bdi>
        </h3>
        <span>
          {life.open ? <Badge of={worst.verdict} /> : <span class="none">resolved</span>} <Urgency of={last.severity} />{" "}
          <span class="soft">
            alert {last.id}
            {last.incident === last.id ? "" : `, began with alert ${last.incident}`}
          </span>
        </span>
      </header>
      <p>
        {worst.reason ? <bdi>{worst.reason}</bdi> : null}
        {worst.value === null ? null : (
          <span class="soft">
            {" "}
            {method(worst.method)} {measured(worst.method, worst.value)}
            {worst.lower !== null && worst.upper !== null ? ` (between ${measured(worst.method, worst.lower)} and ${measured(worst.method, worst.upper)})` : ""}
            {worst.threshold === null ? "" : `, tolerance ${measured(worst.method, worst.threshold)}`}
          </span>
        )}
      </p>
      {cause.length > 0 ? (
        <div class="cause">
          <h4>What moved</h4>
          <ul>
            {cause.map((part) => (
              <li key={part}>
                <bdi>{part}</bdi>
              </li>
            ))}
          </ul>
        </div>
      ) : null}
      <ol class="life" aria-label="Life of the alert">
        {changes.map((change) => (
          <li key={`${change.state}-${change.time}`} class={change.state}>
            <b>{change.state}</b> <time title={`${span(change.window_start, change.time)}`}>{instant(change.time)} UTC</time> <Badge of={change.verdict} />
          </li>
        ))}
      </ol>
      <p class="soft">
        First seen in the window {span(first.window_start, first.time)} ({ago(first.time)}). <a href={where.href}>See {where.text}</a>
        {standing?.acknowledged_by ? `. Acknowledged by ${standing.acknowledged_by}, ${instant(standing.acknowledged_at)} UTC` : ""}
        {muted ? `. Muted by ${standing?.muted_by} until ${instant(standing?.muted_until)} UTC` : ""}
      </p>
      <Say model={model} id={life.id} open={life.open} done={asked.again} />
      <Behind title="Example events" open={unfolded}>
        {() => <ExampleEvents model={model} id={life.id} />}
      </Behind>
      <details open={unfolded}>
        <summary>Get this number again</summary>
        <pre tabIndex={0}>{command(model, worst, location.origin)}</pre>
      </details>
    </li>
  );
}

/** Ids of events in the bins that grew most: somewhere to begin to look. */
function ExampleEvents({ model, id }: { model: string; id: number }) {
  const asked = useAsked<Examples>(api(model, `alerts/${id}/examples`), 0);
  if (asked.problem) return <Wrong problem={asked.problem} again={asked.again} stale={false} />;
  if (!asked.data) return <p class="loading" role="status">Loading example events…</p>;
  if (asked.data.events.length === 0) return <p class="soft">{`None: ${asked.data.reason ?? "no event is kept"}.`}</p>;
  return (
    <ul class="examples">
      {asked.data.events.map((event) => (
        <li key={`${event.window_start} ${event.id}`}>
          <code>
            <bdi>{named(event.id)}</bdi>
          </code>{" "}
          <span class="soft">
            <bdi>{named(event.bin)}</bdi>, window from {instant(event.window_start)} UTC
          </span>
        </li>
      ))}
    </ul>
  );
}

/** Acknowledge and mute: they need the scope admin, and say so where it is missing. */
function Say({ model, id, open, done }: { model: string; id: number; open: boolean; done: () => void }) {
  const [length, setLength] = useState("1d");
  const [problem, setProblem] = useState<Problem | null>(null);
  const [said, setSaid] = useState("");
  const tell = async (what: "acknowledge" | "mute") => {
    setProblem(null);
    setSaid("");
    const body = what === "mute" ? { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ until: length }) } : {};
    const answer = await send(api(model, `alerts/${id}/${what}`), { method: "POST", ...body });
    if (answer instanceof Response) {
      setSaid(what === "mute" ? "Muted." : "Acknowledged.");
      done();
    } else {
      setProblem(answer);
    }
  };
  if (!open) return null;
  return (
    <div class="say">
      <button type="button" onClick={() => void tell("acknowledge")}>
        Acknowledge
      </button>
      <button type="button" onClick={() => void tell("mute")}>
        Mute
      </button>
      <label>
        for{" "}
        <select value={length} onChange={(event) => setLength(event.currentTarget.value)}>
          <option value="2h">2 hours</option>
          <option value="1d">a day</option>
          <option value="7d">a week</option>
        </select>
      </label>
      <span role="status">{said}</span>
      {problem ? <Wrong problem={problem} again={() => setProblem(null)} stale={false} /> : null}
    </div>
  );
}

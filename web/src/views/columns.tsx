// The columns of a model's last window, worst first.
import { useState } from "preact/hooks";
import { Spark } from "../bars";
import { useAsked } from "../asking";
import type { ColumnLine, Columns } from "../documents";
import { count, measured, method, named, number, span } from "../format";
import { Panel } from "../panel";
import { api, link } from "../route";
import { type Head, Table } from "../table";
import { Badge, ORDER } from "../verdict";

function heads(model: string, query: Record<string, string | null>): Head<ColumnLine>[] {
  return [
    {
      name: "column",
      title: "Column",
      heads: true,
      by: (line) => line.column,
      cell: (line) => (
        <a class="name" href={link(["models", model, "columns", line.column], query)}>
          <bdi>{named(line.column)}</bdi>
        </a>
      ),
    },
    { name: "verdict", title: "Verdict", by: (line) => (line.verdict ? ORDER.indexOf(line.verdict) : 99), cell: (line) => <Badge of={line.verdict} /> },
    { name: "psi", title: "PSI", right: true, falling: true, by: (line) => line.psi, cell: (line) => number(line.psi, 3) },
    { name: "recent", title: "Last windows", spare: 1, cell: (line) => <Spark values={line.recent} limit={line.method === "psi" ? line.threshold : null} /> },
    {
      name: "reason",
      title: "Why",
      spare: 2,
      cell: (line) => (
        <span class="why" title={line.reason ?? ""}>
          {line.reason ? <bdi>{line.reason}</bdi> : line.verdict && line.method && line.method !== "psi" ? `${method(line.method)} ${measured(line.method, line.value)}` : ""}
        </span>
      ),
    },
    { name: "kind", title: "Kind", spare: 1, by: (line) => `${line.role} ${line.kind}`, cell: (line) => (line.role === "feature" ? line.kind : `${line.role}, ${line.kind}`) },
  ];
}

export function ColumnsPanel({ model, beat }: { model: string; beat: number }) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState("");
  const asked = useAsked<Columns>(api(model, "columns", { window: open ? "open" : null, limit: 2000 }), beat);
  const columns = asked.data?.columns ?? [];
  const shown = text ? columns.filter((line) => line.column.toLowerCase().includes(text.toLowerCase())) : columns;
  return (
    <Panel
      title="Columns"
      {...(asked.data && asked.data.window_start !== null ? { unit: `${span(asked.data.window_start, asked.data.window_end)}${asked.data.provisional ? ", still open" : ""}` } : {})}
      asked={asked}
      empty={(data) => (data.columns.length > 0 ? null : open ? "No window is open: no events have come since the last one closed." : "No window has been compared with a reference yet.")}
      extra={
        <div class="tools">
          <div class="chips" role="group" aria-label="Window">
            <button type="button" aria-pressed={!open} onClick={() => setOpen(false)}>
              last closed
            </button>
            <button type="button" aria-pressed={open} onClick={() => setOpen(true)}>
              open
            </button>
          </div>
          {columns.length > 15 ? (
            <label>
              <span class="hidden">Search columns</span>
              <input type="search" placeholder={`Search ${count(columns.length)} columns`} value={text} onInput={(event) => setText(event.currentTarget.value)} />
            </label>
          ) : null}
        </div>
      }
    >
      {() =>
        shown.length === 0 ? <p class="empty">No column is called like that.</p> : <Table caption="Columns, worst first" rows={shown} heads={heads(model, { window: open ? "open" : null })} of={(line) => line.column} page={25} />
      }
    </Panel>
  );
}

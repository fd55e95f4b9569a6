// The segments of the last window, worst first.
import { useState } from "preact/hooks";
import { useAsked } from "../asking";
import type { Segments } from "../documents";
import { count, measured, method, named, number, span } from "../format";
import { Panel } from "../panel";
import { api, link } from "../route";
import { type Head, Table } from "../table";
import { Badge, ORDER } from "../verdict";

type Line = Segments["segments"][number];

function heads(model: string): Head<Line>[] {
  return [
    { name: "segment", title: "Segment", heads: true, by: (line) => line.segment, cell: (line) => <bdi class="name">{line.segment}</bdi> },
    {
      name: "verdict",
      title: "Verdict",
      by: (line) => (line.verdict ? ORDER.indexOf(line.verdict) : 99),
      cell: (line) => (line.verdict ? <Badge of={line.verdict} /> : <span class="none">nothing moved</span>),
    },
    { name: "events", title: "Events", right: true, falling: true, by: (line) => line.events, cell: (line) => count(line.events) },
    {
      name: "value",
      title: "Largest change",
      right: true,
      spare: 2,
      falling: true,
      by: (line) => line.moved[0]?.value ?? null,
      cell: (line) => (line.moved[0] ? `${measured(line.moved[0].method, line.moved[0].value)}` : "–"),
    },
    {
      name: "moved",
      title: "What moved",
      cell: (line) =>
        line.moved.length === 0 ? (
          ""
        ) : (
          <span class="why">
            {line.moved.slice(0, 3).map((row, at) => (
              <span key={row.column}>
                {at > 0 ? ", " : ""}
                <a href={link(["models", model, "columns", row.column])}>
                  <bdi>{named(row.column)}</bdi>
                </a>{" "}
                ({method(row.method)} {number(row.value, 3)})
              </span>
            ))}
            {line.moved.length > 3 ? ` and ${line.moved.length - 3} more` : ""}
          </span>
        ),
    },
  ];
}

export function SegmentsView({ model, beat }: { model: string; beat: number }) {
  const asked = useAsked<Segments>(api(model, "segments", { limit: 10000 }), beat);
  const [text, setText] = useState("");
  const data = asked.data;
  const shown = data?.segments.filter((line) => line.segment.toLowerCase().includes(text.toLowerCase())) ?? [];
  return (
    <Panel
      title="Segments"
      {...(data && data.window_start !== null ? { unit: `by ${data.by.join(", ")}; ${span(data.window_start, data.window_end)}` } : {})}
      asked={asked}
      empty={(found) =>
        found.by.length === 0
          ? "This model is not watched by segments. A reference made with segments=[…], or segments in its settings before it learns, does that."
          : found.segments.length === 0
            ? "No window with events of these segments has closed yet."
            : null
      }
      extra={
        data && data.segments.length > 15 ? (
          <label>
            <span class="hidden">Search segments</span>
            <input type="search" placeholder={`Search ${count(data.segments.length)} segments`} value={text} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        ) : null
      }
    >
      {() => (shown.length === 0 ? <p class="empty">No segment is called like that.</p> : <Table caption="Segments, worst first" rows={shown} heads={heads(model)} of={(line) => line.segment} />)}
    </Panel>
  );
}

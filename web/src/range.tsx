// Which stretch of time is shown: buttons, two fields for the keyboard, and what was brushed in a picture.
import { iso, milliseconds } from "./format";

export type Range = [number, number] | null; // nanoseconds

const LENGTHS: [string, number][] = [
  ["6 h", 6 * 3600],
  ["24 h", 86400],
  ["7 d", 7 * 86400],
  ["30 d", 30 * 86400],
];

export function rangeOf(query: URLSearchParams): Range {
  const [start, end] = [Date.parse(query.get("since") ?? ""), Date.parse(query.get("until") ?? "")];
  return Number.isFinite(start) && Number.isFinite(end) && start < end ? [start * 1e6, end * 1e6] : null;
}

export function rangeQuery(range: Range): Record<string, string | null> {
  return { since: range ? iso(range[0]) : null, until: range ? iso(range[1]) : null };
}

export function RangeBar({ range, last, choose }: { range: Range; last: number | null; choose: (range: Range) => void }) {
  const field = (at: 0 | 1) => (range ? new Date(milliseconds(range[at])).toISOString().slice(0, 16) : "");
  const typed = (at: 0 | 1, text: string) => {
    const time = Date.parse(`${text}Z`) * 1e6;
    if (!Number.isFinite(time)) return;
    const other = range?.[1 - at] ?? (at === 0 ? (last ?? Date.now() * 1e6) : time - 86400e9);
    const next: [number, number] = at === 0 ? [time, other] : [other, time];
    if (next[0] < next[1]) choose(next);
  };
  return (
    <div class="range" role="group" aria-label="Time shown">
      <button type="button" aria-pressed={range === null} onClick={() => choose(null)}>
        All
      </button>
      {LENGTHS.map(([name, length]) => {
        const end = last ?? Date.now() * 1e6;
        const chosen = range !== null && Math.abs(range[1] - end) < 1e6 && Math.abs(range[1] - range[0] - length * 1e9) < 1e6;
        return (
          <button type="button" key={name} aria-pressed={chosen} onClick={() => choose([end - length * 1e9, end])}>
            {name}
          </button>
        );
      })}
      <label>
        from <input type="datetime-local" value={field(0)} onChange={(event) => typed(0, event.currentTarget.value)} />
      </label>
      <label>
        to <input type="datetime-local" value={field(1)} onChange={(event) => typed(1, event.currentTarget.value)} /> UTC
      </label>
    </div>
  );
}

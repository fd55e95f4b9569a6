// Tables that sort, and show a page of their rows at a time: what cannot be seen is not made.
import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { count } from "./format";

export interface Head<T> {
  name: string;
  title: string;
  /** What it is sorted by; a column without it does not sort. */
  by?: (row: T) => number | string | null;
  /** The larger or worse end first. */
  falling?: boolean;
  cell: (row: T) => ComponentChildren;
  /** Numbers stand right. */
  right?: boolean;
  /** Left out where there is little room: 1 below 1100 pixels, 2 below 700. */
  spare?: 1 | 2;
  /** Names the row. */
  heads?: boolean;
}

interface TableProps<T> {
  caption: string;
  rows: T[];
  heads: Head<T>[];
  /** What tells a row from the others. */
  of: (row: T) => string;
  /** The column it is sorted by at first; the rows stay as they come without it. */
  sorted?: string;
  page?: number;
}

function compare(a: number | string | null, b: number | string | null): number {
  // What is not known goes last, whichever way.
  if (a === null || b === null) return a === b ? 0 : a === null ? Infinity : -Infinity;
  if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b));
  return a - b;
}

export function Table<T>(props: TableProps<T>) {
  const { caption, rows, heads, page = 50 } = props;
  const [order, setOrder] = useState<{ name: string; up: boolean } | null>(null);
  const [at, setAt] = useState(0);
  const chosen = order ?? (props.sorted ? { name: props.sorted, up: !heads.find((head) => head.name === props.sorted)?.falling } : null);
  const all = useMemo(() => {
    const by = heads.find((head) => head.name === chosen?.name)?.by;
    if (!by || !chosen) return rows;
    const sign = chosen.up ? 1 : -1;
    return rows
      .map((row, place) => ({ row, value: by(row), place }))
      .sort((a, b) => {
        const order = compare(a.value, b.value);
        return (Number.isFinite(order) ? sign * order : order === Infinity ? 1 : -1) || a.place - b.place;
      })
      .map((one) => one.row);
  }, [rows, chosen?.name, chosen?.up]);
  const pages = Math.max(1, Math.ceil(all.length / page));
  const shown = Math.min(at, pages - 1);
  const sort = (head: Head<T>) => {
    setAt(0);
    setOrder(chosen?.name === head.name ? { name: head.name, up: !chosen.up } : { name: head.name, up: !head.falling });
  };
  return (
    <>
      <div class="scroll" tabIndex={0} role="group" aria-label={caption}>
        <table>
          <caption class="hidden">{caption}</caption>
          <thead>
            <tr>
              {heads.map((head) => (
                <th
                  key={head.name}
                  scope="col"
                  class={style(head)}
                  {...(head.by ? { "aria-sort": chosen?.name === head.name ? (chosen.up ? "ascending" : "descending") : "none" } : {})}
                >
                  {head.by ? (
                    <button type="button" class="sort" onClick={() => sort(head)}>
                      {head.title}
                      <span aria-hidden="true">{chosen?.name === head.name ? (chosen.up ? " ↑" : " ↓") : ""}</span>
                    </button>
                  ) : (
                    head.title
                  )}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {all.slice(shown * page, (shown + 1) * page).map((row) => (
              <tr key={props.of(row)}>
                {heads.map((head) =>
                  head.heads ? (
                    <th key={head.name} scope="row" class={style(head)}>
                      {head.cell(row)}
                    </th>
                  ) : (
                    <td key={head.name} class={style(head)}>
                      {head.cell(row)}
                    </td>
                  ),
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {pages > 1 ? (
        <nav class="pages" aria-label={`Pages of ${caption}`}>
          <button type="button" disabled={shown === 0} onClick={() => setAt(shown - 1)}>
            Previous
          </button>
          <span>
            {count(shown * page + 1)} to {count(Math.min(all.length, (shown + 1) * page))} of {count(all.length)}
          </span>
          <button type="button" disabled={shown === pages - 1} onClick={() => setAt(shown + 1)}>
            Next
          </button>
        </nav>
      ) : null}
    </>
  );
}

function style<T>(head: Head<T>): string {
  return [head.right ? "right" : "", head.spare ? `spare${head.spare}` : ""].filter(Boolean).join(" ");
}

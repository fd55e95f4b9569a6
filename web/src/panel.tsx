// What every panel has: a heading, and something to show while it is asked for, where there is nothing, and where it went wrong.
import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";
import type { Asked, Problem } from "./asking";

export function Wrong({ problem, again, stale }: { problem: Problem; again: () => void; stale: boolean }) {
  const passes = problem.status === 0 || problem.status === 429 || problem.status >= 500;
  return (
    <div class="wrong" role="alert">
      <strong>{problem.status ? `${problem.status} ${problem.title}` : problem.title}</strong>
      <span>
        {problem.detail} {problem.hint ? `${problem.hint} ` : ""}
        {stale ? "What is shown is what was known before. " : ""}
        {passes ? "It is tried again by itself. " : ""}
      </span>
      <button type="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}

interface PanelProps<T> {
  title: string;
  unit?: string;
  asked: Asked<T>;
  /** What to say where the answer holds nothing to show. */
  empty: (data: T) => string | null;
  children: (data: T) => ComponentChildren;
  extra?: ComponentChildren;
  tall?: boolean;
}

export function Panel<T>({ title, unit, asked, empty, children, extra, tall }: PanelProps<T>) {
  const id = useId();
  const nothing = asked.data ? empty(asked.data) : null;
  return (
    <section class="panel" aria-labelledby={id} aria-busy={asked.loading}>
      <header>
        <h2 id={id}>
          {title}
          {unit ? <span class="unit"> {unit}</span> : null}
        </h2>
        {extra}
      </header>
      {asked.problem ? <Wrong problem={asked.problem} again={asked.again} stale={asked.data !== null} /> : null}
      {asked.loading ? (
        <p class={tall ? "loading tall" : "loading"} role="status">
          Loading {title.toLowerCase()}…
        </p>
      ) : null}
      {nothing ? <p class="empty">{nothing}</p> : null}
      {asked.data && !nothing ? children(asked.data) : null}
    </section>
  );
}

/** A table behind a picture: it is made when it is opened. */
export function Behind({ title, children }: { title: string; children: () => ComponentChildren }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="behind" onToggle={(event) => setOpen((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>{title}</summary>
      {open ? children() : null}
    </details>
  );
}

// What every panel has: a heading, and something to show while it is asked for, where there is nothing, and where it went wrong.
import { Component, type ComponentChildren } from "preact";
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

/** What cannot be drawn is said, and takes nothing else with it. */
export class Guard extends Component<{ of: unknown; children: ComponentChildren }, { failed: unknown }> {
  static getDerivedStateFromError() {
    return { failed: true };
  }
  componentDidUpdate(before: { of: unknown }) {
    // Another answer may do better.
    if (this.state.failed && before.of !== this.props.of) this.setState({ failed: false });
  }
  render() {
    if (this.state.failed) {
      return (
        <p class="wrong" role="alert">
          What the sidecar answered cannot be shown. It may be of another version than this page: load it anew.
        </p>
      );
    }
    return this.props.children;
  }
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
  let nothing: string | null = null;
  try {
    nothing = asked.data ? empty(asked.data) : null;
  } catch {
    // The guard says so.
  }
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
      {asked.data && !nothing ? (
        <Guard of={asked.data}>
          <Drawn data={asked.data} children={children} />
        </Guard>
      ) : null}
    </section>
  );
}

/** Draws inside the guard. */
function Drawn<T>({ data, children }: { data: T; children: (data: T) => ComponentChildren }) {
  return <>{children(data)}</>;
}

/** A table behind a picture: it is made when it is opened. */
export function Behind({ title, open: unfolded = false, children }: { title: string; open?: boolean; children: () => ComponentChildren }) {
  const [open, setOpen] = useState(unfolded);
  return (
    <details class="behind" open={unfolded} onToggle={(event) => setOpen((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>{title}</summary>
      {open ? children() : null}
    </details>
  );
}

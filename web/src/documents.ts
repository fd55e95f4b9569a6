// What the read API answers, as far as the page reads it. Times are nanoseconds since the epoch, and exact to about 128 ns here.

export type Verdict = "ok" | "info" | "warning" | "critical" | "insufficient" | "invalid";
export type Severity = "ticket" | "page";

export interface Measured {
  metric: string;
  value: number | null;
  lower: number | null;
  upper: number | null;
  /** Why it says next to nothing, where it does not. */
  reason?: string | null;
}

export interface Overview {
  name: string;
  task: string;
  state: "learning" | "watching";
  learning: { events: number; of: number; trouble: string | null } | null;
  verdict: Verdict | null;
  since: number | null;
  window_start: number | null;
  window_end: number | null;
  window_seconds: number;
  events: number;
  events_per_second: number | null;
  latency_p50: number | null;
  latency_p99: number | null;
  error_rate: number | null;
  quality: (Measured & { window_end: number | null; labelled: number }) | null;
  estimate: Measured | null;
  open_pages: number;
  open_tickets: number;
  worst: { column: string; method: string | null; severity: Severity; verdict: Verdict; reason: string | null; cause: string | null } | null;
  reference: string | null;
}

export interface Line {
  column: string;
  method: string;
  threshold: number | null;
  windows: number;
  times: number[];
  values: number[];
  lower: (number | null)[];
  upper: (number | null)[];
  verdicts: (Verdict | null)[];
}

export interface Mark {
  time: number;
  kind: "deploy" | "reference" | "opened" | "escalated" | "eased" | "resolved";
  text: string | null;
  column: string | null;
  severity: Severity | null;
  id: number | null;
}

export interface Series {
  window_seconds: number;
  since: number | null;
  until: number | null;
  lines: Line[];
  gaps: [number, number][];
  marks: Mark[];
}

export interface ColumnLine {
  column: string;
  kind: string;
  role: string;
  verdict: Verdict | null;
  psi: number | null;
  method: string | null;
  value: number | null;
  threshold: number | null;
  reason: string | null;
  recent: number[];
}

export interface Columns {
  window_start: number | null;
  window_end: number | null;
  provisional: boolean;
  columns: ColumnLine[];
  next: string | null;
}

export interface Row {
  column: string;
  method: string;
  value: number | null;
  lower: number | null;
  upper: number | null;
  threshold: number | null;
  verdict: Verdict | null;
  p_value: number | null;
  reason: string | null;
}

export interface Pair {
  reference: number | null;
  current: number | null;
}

export type Summary = Record<string, number | string | null>;

export interface Column {
  column: string;
  kind: string;
  role: string;
  verdict: Verdict | null;
  reason: string | null;
  window_start: number;
  window_end: number;
  provisional: boolean;
  reference: string;
  reference_created: number | null;
  n_reference: number;
  n_current: number;
  bars: { labels: string[]; reference: number[]; current: number[]; edges: number[] | null } | null;
  bins: { bin: string; reference: number; current: number; contribution: number }[];
  reference_summary: Summary | null;
  current_summary: Summary | null;
  shares: (Pair & { name: string })[];
  quantiles: (Pair & { q: number })[];
  names: (Pair & { name: string })[];
  rows: Row[];
}

export interface Segments {
  window_start: number | null;
  window_end: number | null;
  by: string[];
  segments: { segment: string; events: number | null; verdict: Verdict | null; moved: Row[] }[];
  next: string | null;
}

export interface Quality {
  labels: number;
  counts: Record<string, number>;
  /** How many labels took how long, and how exactly that is known. */
  delays: { up_to_seconds: number | null; labels: number }[];
  delays_within_seconds: number | null;
  calibrated_until: number | null;
  tiles: { start: number; end: number; events: number; labelled: number; metrics: Measured[]; estimated: Measured[] }[];
}

export interface Alert {
  id: number;
  incident: number;
  column: string;
  state: "opened" | "escalated" | "eased" | "resolved";
  severity: Severity;
  verdict: Verdict;
  method: string | null;
  value: number | null;
  lower: number | null;
  upper: number | null;
  threshold: number | null;
  time: number;
  window_start: number;
  reason: string | null;
  cause: string | null;
  n_reference: number | null;
  n_current: number | null;
  open: boolean;
  standing: { acknowledged_by: string | null; acknowledged_at: number | null; muted_by: string | null; muted_until: number | null } | null;
}

export interface Alerts {
  rows: Alert[];
  next: string | null;
}

/** A few events that an alert is about. */
export interface Examples {
  events: { id: string; bin: string; window_start: number }[];
  reason: string | null;
}

export interface Decision {
  decision: "pass" | "fail" | "inconclusive";
  reason: string | null;
}

/** The harm of a challenger by one metric, between limits that hold however often one looks. */
export interface GuardRow {
  guard: string;
  champion: number | null;
  challenger: number | null;
  harm: number | null;
  lower: number | null;
  upper: number | null;
  margin: number;
  kind: string;
  champion_events: number;
  challenger_events: number;
  verdict: "harm" | "fine" | "open" | "unknown";
  reason: string | null;
}

export interface RolloutDecision {
  decision: "promote" | "hold" | "roll back" | "inconclusive";
  reason: string;
  evidence: GuardRow[];
  time: number;
  champion: string;
  challenger: string;
}

/** What was told of the feedback loop, each the newest first. */
export interface Feedback {
  decisions: RolloutDecision[];
  requests: {
    id: string;
    time: number;
    as_of: number;
    reason: string;
    rows: { since: number | null; until: number; version: string | null; columns: string[] | null };
  }[];
  triggers: { time: number; conditions: { condition: string; holds: boolean | null; reason: string | null }[] }[];
}

/** What the process costs against what it may. */
export interface Budget {
  limits: Record<"cpu" | "memory" | "disk" | "wire", number | null>;
  used: Record<"cpu" | "memory" | "disk" | "wire", number>;
  inclusion: number;
  given_up: string | null;
  over: boolean;
}

export interface Models {
  models: {
    name: string;
    state: string;
    events: number;
    labels: number;
    requests: number;
    sampled_out: number;
    rejected: number;
    unknown_fields: number;
    mistyped_fields: number;
    late: number;
    memory_bytes: number | null;
    given_up: string | null;
    forgotten: number;
  }[];
  server: {
    version: string;
    uptime_seconds: number;
    events_total: number;
    rejected_total: number;
    queue_bytes: number;
    memory_bytes: number;
    replaying: boolean;
    problems: string[];
    budget?: Budget;
  };
}

// Numbers and times as text. What is not known is a dash, never NaN and never 0. Times are UTC.

export const NONE = "–";
const MINUS = "−";

/** Four significant digits; powers of ten where digits would not help. */
export function number(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text =
    size >= 1e7 || size < 1e-4
      ? value.toExponential(2).replace("e+", "e")
      : String(Number(value.toPrecision(size >= 1000 ? Math.max(digits, Math.ceil(Math.log10(size + 1))) : digits)));
  const [whole = "", rest] = text.split(".");
  const grouped = size >= 1e4 && size < 1e7 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  return (rest === undefined ? grouped : `${grouped}.${rest}`).replace(/-/g, MINUS);
}

export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (Math.abs(value) >= 1e15) return number(value);
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** Events per second; of few the unit in which they can be counted. */
export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value) || value === 0 || value >= 0.1) return number(value, 3);
  return value * 3600 >= 1 ? `${number(value * 3600, 3)}/h` : `${number(value * 86400, 3)}/d`;
}

/** Metrics in the order in which they are chosen: what stands for a task first. */
const FIRST = ["roc_auc", "accuracy", "mae"];
export function metricsOf(words: Iterable<string>): string[] {
  const place = (word: string) => (FIRST.includes(word) ? FIRST.indexOf(word) : FIRST.length);
  return [...new Set(words)].sort((a, b) => place(a) - place(b));
}

/** A share in [0, 1] as a percentage. */
export function share(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const percent = 100 * value;
  // No share of anything, but shown as what it is.
  if (Math.abs(percent) > 1e7) return number(value);
  const size = Math.abs(percent);
  if (size > 0 && size < 0.01) return percent > 0 ? "< 0.01 %" : `> ${MINUS}0.01 %`;
  return `${percent.toFixed(size >= 10 ? 1 : 2).replace("-", MINUS)} %`;
}

/** A length of time. */
export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 1e-3) return `${number(value * 1e6, 3)} µs`;
  if (size < 1) return `${number(value * 1e3, 3)} ms`;
  if (size < 120) return `${number(value, 3)} s`;
  if (size < 2 * 3600) return `${number(value / 60, 2)} min`;
  if (size < 2 * 86400) return `${number(value / 3600, 2)} h`;
  return `${number(value / 86400, 2)} d`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]] as const) {
    if (Math.abs(value) >= size) return `${number(value / size, 3)} ${unit}`;
  }
  return `${count(value)} B`;
}

const day = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" });
const clock = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });

/** Milliseconds of nanoseconds. */
export function milliseconds(ns: number): number {
  return Math.round(ns / 1e6);
}

/** An instant, UTC. */
export function instant(ns: number | null | undefined): string {
  if (ns === null || ns === undefined) return NONE;
  const at = new Date(milliseconds(ns));
  if (Number.isNaN(at.getTime())) return NONE;
  return `${day.format(at)}, ${clock.format(at)}`;
}

/** A window, UTC: the day once where both ends share it. */
export function span(start: number | null | undefined, end: number | null | undefined): string {
  if (start === null || start === undefined || end === null || end === undefined) return NONE;
  const [from, to] = [new Date(milliseconds(start)), new Date(milliseconds(end))];
  if (Number.isNaN(from.getTime()) || Number.isNaN(to.getTime())) return NONE;
  const [left, right] = [day.format(from), day.format(to)];
  if (left === right) return `${left}, ${clock.format(from)} to ${clock.format(to)} UTC`;
  return `${left}, ${clock.format(from)} to ${right}, ${clock.format(to)} UTC`;
}

export function iso(ns: number): string {
  const at = new Date(milliseconds(ns));
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
}

export function ago(ns: number | null | undefined, now = Date.now()): string {
  if (ns === null || ns === undefined) return NONE;
  const passed = (now - milliseconds(ns)) / 1000;
  if (passed < 60) return passed < -60 ? "ahead of now" : "just now";
  return `${seconds(passed)} ago`;
}

const NAMES: Record<string, string> = {
  psi: "PSI",
  psi_total: "PSI, all bins",
  null_share: "share of nulls",
  nonfinite_share: "share of NaN and infinities",
  out_of_range_share: "share out of range",
  unseen_share: "share of unseen names",
  jensen_shannon: "Jensen-Shannon distance",
  total_variation: "total variation",
  l_infinity: "L-infinity",
  kolmogorov_smirnov: "Kolmogorov-Smirnov",
  wasserstein: "Wasserstein",
  wasserstein_normalised: "Wasserstein, normalised",
  wasserstein_clipped: "Wasserstein, clipped",
  energy: "energy distance",
  distinct_share: "share of different names",
  e_detector: "e-detector",
  schema: "schema",
  events: "events",
  latency_p50: "latency p50",
  latency_p99: "latency p99",
  error_rate: "error rate",
  burn_rate: "burn rate",
  missing_labels: "missing labels",
  roc_auc: "ROC AUC",
  average_precision: "average precision",
  log_loss: "log loss",
  brier: "Brier score",
  accuracy: "accuracy",
  balanced_accuracy: "balanced accuracy",
  f1_macro: "F1, macro",
  roc_auc_ovr: "ROC AUC, one against the rest",
  mae: "MAE",
  rmse: "RMSE",
  r2: "R²",
  bias: "bias",
};

/** A method in people's words. */
export function method(word: string | null | undefined): string {
  return word ? (NAMES[word] ?? word.replaceAll("_", " ")) : NONE;
}

/** A value of a method with its unit. */
export function measured(word: string | null | undefined, value: number | null | undefined): string {
  if (word?.startsWith("latency")) return seconds(value);
  if (word?.endsWith("_share") || word === "error_rate" || word === "missing_labels") return share(value);
  if (word === "events") return count(value);
  return number(value, 3);
}

// Characters that show nothing and can turn around or hide what stands beside them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A name that can be seen, whatever it holds. */
export function named(name: string): string {
  const seen = name.replace(UNSEEN, (one) => `⟨U+${one.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  return seen.trim() === "" ? (seen === "" ? "(empty name)" : "(blank name)") : seen;
}

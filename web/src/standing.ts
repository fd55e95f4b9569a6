// What a model's line says about it, in one word and one sentence.
import type { Overview } from "./documents";
import { ago, count, method, milliseconds } from "./format";
import type { Standing } from "./verdict";

/** Windows without an event after which a model is called silent. */
const SILENT = 3;

export function standing(model: Overview, now = Date.now()): Standing {
  if (model.state === "learning") return "learning";
  if (model.window_end === null || model.verdict === null) return "waiting";
  const quiet = now - milliseconds(model.window_end) > SILENT * model.window_seconds * 1000;
  if (quiet && (model.verdict === "ok" || model.verdict === "info" || model.verdict === "insufficient")) return "silent";
  return model.verdict;
}

export function since(model: Overview, now = Date.now()): number | null {
  return standing(model, now) === "silent" ? model.window_end : model.since;
}

export function why(model: Overview, now = Date.now()): string {
  switch (standing(model, now)) {
    case "learning":
      if (model.learning?.trouble) return model.learning.trouble;
      return `learns its reference: ${count(model.learning?.events)} of ${count(model.learning?.of)} events`;
    case "waiting":
      return "no window has closed yet";
    case "silent":
      return `no window with events has closed since ${ago(model.window_end, now)}`;
    case "insufficient":
      return "too few events in the last window to exclude a large change";
    case "ok":
      return "a large change of every tested column is excluded";
    case "info":
      return "a change within the tolerance";
    default:
      if (!model.worst) return "";
      return [model.worst.column, model.worst.reason].filter(Boolean).join(": ");
  }
}

export function qualityName(model: Overview): string {
  return model.quality ? method(model.quality.metric) : "";
}

// What a model's line says about it, in one word and one sentence; and what all lines say together.
import type { Measured, Overview } from "./documents";
import { ago, count, measured, method, milliseconds, named } from "./format";
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
      return "waits for its first window with events to close";
    case "silent":
      return `no window with events has closed since ${ago(model.window_end, now)}`;
    case "insufficient":
      return "too few events in the last window to exclude a large change";
    case "ok":
      return "a large change of every tested column is excluded";
    case "info":
      return "a change within the tolerance";
    default: {
      if (!model.worst) return "";
      // "The share changed" does not say which.
      const of = model.worst.method?.endsWith("_share") ? `, ${method(model.worst.method)}` : "";
      return [named(model.worst.column) + of, model.worst.reason].filter(Boolean).join(": ");
    }
  }
}

/** What the standings of some models mean: of one, and of several. */
const MEANS: [Standing[], string, string][] = [
  [["critical", "warning"], "needs a look", "need a look"],
  [["invalid"], "could not be judged", "could not be judged"],
  [["silent"], "has gone silent", "have gone silent"],
  [["insufficient"], "has too few events to judge", "have too few events to judge"],
  [["learning"], "is learning its reference", "are learning their references"],
  [["waiting"], "is waiting for its first closed window", "are waiting for their first closed windows"],
  [["ok", "info"], "is quiet", "are quiet"],
];

/** All models in a sentence, what matters most first; and what is to be said of the others. */
export function together(standings: Standing[]): { head: string; rest: string } {
  const told = MEANS.map(([of, one, several]) => {
    const many = standings.filter((word) => of.includes(word)).length;
    return { many, verb: many === 1 ? one : several };
  }).filter(({ many }) => many > 0);
  const [first, ...others] = told;
  if (!first) return { head: "Models", rest: "" };
  const all = standings.length;
  const models = (many: number) => `${count(many)} model${many === 1 ? "" : "s"}`;
  const head = others.length > 0 ? `${count(first.many)} of ${models(all)} ${first.verb}` : all === 1 ? `1 model ${first.verb}` : `All ${models(all)} ${first.verb}`;
  return { head, rest: others.map(({ many, verb }) => `${count(many)} ${verb}`).join(", ") };
}

/** A metric of quality, or that there are too few labels to judge by. */
export function judged(quality: Measured): string {
  return quality.reason ? "too few labels" : measured(quality.metric, quality.value);
}

export function qualityName(model: Overview): string {
  return model.quality ? method(model.quality.metric) : "";
}

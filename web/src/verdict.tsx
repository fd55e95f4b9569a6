// A verdict as a word and a shape; its colour says the same once more.
import type { Severity, Verdict } from "./documents";

export type Standing = Verdict | "learning" | "waiting" | "silent";

const SHAPES: Record<Standing, preact.JSX.Element> = {
  ok: <circle cx="6" cy="6" r="4.5" />,
  info: <rect x="2" y="2" width="8" height="8" rx="1" />,
  warning: <path d="M6 1 11.5 10.5H.5Z" />,
  critical: <path d="M3.7.5h4.6L11.5 3.7v4.6L8.3 11.5H3.7L.5 8.3V3.7Z" />,
  insufficient: <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="2 1.6" />,
  invalid: <path d="M2 2l8 8M10 2 2 10" fill="none" stroke="currentColor" stroke-width="2" />,
  learning: <path d="M6 1.5a4.5 4.5 0 0 1 0 9ZM6 1.5a4.5 4.5 0 0 0 0 9" fill="none" stroke="currentColor" stroke-width="1.6" />,
  waiting: <path d="M2 6h8" fill="none" stroke="currentColor" stroke-width="2" />,
  silent: <path d="M3.5 2v8M8.5 2v8" fill="none" stroke="currentColor" stroke-width="2" />,
};

export const ORDER: Standing[] = ["critical", "warning", "info", "invalid", "insufficient", "silent", "ok", "learning", "waiting"];

export function Shape({ of }: { of: Standing }) {
  return (
    <svg class="shape" viewBox="0 0 12 12" width="12" height="12" fill="currentColor" aria-hidden="true">
      {SHAPES[of]}
    </svg>
  );
}

export function Badge({ of, large }: { of: Standing | null | undefined; large?: boolean }) {
  if (!of) return <span class="none">not tested</span>;
  return (
    <span class={`verdict ${of}${large ? " large" : ""}`}>
      <Shape of={of} />
      {of}
    </span>
  );
}

export function Urgency({ of }: { of: Severity }) {
  return <span class={`urgency ${of}`}>{of === "page" ? "page" : "ticket"}</span>;
}

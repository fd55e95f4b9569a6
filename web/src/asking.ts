// The read API: a token, documents that are asked for again when something happened, and what happens as a stream.
import { useEffect, useRef, useState } from "preact/hooks";

export interface Problem {
  status: number; // 0: nobody answered
  title: string;
  detail: string;
  hint?: string;
  retryAfter?: number;
}

export interface Asked<T> {
  data: T | null;
  problem: Problem | null;
  loading: boolean;
  again: () => void;
}

const KEY = "barograph.token";
const PATIENCE_MS = 20_000;
const POLL_MS = 30_000;
let token = "";
const rejected = new Set<() => void>();

/** Takes the token out of the address, where a link may have brought it, or out of this tab's memory. */
export function arrive(): void {
  const found = /^#token=([^&/]+)(?:&?(\/.*))?$/.exec(location.hash);
  if (found) {
    keep(decodeURIComponent(found[1] ?? ""));
    history.replaceState(null, "", location.pathname + location.search + "#" + (found[2] ?? "/"));
    return;
  }
  try {
    token = sessionStorage.getItem(KEY) ?? "";
  } catch {
    token = "";
  }
}

export function keep(given: string): void {
  token = given;
  try {
    if (given) sessionStorage.setItem(KEY, given);
    else sessionStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing: it is held in memory.
  }
}

export function known(): boolean {
  return token !== "";
}

/** Is told when the token is refused. */
export function onRejected(told: () => void): () => void {
  rejected.add(told);
  return () => rejected.delete(told);
}

const silent: Problem = {
  status: 0,
  title: "no answer",
  detail: "The sidecar does not answer.",
  hint: "It may be restarting, or out of reach from here.",
};

async function problemOf(answer: Response): Promise<Problem> {
  const wait = Number(answer.headers.get("retry-after"));
  const retryAfter = Number.isFinite(wait) && wait > 0 ? { retryAfter: wait } : {};
  try {
    const told = (await answer.json()) as Problem;
    return {
      status: answer.status,
      title: String(told.title ?? answer.statusText),
      detail: String(told.detail ?? `The sidecar answered ${answer.status}.`),
      ...(told.hint ? { hint: String(told.hint) } : {}),
      ...retryAfter,
    };
  } catch {
    return { status: answer.status, title: answer.statusText, detail: `The sidecar answered ${answer.status}.`, ...retryAfter };
  }
}

/** One request. A refused token is told to whoever asks for one. */
export async function send(path: string, options: RequestInit = {}): Promise<Response | Problem> {
  const headers = { ...(options.headers as Record<string, string>), Authorization: `Bearer ${token}` };
  const clock = AbortSignal.timeout(PATIENCE_MS);
  try {
    const signal = options.signal ? AbortSignal.any([options.signal, clock]) : clock;
    const answer = await fetch(path, { ...options, headers, signal });
    if (answer.ok || answer.status === 304) return answer;
    const problem = await problemOf(answer);
    if (problem.status === 401) {
      keep("");
      rejected.forEach((told) => told());
    }
    return problem;
  } catch {
    return silent;
  }
}

/** A document, asked for again when `beat` changes, every half minute while somebody looks, and after problems that pass. */
export function useAsked<T>(path: string | null, beat: number): Asked<T> {
  const [state, setState] = useState<{ path: string | null; data: T | null; problem: Problem | null; loading: boolean }>({
    path,
    data: null,
    problem: null,
    loading: path !== null,
  });
  const [round, setRound] = useState(0);
  const tag = useRef<{ path: string | null; value: string | null }>({ path: null, value: null });
  useEffect(() => {
    if (path === null) return;
    const stop = new AbortController();
    let timer = 0;
    let failures = 0;
    const ask = async () => {
      const headers: Record<string, string> = {};
      if (tag.current.path === path && tag.current.value) headers["If-None-Match"] = tag.current.value;
      const answer = await send(path, { headers, signal: stop.signal });
      if (stop.signal.aborted) return;
      if (!(answer instanceof Response)) {
        setState((old) => ({ path, data: old.path === path ? old.data : null, problem: answer, loading: false }));
        failures += 1;
        const passes = answer.status === 0 || answer.status === 429 || answer.status >= 500;
        const wait = (answer.retryAfter ?? Math.min(30, 2 ** failures)) * 1000;
        if (passes) timer = window.setTimeout(ask, wait);
        return;
      }
      failures = 0;
      if (answer.status !== 304) {
        try {
          const data = (await answer.json()) as T;
          if (stop.signal.aborted) return;
          tag.current = { path, value: answer.headers.get("etag") };
          setState({ path, data, problem: null, loading: false });
        } catch {
          if (stop.signal.aborted) return;
          const problem = { status: answer.status, title: "unreadable", detail: "What the sidecar answered is no JSON." };
          setState((old) => ({ path, data: old.path === path ? old.data : null, problem, loading: false }));
        }
      } else {
        setState((old) => ({ ...old, problem: null, loading: false }));
      }
      timer = window.setTimeout(poll, POLL_MS);
    };
    const poll = () => {
      if (document.hidden) timer = window.setTimeout(poll, POLL_MS);
      else void ask();
    };
    setState((old) => (old.path === path ? old : { path, data: null, problem: null, loading: true }));
    void ask();
    return () => {
      stop.abort();
      window.clearTimeout(timer);
    };
  }, [path, beat, round]);
  const own = state.path === path;
  return {
    data: own ? state.data : null,
    problem: own ? state.problem : null,
    loading: own ? state.loading : path !== null,
    again: () => setRound((round) => round + 1),
  };
}

export interface Happening {
  kind: "alert" | "window" | "feedback" | "missed";
  model: string | null;
}

export type Connection = "live" | "connecting" | "silent";

/** Server-sent events, read with fetch: an `EventSource` could not send the token. Ends when it is told to. */
export function listen(happened: (happening: Happening) => void, connected: (state: Connection) => void): () => void {
  const stop = new AbortController();
  let wait = 1;
  const run = async () => {
    while (!stop.signal.aborted) {
      try {
        const answer = await fetch("/v1/stream", { headers: { Authorization: `Bearer ${token}` }, signal: stop.signal });
        if (answer.status === 401) {
          keep("");
          rejected.forEach((told) => told());
          return;
        }
        if (answer.ok && answer.body) {
          connected("live");
          if (wait > 1) happened({ kind: "missed", model: null });
          wait = 1;
          await read(answer.body, happened);
        }
      } catch {
        // It is tried again below.
      }
      if (stop.signal.aborted) return;
      connected(wait < 8 ? "connecting" : "silent");
      await new Promise((done) => window.setTimeout(done, wait * 1000));
      wait = Math.min(30, wait * 2);
    }
  };
  void run();
  return () => stop.abort();
}

async function read(body: ReadableStream<Uint8Array>, happened: (happening: Happening) => void): Promise<void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const kind = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (kind !== "alert" && kind !== "window" && kind !== "feedback" && kind !== "missed") continue;
      let model: string | null = null;
      try {
        model = String((JSON.parse(data ?? "{}") as { model?: string }).model ?? "") || null;
      } catch {
        model = null;
      }
      happened({ kind, model });
    }
  }
}

// The page: who looks, where, and what is live.
import { render } from "preact";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { arrive, type Connection, keep, known, listen, onRejected, useAsked } from "./asking";
import type { Overview } from "./documents";
import { named } from "./format";
import { link, useRoute } from "./route";
import { start, type Theme, theme, wear } from "./theme";
import { Token } from "./token";
import { AlertsView } from "./views/alerts";
import { ColumnView } from "./views/column";
import { ColumnsPanel } from "./views/columns";
import { Cost } from "./views/cost";
import { Fleet } from "./views/fleet";
import { LoopView } from "./views/loop";
import { Headline, Model } from "./views/model";
import { SegmentsView } from "./views/segments";

/** Happenings come in bursts, when windows close: what is shown is asked for once for all of them. */
const GATHER_MS = 400;

function App() {
  const [within, setWithin] = useState(known());
  const [refused, setRefused] = useState(false);
  const [visit, setVisit] = useState(0);
  useLayoutEffect(() => {
    const follow = () => {
      // A link with a token that is followed while the page is open.
      if (!location.hash.startsWith("#token=")) return;
      arrive();
      setVisit((visit) => visit + 1);
      setRefused(false);
      setWithin(known());
    };
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(
    () =>
      onRejected(() => {
        setRefused(true);
        setWithin(false);
      }),
    [],
  );
  if (!within) {
    return (
      <main>
        <Token
          refused={refused}
          given={() => {
            setRefused(false);
            setWithin(true);
          }}
        />
      </main>
    );
  }
  return (
    <Inside
      key={visit}
      leave={() => {
        keep("");
        setRefused(false);
        setWithin(false);
      }}
    />
  );
}

function Inside({ leave }: { leave: () => void }) {
  const { parts, query } = useRoute();
  const [beats, setBeats] = useState<{ all: number; models: Record<string, number> }>({ all: 0, models: {} });
  const [connection, setConnection] = useState<Connection>("connecting");
  useEffect(() => {
    let waiting: Set<string> | null = null;
    let timer = 0;
    const stop = listen((happening) => {
      waiting ??= new Set();
      waiting.add(happening.kind === "missed" || happening.model === null ? "" : happening.model);
      if (timer) return;
      timer = window.setTimeout(() => {
        const named = waiting ?? new Set();
        waiting = null;
        timer = 0;
        setBeats((old) => {
          const models = { ...old.models };
          for (const name of named.has("") ? Object.keys(models) : named) models[name] = (models[name] ?? 0) + 1;
          return { all: old.all + 1, models };
        });
      }, GATHER_MS);
    }, setConnection);
    return () => {
      stop();
      window.clearTimeout(timer);
    };
  }, []);
  const overview = useAsked<{ models: Overview[] }>("/v1/overview?limit=10000", beats.all);
  const name = parts[0] === "models" ? (parts[1] ?? null) : null;
  const what = parts[2] ?? "";
  const beat = name === null ? beats.all : (beats.models[name] ?? 0);
  const main = useRef<HTMLElement>(null);
  const place = parts.join("/");
  const seen = useRef(place);
  useEffect(() => {
    document.title = [parts[3], what && what !== "columns" ? what : null, name ?? (parts[0] === "cost" ? "cost" : null), "barograph"].filter(Boolean).join(" · ");
    if (seen.current !== place) {
      seen.current = place;
      scrollTo(0, 0);
      main.current?.focus({ preventScroll: true });
    }
  }, [place]);
  const go = useCallback(
    (more: Record<string, string | null>) => {
      location.hash = link(parts, more);
    },
    [place],
  );
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        main.current?.focus();
      }}>
        To the content
      </a>
      <Top parts={parts} connection={connection} leave={leave} />
      <main id="main" ref={main} tabIndex={-1}>
        {name === null ? (
          parts[0] === "cost" ? (
            <Cost beat={beats.all} />
          ) : parts.length === 0 ? (
            <Fleet overview={overview} />
          ) : (
            <Nowhere />
          )
        ) : (
          <>
            {what === "columns" && parts[3] !== undefined ? null : <Headline name={name} overview={overview} />}
            <Tabs name={name} what={what} />
            {what === "" ? (
              <Model key={name} name={name} query={query} beat={beat} go={go} />
            ) : what === "columns" ? (
              parts[3] === undefined ? (
                <ColumnsPanel model={name} beat={beat} />
              ) : (
                <ColumnView key={parts[3]} model={name} name={parts[3]} query={query} beat={beat} />
              )
            ) : what === "segments" ? (
              <SegmentsView model={name} beat={beat} />
            ) : what === "alerts" ? (
              <AlertsView model={name} query={query} beat={beat} />
            ) : what === "loop" ? (
              <LoopView model={name} beat={beat} />
            ) : (
              <Nowhere />
            )}
          </>
        )}
      </main>
    </>
  );
}

function Nowhere() {
  return (
    <p class="empty block">
      There is nothing at this address. <a href="#/">All models</a>
    </p>
  );
}

const TABS: [string, string][] = [
  ["", "Over time"],
  ["columns", "Columns"],
  ["segments", "Segments"],
  ["alerts", "Alerts"],
  ["loop", "Loop"],
];

function Tabs({ name, what }: { name: string; what: string }) {
  return (
    <nav class="tabs" aria-label="Views of the model">
      {TABS.map(([word, title]) => (
        <a key={word} href={link(word ? ["models", name, word] : ["models", name])} aria-current={what === word ? "page" : "false"}>
          {title}
        </a>
      ))}
    </nav>
  );
}

const LIVE: Record<Connection, string> = { live: "live", connecting: "connecting", silent: "no connection" };

function Top({ parts, connection, leave }: { parts: string[]; connection: Connection; leave: () => void }) {
  const [chosen, setChosen] = useState<Theme>(theme());
  const name = parts[0] === "models" ? parts[1] : null;
  return (
    <header class="top">
      <a href="#/" class="brand">
        barograph
      </a>
      <nav aria-label="Main">
        <a href="#/" aria-current={parts.length === 0 ? "page" : "false"}>
          Fleet
        </a>
        <a href="#/cost" aria-current={parts[0] === "cost" ? "page" : "false"}>
          Cost
        </a>
        {name ? (
          <a href={link(["models", name])} class="crumb name">
            <bdi>{named(name)}</bdi>
          </a>
        ) : null}
      </nav>
      <span class={`live ${connection}`} role="status">
        <i aria-hidden="true">{connection === "live" ? "●" : "○"}</i> {LIVE[connection]}
      </span>
      <label>
        <span class="hidden">Theme</span>
        <select
          value={chosen}
          onChange={(event) => {
            const next = event.currentTarget.value as Theme;
            setChosen(next);
            wear(next);
          }}
        >
          <option value="system">system</option>
          <option value="light">light</option>
          <option value="dark">dark</option>
        </select>
      </label>
      <button type="button" onClick={leave}>
        Forget token
      </button>
    </header>
  );
}

start();
arrive();
const root = document.getElementById("page");
if (root) {
  root.textContent = "";
  render(<App />, root);
}

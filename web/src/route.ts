// Where in the page one is: everything stands in the fragment, so that a link leads there again and nothing of it goes to the server.
import { useLayoutEffect, useState } from "preact/hooks";

export interface Route {
  /** Decoded parts of the path. */
  parts: string[];
  query: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const decode = (part: string) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  };
  return { parts: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

export function link(parts: string[], query: Record<string, string | null | undefined> = {}): string {
  const pairs = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== null && pair[1] !== undefined);
  const text = new URLSearchParams(pairs).toString();
  return "#/" + parts.map(encodeURIComponent).join("/") + (text ? `?${text}` : "");
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  // Before anything else can run: a fragment that changes between the first picture and a later effect would be lost.
  useLayoutEffect(() => {
    const changed = () => setRoute(parse(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** The address of something of a model in the read API. */
export function api(model: string, what: string, query: Record<string, string | number | null | undefined> = {}): string {
  const pairs = Object.entries(query).filter((pair) => pair[1] !== null && pair[1] !== undefined);
  const text = new URLSearchParams(pairs.map(([key, value]) => [key, String(value)])).toString();
  return `/v1/models/${encodeURIComponent(model)}/${what}` + (text ? `?${text}` : "");
}

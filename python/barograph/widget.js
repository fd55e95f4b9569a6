// The live view of a notebook. Everything is text put into nodes: a column's name is never markup.
const SIGNS = { critical: "▲", warning: "△", info: "◇", insufficient: "○", invalid: "×", ok: "●" };
const ORDER = Object.keys(SIGNS);
const SVG = "http://www.w3.org/2000/svg";

function node(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function drawing(width, height, label, ...paths) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label })) {
    svg.setAttribute(name, value);
  }
  for (const [kind, data] of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", data);
    if (kind === "line") {
      path.setAttribute("fill", "none");
      path.setAttribute("stroke", "currentColor");
      path.setAttribute("stroke-width", "1.5");
    } else path.setAttribute("class", kind);
    svg.append(path);
  }
  return svg;
}

function short(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function verdict(word) {
  return word ? node("span", { class: word }, `${SIGNS[word] ?? "·"} ${word}`) : node("span", { class: "soft" }, "not tested");
}

function name(text) {
  return node("bdi", {}, text);
}

function line(values) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const low = Math.min(...known);
  // Halves: the difference of the two ends of a double is no double.
  const half = Math.max(...known) / 2 - low / 2;
  let data = "";
  let pen = "M";
  values.forEach((value, at) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const y = half === 0 ? 14 : 26 - (24 * (value / 2 - low / 2)) / half;
    data += `${pen}${((at * 120) / Math.max(values.length - 1, 1)).toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return drawing(120, 28, `from ${short(known[0])} to ${short(known.at(-1))}`, ["line", data]);
}

function bars(shown) {
  if (!shown) return node("p", { class: "soft" }, "no histogram");
  const [width, height] = [480, 110];
  const top = Math.max(...shown.reference, ...shown.current, 1e-12);
  const step = width / shown.labels.length;
  const path = (shares) =>
    `M0 ${height}` +
    shares.map((share, at) => `L${(at * step).toFixed(1)} ${(height - (share / top) * (height - 4)).toFixed(1)}H${((at + 1) * step).toFixed(1)}`).join("") +
    `V${height}Z`;
  const svg = drawing(width, height, "shares of rows, reference and current", ["was", path(shown.reference)], ["now", path(shown.current)]);
  svg.setAttribute("class", "bars");
  const moved = shown.labels
    .map((label, at) => [label, shown.reference[at], shown.current[at]])
    .sort((a, b) => Math.abs(b[2] - b[1]) - Math.abs(a[2] - a[1]))
    .slice(0, 5);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const rows = moved.map(([label, was, now]) =>
    node("tr", {}, node("td", { class: "name" }, name(label)), node("td", { class: "number" }, percent(was)), node("td", { class: "number" }, percent(now))),
  );
  return node("div", {}, svg, table(["moved most", "reference", "current"], rows));
}

function table(heads, rows) {
  const cells = heads.map((head) => node("th", { scope: "col" }, head));
  return node("div", { class: "scroll" }, node("table", {}, node("thead", {}, node("tr", {}, ...cells)), node("tbody", {}, ...rows)));
}

function monitorView(content) {
  const parts = [node("h4", {}, "monitor ", name(content.name))];
  if (!content.windows) {
    parts.push(node("p", {}, "no window has closed yet"));
    return parts;
  }
  parts.push(node("p", { class: "soft" }, `${content.events.toLocaleString()} events in ${content.windows.toLocaleString()} windows, the last ends ${content.last}`));
  parts.push(node("p", {}, content.open ? `${content.open} open alert${content.open === 1 ? "" : "s"}` : "no open alert"));
  if (content.open) {
    const items = content.alerts.map((alert) => node("li", {}, `${alert.severity}: `, name(alert.column), alert.reason ? `: ${alert.reason}` : ""));
    const more = content.open - content.alerts.length;
    parts.push(node("ul", {}, ...items, more > 0 ? node("li", {}, `and ${more} more`) : null));
  }
  const rows = content.columns.map((row) =>
    node(
      "tr",
      {},
      node("td", { class: "name" }, name(row.column)),
      node("td", {}, verdict(row.verdict)),
      node("td", { class: "number" }, row.score === null ? "" : row.score.toFixed(3)),
      node("td", {}, line(row.line) ?? ""),
      node("td", {}, row.reason ?? ""),
    ),
  );
  if (rows.length) parts.push(table(["column", "verdict", "PSI", "PSI over time", "reason"], rows));
  const metrics = content.metrics.map((row) =>
    node(
      "tr",
      {},
      node("td", {}, row.metric.replaceAll("_", " ")),
      node("td", { class: "number" }, short(row.value)),
      node("td", { class: "number" }, row.lower === null ? "" : `${short(row.lower)} to ${short(row.upper)}`),
      node("td", {}, row.verdict ? verdict(row.verdict) : ""),
      node("td", {}, line(row.line) ?? ""),
    ),
  );
  if (metrics.length) parts.push(table(["metric", "value", "limits", "verdict", "over time"], metrics));
  return parts;
}

function reportView(content, choice) {
  const parts = [
    node("h4", {}, verdict(content.verdict), ` ${content.name}`),
    node("p", { class: "soft" }, `${content.rows.toLocaleString()} rows against ${content.reference_rows.toLocaleString()}`),
  ];
  const search = node("input", { type: "search", placeholder: "Find a column", "aria-label": "Find a column" });
  search.value = choice.search;
  const place = node("div");
  const keys = { column: (row) => row.column, verdict: (row) => (row.verdict ? ORDER.indexOf(row.verdict) : 99), PSI: (row) => -(row.value ?? -1) };
  const fill = () => {
    const key = keys[choice.sort];
    const rows = content.columns
      .filter((row) => row.column.toLowerCase().includes(choice.search.toLowerCase()))
      .sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    const body = rows.flatMap((row) => {
      const open = choice.open.has(row.column);
      const toggle = node(
        "button",
        {
          type: "button",
          "aria-expanded": String(open),
          onclick: () => {
            open ? choice.open.delete(row.column) : choice.open.add(row.column);
            fill();
          },
        },
        name(row.column),
      );
      const limits = row.lower === null || row.upper === null ? "" : `${short(row.lower)} to ${short(row.upper)}`;
      const head = node(
        "tr",
        {},
        node("td", { class: "name" }, toggle),
        node("td", {}, verdict(row.verdict)),
        node("td", { class: "number" }, row.value === null ? "" : row.value.toFixed(3)),
        node("td", { class: "number" }, limits),
        node("td", {}, row.reason ?? ""),
      );
      return open ? [head, node("tr", {}, node("td", { colspan: "5" }, bars(row.bars)))] : [head];
    });
    const heads = Object.keys(keys).map((word) =>
      node(
        "button",
        {
          type: "button",
          "aria-pressed": String(word === choice.sort),
          onclick: () => {
            choice.sort = word;
            fill();
          },
        },
        word,
      ),
    );
    place.replaceChildren(table([...heads, "limits", "reason"], body), rows.length ? "" : node("p", {}, "no column of this name"));
  };
  search.addEventListener("input", () => {
    choice.search = search.value;
    fill();
  });
  fill();
  parts.push(search, place);
  return parts;
}

function render({ model, el }) {
  const choice = { search: "", sort: "verdict", open: new Set() };
  const root = node("div", { class: "barograph" });
  el.append(root);
  const draw = () => {
    const content = model.get("content");
    const parts = content.kind === "report" ? reportView(content, choice) : monitorView(content);
    if (content.of > content.columns.length) parts.push(node("p", { class: "soft" }, `and ${content.of - content.columns.length} more columns`));
    if (content.trouble) parts.unshift(node("p", { class: "trouble", role: "status" }, `not up to date: ${content.trouble}`));
    root.replaceChildren(...parts);
  };
  let timer = null;
  const start = () => {
    clearInterval(timer);
    const interval = model.get("interval");
    // A tab that nobody sees asks nothing.
    if (interval > 0) timer = setInterval(() => document.hidden || model.send({ ask: "content" }), interval);
  };
  model.on("change:content", draw);
  model.on("change:interval", start);
  draw();
  start();
  return () => {
    clearInterval(timer);
    model.off("change:content", draw);
    model.off("change:interval", start);
  };
}

export default { render };

// Lines over time: uPlot draws them, the rest is what it lacks: intervals, gaps that say so, marks, words for those who do not see it.
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Mark } from "./documents";
import { NONE, instant, named } from "./format";
import { Behind } from "./panel";
import { Table } from "./table";

export interface Curve {
  label: string;
  times: number[]; // nanoseconds
  values: number[];
  lower?: (number | null)[];
  upper?: (number | null)[];
  /** Drawn as bars from 0. */
  bars?: boolean;
  dash?: boolean;
}

export interface TimeChartProps {
  title: string;
  curves: Curve[];
  /** A value as text, with its unit. */
  tell: (value: number | null | undefined) => string;
  gaps: [number, number][];
  marks: Mark[];
  /** A line that something is held to. */
  limit?: { value: number; label: string } | null;
  /** Longest distance of two points that are joined, in nanoseconds. */
  step: number;
  /** What the axis shows, in nanoseconds; all of it without. */
  range: [number, number] | null;
  /** Is told what was brushed. */
  brushed?: (start: number, end: number) => void;
  height?: number;
  /** The lowest value that is shown in any case. */
  floor?: number;
}

/** Beyond this a picture says nothing, and a scale breaks. */
const MOST = 1e30;

const HUES = ["--line1", "--line2", "--line3", "--line4", "--line5", "--line6"];
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4]];

function hue(at: number): string {
  return getComputedStyle(document.documentElement).getPropertyValue(HUES[at % HUES.length] ?? "--line1").trim();
}
function tint(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

type Column = (number | null)[];

/** One axis for all curves, a null wherever two points are too far apart to be joined. */
function align(curves: Curve[], step: number): uPlot.AlignedData {
  const times = new Set<number>();
  for (const curve of curves) {
    curve.times.forEach((time, at) => {
      times.add(time / 1e9);
      const next = curve.times[at + 1];
      if (next !== undefined && next - time > step) times.add((time + Math.min(step, (next - time) / 2)) / 1e9);
    });
  }
  const axis = [...times].sort((a, b) => a - b);
  const place = new Map(axis.map((time, at) => [time, at]));
  const spread = (curve: Curve, from: (number | null)[]): Column => {
    const out: Column = new Array<number | null>(axis.length).fill(null);
    curve.times.forEach((time, at) => {
      const to = place.get(time / 1e9);
      if (to !== undefined) out[to] = from[at] ?? null;
    });
    // Another curve's times lie between: they are passed over, gaps are not.
    let before = -1;
    for (let at = 0; at < axis.length; at += 1) {
      if (out[at] === null) continue;
      const [left, right] = [axis[before], axis[at]];
      if (before >= 0 && left !== undefined && right !== undefined && (right - left) * 1e9 <= step) {
        for (let between = before + 1; between < at; between += 1) out[between] = undefined as unknown as null;
      }
      before = at;
    }
    return out;
  };
  const columns: Column[] = [];
  for (const curve of curves) {
    columns.push(spread(curve, curve.values));
    if (curve.lower && curve.upper) columns.push(spread(curve, curve.lower), spread(curve, curve.upper));
  }
  return [axis, ...columns] as uPlot.AlignedData;
}

function drawable(curves: Curve[]): boolean {
  return curves.every((curve) =>
    [curve.values, curve.lower ?? [], curve.upper ?? []].every((list) => list.every((value) => value === null || Math.abs(value) < MOST)),
  );
}

function summary({ title, curves, tell }: TimeChartProps): string {
  const told = curves.map((curve) => {
    const last = curve.values.at(-1);
    const [low, high] = [Math.min(...curve.values), Math.max(...curve.values)];
    return `${curve.label}: last ${tell(last)}, from ${tell(low)} to ${tell(high)} in ${curve.values.length} points`;
  });
  return `${title} over time. ${told.join(". ")}. A table of it follows.`;
}

export function TimeChart(props: TimeChartProps) {
  const { curves, step, range, height = 150 } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const legend = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const data = useMemo(() => align(curves, step), [curves, step]);
  const fine = useMemo(() => drawable(curves), [curves]);
  const shape = curves.map((curve) => `${curve.label}|${curve.lower ? "band" : ""}|${curve.bars ? "bars" : ""}`).join("\n");

  useEffect(() => {
    const element = box.current;
    if (!element || !fine) return;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(latest, element.clientWidth, height, legend), data, element);
    };
    make();
    const sized = new ResizeObserver(() => {
      if (plot.current && element.clientWidth > 0 && element.clientWidth !== plot.current.width) {
        plot.current.setSize({ width: element.clientWidth, height });
      }
    });
    sized.observe(element);
    addEventListener("themed", make);
    return () => {
      sized.disconnect();
      removeEventListener("themed", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, fine, height]);

  useEffect(() => {
    plot.current?.setData(data, false);
    if (plot.current) rescale(plot.current, latest.current);
  }, [data, range?.[0], range?.[1], props.marks, props.gaps, props.limit?.value]);

  return (
    <div class="timechart">
      {fine ? (
        <>
          <div class="legend" ref={legend} aria-hidden="true">
            {curves.map((curve, at) => (
              <span key={curve.label}>
                <svg width="18" height="8" aria-hidden="true">
                  <line x1="0" y1="4" x2="18" y2="4" stroke={`var(${HUES[at % HUES.length]})`} stroke-width={curve.bars ? 7 : 2} stroke-dasharray={(DASHES[at % DASHES.length] ?? []).join(" ")} />
                </svg>
                <bdi>{named(curve.label)}</bdi> <b></b>
              </span>
            ))}
            {props.limit ? (
              <span>
                <svg width="18" height="8" aria-hidden="true">
                  <line x1="0" y1="4" x2="18" y2="4" stroke="var(--limit)" stroke-width="1.5" stroke-dasharray="3 3" />
                </svg>
                {props.limit.label}
              </span>
            ) : null}
            <span class="at"></span>
          </div>
          <div ref={box} class="canvas" role="img" aria-label={summary(props)} />
        </>
      ) : (
        <p class="empty">These values are too large to be drawn; the table has them.</p>
      )}
      <Behind title="The same as a table">{() => <Numbers {...props} />}</Behind>
    </div>
  );
}

function rescale(plot: uPlot, { range, curves }: TimeChartProps) {
  const times = curves.flatMap((curve) => [curve.times[0], curve.times.at(-1)]).filter((time): time is number => time !== undefined);
  const [first, last] = range ?? [Math.min(...times), Math.max(...times)];
  if (!Number.isFinite(first) || !Number.isFinite(last)) return;
  const pad = range ? 0 : Math.max(last - first, 6e10) * 0.02;
  plot.setScale("x", { min: (first - pad) / 1e9, max: (last + pad) / 1e9 });
}

function options(latest: { current: TimeChartProps }, width: number, height: number, legend: { current: HTMLDivElement | null }): uPlot.Options {
  const { curves, range } = latest.current;
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  curves.forEach((curve, at) => {
    const color = hue(at);
    series.push({
      stroke: color,
      width: curve.bars ? 0 : 1.8,
      dash: DASHES[at % DASHES.length] ?? [],
      ...(curve.bars ? { fill: color, paths: uPlot.paths.bars?.({ size: [0.8, 40] }) ?? null } : {}),
      points: { show: (plot, _, from, to) => !curve.bars && to - from < plot.width / 12, size: 5, fill: color },
      spanGaps: false,
    } as uPlot.Series);
    if (curve.lower && curve.upper) {
      const place = series.length;
      series.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
      bands.push({ series: [place + 1, place], fill: color + "2e" });
    }
  });
  const axis = { stroke: tint("--soft"), grid: { stroke: tint("--rule"), width: 1 }, ticks: { stroke: tint("--rule"), width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
  return {
    width: Math.max(width, 50),
    height,
    series,
    bands,
    legend: { show: false },
    padding: [8, 8, 0, 0],
    tzDate: (time) => uPlot.tzDate(new Date(time * 1e3), "Etc/UTC"),
    cursor: {
      drag: { x: Boolean(latest.current.brushed), y: false, setScale: false },
      sync: { key: "time" },
      points: { size: 6 },
    },
    scales: {
      x: { time: true, ...(range ? { min: range[0] / 1e9, max: range[1] / 1e9 } : {}) },
      y: {
        range: (_, low, high) => {
          const { limit, floor } = latest.current;
          const bounds = [low, high, limit?.value, floor].filter((value): value is number => value !== undefined && value !== null && Number.isFinite(value));
          if (bounds.length === 0) return [0, 1];
          const [least, most] = [Math.min(...bounds), Math.max(...bounds)];
          const pad = (most - least || Math.abs(most) || 1) * 0.08;
          return [least === floor ? least : least - pad, most + pad];
        },
      },
    },
    axes: [
      { ...axis, space: 80, size: 30, values: (plot, ticks) => dates(ticks).map((text, at) => (plot.valToPos(ticks[at] ?? 0, "x") > plot.bbox.width / (devicePixelRatio || 1) - text.length * 2.5 ? "" : text)) },
      { ...axis, size: 62, space: 28, values: (_, ticks) => ticks.map((tick) => latest.current.tell(tick)) },
    ],
    hooks: {
      drawAxes: [(plot) => drawBehind(plot, latest.current)],
      draw: [(plot) => drawMarks(plot, latest.current)],
      setSelect: [
        (plot) => {
          if (plot.select.width < 4) return;
          const start = plot.posToVal(plot.select.left, "x") * 1e9;
          const end = plot.posToVal(plot.select.left + plot.select.width, "x") * 1e9;
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          latest.current.brushed?.(start, end);
        },
      ],
      setCursor: [(plot) => follow(plot, latest.current, legend.current)],
    },
  };
}

const dayTick = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const hourTick = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });

/** Hours where they matter, days where a new one begins, the year with the first of January and the first tick. */
function dates(ticks: number[]): string[] {
  return ticks.map((tick, at) => {
    const time = new Date(tick * 1000);
    const before = ticks[at - 1];
    const day = dayTick.format(time);
    if (tick % 86400 !== 0 && before !== undefined && dayTick.format(new Date(before * 1000)) === day) return hourTick.format(time);
    const year = before === undefined || new Date(before * 1000).getUTCFullYear() !== time.getUTCFullYear();
    return year ? `${day} ${time.getUTCFullYear()}` : day;
  });
}

/** Values under the cursor, in the legend. */
function follow(plot: uPlot, { curves, tell }: TimeChartProps, legend: HTMLDivElement | null) {
  if (!legend) return;
  const at = plot.cursor.idx ?? null;
  const texts = legend.querySelectorAll("b");
  let place = 1;
  curves.forEach((curve, index) => {
    const value = at === null ? null : plot.data[place]?.[at];
    const text = texts[index];
    if (text) text.textContent = at === null || value === undefined ? "" : tell(value ?? null);
    place += curve.lower && curve.upper ? 3 : 1;
  });
  const when = legend.querySelector(".at");
  const time = at === null ? undefined : plot.data[0]?.[at];
  if (when) when.textContent = time === undefined ? "" : `${instant(time * 1e9)} UTC`;
}

function drawBehind(plot: uPlot, { gaps, limit }: TimeChartProps) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  const ratio = devicePixelRatio || 1;
  for (const [start, end] of gaps) {
    const left = Math.max(plot.valToPos(start / 1e9, "x", true), bbox.left);
    const right = Math.min(plot.valToPos(end / 1e9, "x", true), bbox.left + bbox.width);
    if (right - left < 2 * ratio) continue;
    ctx.fillStyle = tint("--gap");
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    if (right - left > 70 * ratio) {
      ctx.fillStyle = tint("--soft");
      ctx.font = `${11 * ratio}px system-ui, sans-serif`;
      ctx.textAlign = "center";
      ctx.fillText("no events", (left + right) / 2, bbox.top + bbox.height / 2);
    }
  }
  if (limit) {
    const y = plot.valToPos(limit.value, "y", true);
    ctx.strokeStyle = tint("--limit");
    ctx.lineWidth = 1.2 * ratio;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}

/** Deploys are lines with a flag, references dashed ones; alerts are triangles at the top, resolved ones circles. */
function drawMarks(plot: uPlot, { marks }: TimeChartProps) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, 0, bbox.width, bbox.top + bbox.height);
  ctx.clip();
  for (const mark of marks) {
    const x = plot.valToPos(mark.time / 1e9, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const standing = mark.kind === "deploy" || mark.kind === "reference";
    ctx.setLineDash(mark.kind === "reference" ? [5 * ratio, 3 * ratio] : []);
    ctx.lineWidth = ratio;
    if (standing) {
      ctx.strokeStyle = ctx.fillStyle = tint("--soft");
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillRect(x, bbox.top, 6 * ratio, 5 * ratio);
      continue;
    }
    ctx.fillStyle = tint(mark.kind === "resolved" ? "--ok" : mark.severity === "page" ? "--critical" : "--warning");
    const [y, size] = [bbox.top + 1, 4.5 * ratio];
    ctx.beginPath();
    if (mark.kind === "resolved") ctx.arc(x, y + size, size * 0.8, 0, 2 * Math.PI);
    else {
      ctx.moveTo(x - size, y);
      ctx.lineTo(x + size, y);
      ctx.lineTo(x, y + 1.8 * size);
      ctx.closePath();
    }
    ctx.fill();
  }
  ctx.restore();
}

/** The same as a table, newest first; gaps stand in it. */
function Numbers({ title, curves, tell, gaps }: TimeChartProps) {
  const times = [...new Set(curves.flatMap((curve) => curve.times))];
  const place = curves.map((curve) => new Map(curve.times.map((time, at) => [time, at])));
  const rows: { time: number; gap: number | null }[] = [...times.map((time) => ({ time, gap: null })), ...gaps.map(([time, gap]) => ({ time, gap }))];
  rows.sort((a, b) => b.time - a.time);
  const band = (curve: Curve, at: number | undefined) => {
    const [low, high] = at === undefined ? [null, null] : [curve.lower?.[at], curve.upper?.[at]];
    return low === null || low === undefined || high === null || high === undefined ? "" : ` [${tell(low)}, ${tell(high)}]`;
  };
  return (
    <Table
      caption={`${title}, newest first`}
      rows={rows}
      of={(row) => `${row.time}-${row.gap}`}
      heads={[
        {
          name: "time",
          title: "Window from (UTC)",
          heads: true,
          cell: (row) => (row.gap === null ? instant(row.time) : `${instant(row.time)} to ${instant(row.gap)}`),
        },
        ...curves.map((curve, index) => ({
          name: `${index}`,
          title: curve.label,
          right: true,
          cell: (row: { time: number; gap: number | null }) => {
            if (row.gap !== null) return "no events";
            const at = place[index]?.get(row.time);
            return at === undefined ? NONE : tell(curve.values[at]) + band(curve, at);
          },
        })),
      ]}
    />
  );
}

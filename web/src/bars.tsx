// Two histograms over each other: the reference as an outline, the current window filled.
import type { Column } from "./documents";
import { named, number, share } from "./format";

const [WIDTH, HEIGHT] = [600, 190];

export function Histogram({ column }: { column: Column }) {
  const bars = column.bars;
  if (!bars || bars.labels.length === 0) return null;
  const most = Math.max(...bars.reference, ...bars.current, 1e-9);
  const step = WIDTH / bars.labels.length;
  const y = (value: number) => HEIGHT - (value / most) * (HEIGHT - 8);
  let outline = `M0 ${HEIGHT}`;
  bars.reference.forEach((value, at) => {
    outline += `L${(at * step).toFixed(2)} ${y(value).toFixed(2)}L${((at + 1) * step).toFixed(2)} ${y(value).toFixed(2)}`;
  });
  outline += `L${WIDTH} ${HEIGHT}Z`;
  const edges = bars.edges;
  const ticks = edges ? [0, 0.25, 0.5, 0.75, 1].map((part) => ({ part, value: edges[Math.round(part * (edges.length - 1))] })) : [];
  const words = `Histogram of ${column.column}: ${bars.labels.length} bars, the highest ${share(most)} of events. The table of bins follows.`;
  return (
    <figure class="histogram">
      <div class="legend" aria-hidden="true">
        <span>
          <svg width="14" height="10" aria-hidden="true"><rect width="14" height="10" class="current" /></svg> current
        </span>
        <span>
          <svg width="14" height="10" aria-hidden="true"><rect x="1" y="1" width="12" height="8" class="reference" /></svg> reference
        </span>
        <span>highest bar {share(most)} of events</span>
      </div>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={words}>
        {bars.current.map((value, at) => (
          <rect key={at} class="current" x={at * step + step * 0.06} width={step * 0.88} y={y(value)} height={HEIGHT - y(value)}>
            <title>{`${bars.labels[at]}: reference ${share(bars.reference[at])}, current ${share(value)}`}</title>
          </rect>
        ))}
        <path d={outline} class="reference" vector-effect="non-scaling-stroke" />
      </svg>
      {edges ? (
        <div class="ticks" aria-hidden="true">
          {ticks.map(({ part, value }) => (
            <span key={part}>{number(value, 3)}</span>
          ))}
        </div>
      ) : null}
    </figure>
  );
}

/** Pairs of bars for names, as many as there are. */
export function Names({ column }: { column: Column }) {
  const bars = column.bars;
  if (!bars || bars.edges || bars.labels.length === 0) return null;
  const most = Math.max(...bars.reference, ...bars.current, 1e-9);
  return (
    <figure class="names">
      <div class="legend" aria-hidden="true">
        <span>
          <svg width="14" height="10" aria-hidden="true"><rect width="14" height="10" class="current" /></svg> current
        </span>
        <span>
          <svg width="14" height="10" aria-hidden="true"><rect x="1" y="1" width="12" height="8" class="reference" /></svg> reference
        </span>
      </div>
      <ul>
        {bars.labels.map((name, at) => (
          <li key={name}>
            <bdi class="name" title={name}>
              {named(name)}
            </bdi>
            <svg viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">
              <rect class="current" x="0" y="4" height="8" width={(100 * (bars.current[at] ?? 0)) / most} />
              <rect class="reference" x="0" y="1" height="14" width={(100 * (bars.reference[at] ?? 0)) / most} vector-effect="non-scaling-stroke" />
            </svg>
            <span>
              {share(bars.reference[at])} → {share(bars.current[at])}
            </span>
          </li>
        ))}
      </ul>
    </figure>
  );
}

/** A little curve of the last windows. */
export function Spark({ values, limit }: { values: number[]; limit: number | null }) {
  if (values.length < 2) return <span class="none">–</span>;
  const most = Math.max(...values, (limit ?? 0) * 1.2, 1e-9);
  const points = values.map((value, at) => `${((at / (values.length - 1)) * 80).toFixed(1)},${(17 - (value / most) * 16).toFixed(1)}`).join(" ");
  const line = limit === null ? null : 17 - (limit / most) * 16;
  return (
    <svg class="spark" viewBox="0 0 80 18" width="80" height="18" aria-hidden="true">
      {line === null ? null : <line x1="0" x2="80" y1={line} y2={line} class="limit" />}
      <polyline points={points} />
    </svg>
  );
}

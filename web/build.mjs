// Builds the page into dist: names of scripts and styles carry a hash of their content, and every file lies there compressed too.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const OUT = "dist";
// All files together, compressed.
const MOST_BYTES = 100_000;

for (const name of await readdir(OUT).catch(() => [])) {
  if (name !== ".gitignore") await rm(`${OUT}/${name}`, { recursive: true });
}
await mkdir(`${OUT}/assets`, { recursive: true });

const built = await build({
  entryPoints: { page: "src/main.tsx", style: "src/style.css" },
  bundle: true,
  minify: true,
  write: false,
  outdir: OUT,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "warning",
});

let total = 0;
async function keep(path, bytes) {
  const packed = gzipSync(bytes, { level: 9 });
  total += packed.length;
  await writeFile(`${OUT}/${path}`, bytes);
  await writeFile(`${OUT}/${path}.gz`, packed);
}
async function hashed(name, ending, bytes) {
  const path = `assets/${name}-${createHash("sha256").update(bytes).digest("hex").slice(0, 12)}${ending}`;
  await keep(path, bytes);
  return path;
}

const of = (ending) => built.outputFiles.find((file) => file.path.endsWith(ending)).contents;
const script = await hashed("page", ".js", of(".js"));
const style = await hashed("style", ".css", of(".css"));
const icon = await hashed("icon", ".svg", await readFile("src/icon.svg"));
const html = (await readFile("src/index.html", "utf8")).replace("{script}", script).replace("{style}", style).replace("{icon}", icon);
await keep("index.html", Buffer.from(html));
console.log(`page: ${total} bytes compressed`);
if (total > MOST_BYTES) {
  console.error(`the page must not take more than ${MOST_BYTES} bytes`);
  process.exit(1);
}

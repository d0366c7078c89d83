/** Draws what the figures in a directory say, as an SVG that can be read on a light page and on a dark one. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const WIDTH = 820;
const LABEL = 210;
const BAR = 14;
const GAP = 3;
/** By the runtime's name without its version; what is no runtime is grey. */
const COLORS = { "Deno": "#2a9d8f", "Bun": "#e07a5f", "Node": "#6a994e" };
const OLDER = "#a7c957";
const GREY = "#8d99ae";

const STYLE = `
    text { font: 12px system-ui, sans-serif; fill: #24292f; }
    .title { font-size: 14px; font-weight: 600; }
    .value { font-size: 11px; }
    .axis { stroke: #57606a; stroke-dasharray: 3 3; }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .axis { stroke: #9198a1; } }
  `;

/** Writes `summary.svg` from the `*.json` of a directory. */
export function plotResults(directory) {
  const results = Object.fromEntries(
    readdirSync(directory).filter((file) => file.endsWith(".json")).sort()
      .map((file) => [file.replace(".json", ""), JSON.parse(readFileSync(join(directory, file), "utf8"))]),
  );
  const panels = [ratioPanel(results), ...(results.tcp === undefined ? [] : [speedPanel(results.tcp)])]
    .filter(({ groups }) => groups.length > 0);
  if (panels.length > 0) writeFileSync(join(directory, "summary.svg"), svg(panels));
}

/** How fast ours is beside the runtime's own API: for each workload the case that stands for it. */
function ratioPanel(results) {
  const groups = [];
  for (const { title, servers } of Object.values(results)) {
    const bars = servers.filter((server) =>
      server.case === servers[0].case && server.ratios.raw !== undefined && server.messagesPerSecond !== undefined
    ).map(({ runtime, ratios }) => ({ label: runtime, value: ratios.raw, text: ratios.raw.toFixed(2), color: colorOf(runtime) }));
    if (bars.length > 0) groups.push({ label: title, bars });
  }
  return { title: "Messages a second, as a ratio to the runtime's own API", groups, mark: 1 };
}

/** How many messages each server echoes. */
function speedPanel({ servers }) {
  const bars = servers.filter((server) => server.case === servers[0].case).map(({ name, runtime, messagesPerSecond: value }) => ({
    label: runtime === null ? name : `${name} on ${runtime}`,
    value,
    text: Math.round(value).toLocaleString("en"),
    color: name === "ours" ? colorOf(runtime) : GREY,
  })).sort((a, b) => b.value - a.value);
  return { title: `Messages a second, TCP echo: ${servers[0].case}`, groups: [{ label: "", bars }] };
}

function colorOf(runtime) {
  const [name, version] = runtime.split(" ");
  return name === "Node" && Number.parseInt(version) < 24 ? OLDER : COLORS[name] ?? GREY;
}

function svg(panels) {
  const shapes = [];
  let y = 0;
  for (const { title, groups, mark } of panels) {
    shapes.push(text(0, y += 20, title, "title"));
    y += 10;
    const top = y;
    const most = Math.max(mark ?? 0, ...groups.flatMap(({ bars }) => bars.map(({ value }) => value)));
    const scale = (WIDTH - LABEL - 70) / most;
    for (const { label, bars } of groups) {
      if (label !== "") shapes.push(text(0, y += 16, label));
      y += 4;
      for (const bar of bars) {
        shapes.push(
          text(LABEL - 8, y + BAR - 3, bar.label, "value", "end"),
          `<rect x="${LABEL}" y="${y}" width="${(bar.value * scale).toFixed(1)}" height="${BAR}" rx="2" fill="${bar.color}"/>`,
          text(LABEL + bar.value * scale + 6, y + BAR - 3, bar.text, "value"),
        );
        y += BAR + GAP;
      }
    }
    if (mark !== undefined) {
      const x = (LABEL + mark * scale).toFixed(1);
      shapes.push(`<line class="axis" x1="${x}" x2="${x}" y1="${top}" y2="${y}"/>`);
    }
    y += 16;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img">
  <title>${panels.map(({ title }) => escape(title)).join("; ")}</title>
  <style>${STYLE}</style>
  ${shapes.join("\n  ")}
</svg>
`;
}

function text(x, y, content, name, anchor) {
  const attributes = [name && ` class="${name}"`, anchor && ` text-anchor="${anchor}"`].filter(Boolean).join("");
  return `<text x="${x.toFixed(1)}" y="${y}"${attributes}>${escape(content)}</text>`;
}

function escape(content) {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/** Makes a Markdown page of what was measured, and the figures for the plot. */
import { cpus, release, type } from "node:os";
import { usedPrograms } from "./servers.mjs";
import { PEERS } from "./workloads.mjs";

/** That of deno.json. */
const LINE_WIDTH = 130;

/** The figures that a page shows, as far as they were measured, with the digits behind the point. */
const COLUMNS = {
  messagesPerSecond: ["msgs/s", 0],
  cpu: ["CPU µs/msg", 2],
  p50: ["p50 µs", 0],
  answered: ["answered/s", 0],
  refused: ["refused/s", 0],
  quiet: ["quiet p99 µs", 0],
  p99: ["p99 µs", 0],
  slower: ["p99 / quiet", 2],
  p999: ["p99.9 µs", 0],
  rss: ["memory MB", 1],
  lost: ["lost", 0],
  loadShare: ["generator's CPU", 2],
  made: ["connections", 0],
  bytes: ["bytes each", 0],
  first: ["MB after a tenth", 1],
  last: ["MB at the end", 1],
  idle: ["MB idle", 1],
  growth: ["idle / a tenth", 3],
  ms: ["ms", 1],
};

/** What the ratios are made of: the first of these that was measured. */
const RATIOS = { messagesPerSecond: "msgs/s", bytes: "bytes each", growth: "growth", ms: "time", slower: "p99 / quiet" };

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median of a figure, or undefined when it is missing in some round. */
function figure({ rounds }, field) {
  const values = rounds.map((round) => round[field]);
  return values.length === 0 || values.includes(undefined) ? undefined : median(values);
}

/** The ratio of two servers' figures, taken in each round; undefined without both. */
function ratio(ours, peer, field) {
  if (figure(ours, field) === undefined || figure(peer, field) === undefined) return undefined;
  const values = ours.rounds.map((round, i) => round[field] / peer.rounds[i][field]);
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

function figuresTable(servers, titles) {
  const measured = servers.filter(({ rounds }) => rounds.length > 0);
  const fields = Object.keys(COLUMNS).filter((field) => measured.some((server) => figure(server, field) !== undefined));
  return markdownTable(measured.map((server) => ({
    "runtime": server.runtime === null ? "" : titles[server.runtime],
    "server": server.name,
    ...Object.fromEntries(fields.map((field) => {
      const [head, digits] = COLUMNS[field];
      return [head, figure(server, field)?.toFixed(digits) ?? ""];
    })),
  })));
}

function ratiosTable(servers, titles) {
  const rows = [];
  for (const ours of servers.filter(({ name, rounds }) => name === "ours" && rounds.length > 0)) {
    for (const peer of servers) {
      if (peer === ours || (peer.runtime !== null && peer.runtime !== ours.runtime) || peer.rounds.length === 0) continue;
      const field = Object.keys(RATIOS).find((field) => figure(ours, field) !== undefined);
      const main = ratio(ours, peer, field);
      const of = (field) => ratio(ours, peer, field)?.median.toFixed(2) ?? "";
      rows.push({
        "runtime": titles[ours.runtime],
        "ours /": peer.name,
        [RATIOS[field]]: main.median.toFixed(2),
        "min..max": `${main.min.toFixed(2)}..${main.max.toFixed(2)}`,
        ...(field === "messagesPerSecond" ? { "CPU/msg": of("cpu"), "p99": of("p99") } : {}),
        ...(field === "ms" ? { "added ms": (figure(ours, "ms") - figure(peer, "ms")).toFixed(1) } : {}),
      });
    }
  }
  return rows.length === 0 ? [] : [markdownTable(rows)];
}

/** Aligned as `deno fmt` aligns it, so that a result that is committed stays as it was written. */
function markdownTable(rows) {
  const heads = Object.keys(rows[0]);
  const widths = heads.map((head) => Math.max(3, ...[head, ...rows.map((row) => row[head])].map((text) => text.length)));
  const left = (i) => i === 0 || heads[i] === "server" || heads[i] === "ours /";
  const pad = (text, i) => left(i) ? text.padEnd(widths[i]) : text.padStart(widths[i]);
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [
    line(heads.map(pad)),
    line(heads.map((_, i) => left(i) ? "-".repeat(widths[i]) : "-".repeat(widths[i] - 1) + ":")),
    ...rows.map((row) => line(heads.map((head) => row[head]).map(pad))),
  ].join("\n");
}

/** Broken into lines as `deno fmt` breaks them. */
function wrap(paragraph) {
  return paragraph.split(" ").reduce((text, word) => {
    const line = text.slice(text.lastIndexOf("\n") + 1);
    return `${text}${line.length + 1 + word.length > LINE_WIDTH ? "\n" : " "}${word}`;
  });
}

/**
 * The page of one workload.
 *
 * @param workload One of `WORKLOADS`.
 * @param servers For each case, runtime and server its `rounds` of figures, or why it is `missing`.
 * @param setting `rounds`, `seconds`, `cores`, `titles`, the `command` to repeat it, and what was `loaded`.
 */
export function report(workload, servers, { rounds, seconds, cores, titles, command, loaded }) {
  const model = cpus()[0]?.model.trim() || "unknown processor";
  const pinned = cores === undefined || workload.spread
    ? "Server and generator are not pinned and may have shared a core."
    : "Server and generator are pinned to a core each.";
  const sections = [];
  for (const name of new Set(servers.map((server) => server.case))) {
    const some = servers.filter((server) => server.case === name && server.rounds.length > 0);
    if (name !== "") sections.push(`## ${name}`);
    if (some.length > 0) sections.push(figuresTable(some, titles), ...ratiosTable(some, titles));
  }
  const missing = new Set(
    servers.filter((server) => server.missing !== undefined).map(({ name, runtime, missing }) =>
      `Left out is ${name}${runtime === null ? "" : ` on ${titles[runtime]}`}: ${missing}.`
    ),
  );
  const peers = [...new Set(servers.map(({ name }) => name))].filter((name) => Object.hasOwn(PEERS, name));
  const took = servers[0]?.rounds.length ?? rounds;
  const notes = [
    `Medians of ${took} rounds${
      workload.kind === undefined ? ` of ${seconds * (workload.seconds ?? 1)} s` : ""
    }, each with fresh ` +
    "processes. The ratios are taken in each round; `min..max` is their spread.",
  ];
  if (servers.some((server) => figure(server, "loadShare") !== undefined)) {
    notes.push("`generator's CPU` is the share of a core that the load generator used: below 1 it waited for the server.");
  }
  if (servers.some((server) => figure(server, "lost") !== undefined)) notes.push("`lost` are datagrams that did not come back.");
  const loads = loaded.map(([title, { modules, threads, libraries }]) =>
    `- ${title}: built-in modules ${
      modules.map((name) => `\`${name}\``).join(", ") || "none"
    }; ${threads} threads, ${libraries} libraries`
  );
  return [
    `# ${workload.title}`,
    wrap(`${workload.what} ${workload.kind === "import" ? "" : pinned}`.trim()),
    [
      "- `ours` is this package; what serves is in `bench/servers/` or `examples/`",
      ...peers.map((name) => `- \`${name}\` is ${PEERS[name]}`),
    ]
      .join("\n"),
    ...sections,
    wrap(notes.join(" ")),
    ...(loads.length > 0 ? ["What the import loads:", loads.join("\n")] : []),
    ...[...missing].map(wrap),
    [
      `- Machine: ${model}, ${cpus().length} cores, ${type()} ${release()}`,
      `- Software: ${[...Object.values(titles), ...usedPrograms()].join(", ")}`,
      `- Date: ${new Date().toISOString().slice(0, 10)}`,
      `- Command: \`${command}\``,
    ].map((item) => wrap(item).replaceAll("\n", "\n  ")).join("\n"),
  ].join("\n\n") + "\n";
}

/** The medians, for the plot. */
export function summarize(workload, servers, { titles }) {
  return {
    title: workload.title,
    date: new Date().toISOString().slice(0, 10),
    servers: servers.filter(({ rounds }) => rounds.length > 0).map((server) => ({
      case: server.case,
      runtime: server.runtime === null ? null : titles[server.runtime],
      name: server.name,
      ...Object.fromEntries(
        Object.keys(COLUMNS).map((field) => [field, figure(server, field)]).filter(([, value]) => value !== undefined),
      ),
      ratios: Object.fromEntries(
        servers.filter((peer) =>
          server.name === "ours" && peer !== server && peer.case === server.case && peer.rounds.length > 0 &&
          (peer.runtime === null || peer.runtime === server.runtime)
        ).map((peer) => [
          peer.name,
          ratio(server, peer, Object.keys(RATIOS).find((field) => figure(server, field) !== undefined)).median,
        ]),
      ),
    })),
  };
}

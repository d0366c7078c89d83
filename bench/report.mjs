/** Makes a Markdown page of what was measured. */
import { cpus, release, type } from "node:os";
import { PEERS, pythonVersion } from "./workloads.mjs";

/** That of deno.json. */
const LINE_WIDTH = 130;

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function tableRow({ title, rounds }, peer) {
  const of = (name, field) => median(rounds.map((round) => round[name][field]));
  const speeds = rounds.map((round) => round.ours.messagesPerSecond / round[peer].messagesPerSecond);
  const row = {
    "runtime": title,
    [`${peer} msgs/s`]: of(peer, "messagesPerSecond").toFixed(0),
    "ours msgs/s": of("ours", "messagesPerSecond").toFixed(0),
    [`ours / ${peer}`]: median(speeds).toFixed(2),
    "min..max": `${Math.min(...speeds).toFixed(2)}..${Math.max(...speeds).toFixed(2)}`,
  };
  if (rounds.every((round) => round[peer].cpu !== undefined && round.ours.cpu !== undefined)) {
    row[`${peer} CPU µs/msg`] = of(peer, "cpu").toFixed(2);
    row["ours CPU µs/msg"] = of("ours", "cpu").toFixed(2);
    row[`CPU ours / ${peer}`] = median(rounds.map((round) => round.ours.cpu / round[peer].cpu)).toFixed(2);
  }
  row[`${peer} p99 µs`] = of(peer, "p99").toFixed(0);
  row["ours p99 µs"] = of("ours", "p99").toFixed(0);
  if (rounds[0].ours.lost !== undefined) {
    for (const name of [peer, "ours"]) row[`${name} lost`] = String(rounds.reduce((sum, round) => sum + round[name].lost, 0));
  }
  return row;
}

/** Aligned as `deno fmt` aligns it, so that a result that is committed stays as it was written. */
function markdownTable(rows) {
  const heads = Object.keys(rows[0]);
  const widths = heads.map((head) => Math.max(...[head, ...rows.map((row) => row[head])].map((text) => text.length)));
  const pad = (text, i) => i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i]);
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [
    line(heads.map(pad)),
    line(heads.map((_, i) => i === 0 ? "-".repeat(widths[i]) : "-".repeat(widths[i] - 1) + ":")),
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
 * @param results For each runtime its `title`, its `rounds` (the figures of each server by its name) and what was `missing`.
 * @param setting `rounds`, `seconds`, `cores` and the `command` to repeat it.
 */
export function report(workload, results, { rounds, seconds, cores, command }) {
  const model = cpus()[0]?.model.trim() || "unknown processor";
  const pinned = cores === undefined || workload.spread
    ? "Server and generator are not pinned and may have shared a core."
    : "Server and generator are pinned to a core each.";
  const tables = [];
  for (const peer of Object.keys(workload.peers)) {
    const measured = results.filter((result) => result.rounds[0]?.[peer] !== undefined);
    if (measured.length === 0) continue;
    tables.push(PEERS[peer], markdownTable(measured.map((result) => tableRow(result, peer))));
  }
  const missing = results.flatMap(({ title, missing }) =>
    missing.map(({ name, why }) => `Left out is ${name} on ${title}: ${why}.`)
  );
  const software = results.map(({ title }) => title);
  if (Object.hasOwn(workload.peers, "Python") && pythonVersion() !== undefined) software.push(`Python ${pythonVersion()}`);
  return [
    `# ${workload.title}`,
    wrap(`${workload.what} ${pinned}`),
    "`ours` is this package; all servers are in `bench/servers/`.",
    ...tables,
    `Medians of ${rounds} rounds of ${seconds} s, each with fresh processes.`,
    "The ratios are taken in each round; `min..max` is the spread of the one before it.",
    ...(workload.load === "load.c" ? [] : ["`lost` counts the datagrams of all rounds that did not come back within 0.2 s."]),
    ...missing.map(wrap),
    `- Machine: ${model}, ${cpus().length} cores, ${type()} ${release()}
- Runtimes: ${software.join(", ")}
- Date: ${new Date().toISOString().slice(0, 10)}
- Command: \`${command}\``,
  ].join("\n\n") + "\n";
}

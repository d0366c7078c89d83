import { duration, short } from "./units.ts";

/** The page that a browser gets. What it shows comes from `/stats.json`, once a second, as text and never as markup. */
export const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>@sockets/server</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="monitor.css">
<h1>Servers <small id="time">…</small></h1>
<main id="servers"></main>
<script src="monitor.js"></script>
</html>
`;

/** How it looks. */
export const STYLE = `:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 1rem auto; max-width: 70rem; padding: 0 1rem; }
h1, h2 { font-size: 1.2rem; margin: 1rem 0 .5rem; }
small { color: gray; font-weight: normal; }
.numbers { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); margin: 0; }
.numbers div { border: 1px solid #8884; border-radius: 4px; padding: .4rem .6rem; }
dt { color: gray; }
dd { font-size: 1.2rem; font-variant-numeric: tabular-nums; margin: 0; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: start; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { color: gray; text-align: left; }
td, th { font-weight: normal; padding: .1rem .8rem .1rem 0; text-align: left; }
td:nth-child(n+2) { text-align: right; }
meter { width: 10rem; }
.lost #time { color: crimson; }
`;

/** What fills it. What the terminal shows numbers with, it takes over as the functions are. */
export const SCRIPT = `"use strict";
const element = (name, ...children) => {
  const made = document.createElement(name);
  made.append(...children);
  return made;
};
const short = ${short};
const time = ${duration};
const numbers = (pairs) => {
  const list = element("dl");
  list.className = "numbers";
  for (const [name, value] of pairs) list.append(element("div", element("dt", name), element("dd", value)));
  return list;
};
const table = (title, rows) => {
  const made = element("table", element("caption", title));
  for (const cells of rows) made.append(element("tr", ...cells.map((cell) => element("td", cell))));
  return made;
};
// A power of two each.
const histogram = ({ count, buckets }) => {
  const octaves = new Map();
  for (const { below, count } of buckets) {
    const octave = below === null ? null : 2 ** Math.ceil(Math.log2(below));
    octaves.set(octave, (octaves.get(octave) ?? 0) + count);
  }
  return [...octaves].map(([below, some]) => {
    const bar = element("meter");
    bar.max = count;
    bar.value = some;
    return ["< " + time(below), short(some), bar];
  });
};
const show = ({ address, name, draining, stats, recent, longest, replicas }) => {
  const rate = (what, count) => short(count) + (recent === null ? "" : " · " + short(recent[what]) + "/s");
  const section = element("section", element("h2", address + " ", element("small", name + (draining ? ", draining" : ""))));
  section.append(numbers([
    ["active", short(stats.active)],
    ["accepted", rate("accepted", stats.accepted)],
    ["refused", rate("refused", stats.refused)],
    ["errors", rate("errors", stats.errors)],
    ["received", rate("bytesRead", stats.bytesRead)],
    ["sent", rate("bytesWritten", stats.bytesWritten)],
    ["unsent", short(stats.unsent)],
    ["queued", short(stats.queued)],
    ["threads", short(stats.threads)],
    ["children", short(stats.children)],
    ...(recent === null || recent.p99 === null ? [] : [["50 % took", "< " + time(recent.p50)], ["90 % took", "< " + time(recent.p90)], ["99 % took", "< " + time(recent.p99)]]),
  ]));
  const tables = element("div");
  tables.className = "tables";
  const ended = Object.entries(stats.ended).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  if (ended.length > 0) tables.append(table("How connections ended", ended.map(([reason, count]) => [reason, short(count)])));
  if (stats.requestTime.count > 0) tables.append(table("Time of requests", histogram(stats.requestTime)));
  if (replicas.length > 0) {
    tables.append(table("Replicas", replicas.map(({ index, kind, id, state, restarts }) => [index + ": " + kind + " " + (id ?? ""), state, restarts + " restarts"])));
  }
  if (longest.length > 0) {
    tables.append(table("Active for longest", longest.map(({ client, age, bytesRead, bytesWritten }) => [
      client ?? "no address", time(age), short(bytesRead) + " received", short(bytesWritten) + " sent",
    ])));
  }
  section.append(tables);
  return section;
};
const refresh = async () => {
  try {
    const response = await fetch("stats.json", { cache: "no-store" });
    if (!response.ok) throw new Error(String(response.status));
    const snapshot = await response.json();
    document.getElementById("servers").replaceChildren(...snapshot.servers.map(show));
    document.getElementById("time").textContent = new Date(snapshot.time).toLocaleTimeString();
    document.body.classList.remove("lost");
  } catch {
    // What was last seen stays, and says since when.
    document.body.classList.add("lost");
  }
  setTimeout(refresh, 1000);
};
refresh();
`;

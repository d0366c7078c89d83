/**
 * `npm test`: every test on Deno, Bun and Node, oldest supported and newest; ends with one summary line per runtime.
 *
 *     npm test [-- --runtime NAME] [FILE …]
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runtimes } from "./runtimes.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values, positionals } = parseArgs({
  options: { runtime: { type: "string", multiple: true } },
  allowPositionals: true,
});
const chosen = runtimes.filter(({ name }) => values.runtime === undefined || values.runtime.includes(name));
const files = positionals.length > 0
  ? positionals.map((file) => `./${file.replace(/^\.\//, "")}`)
  : readdirSync(join(root, "tests"), { recursive: true })
    .filter((file) => file.endsWith(".test.ts")).sort().map((file) => `./tests/${file}`);
const directory = mkdtempSync(join(tmpdir(), "sockets-test-"));

const summaries = [];
let failed = chosen.length === 0;
for (const { name, version, command: [binary], test } of chosen) {
  console.log(`\n=== ${name} ${version}`);
  const report = join(directory, `${name}.xml`);
  // The tests start hundreds of processes: with what Node has compiled kept, each takes a third of the time (where it keeps TypeScript).
  const env = { ...process.env, NODE_COMPILE_CACHE: join(directory, "compiled") };
  const { status } = spawnSync(binary, test(files, report), { cwd: root, stdio: ["ignore", "inherit", "inherit"], env });
  const counts = count(report);
  // A runtime that crashed, or ran nothing, has failed whatever it counted.
  if (status !== 0 || counts === null || counts.passed === 0) failed = true;
  if (counts === null) {
    summaries.push(`${name} ${version}: no report (exit status ${status})`);
    continue;
  }
  for (const skipped of counts.skippedNames) console.log(`skipped on ${name}: ${skipped}`);
  summaries.push(`${name} ${version}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  for (const [cell, cases] of [...counts.cells].sort()) summaries.push(`  ${cell}: ${cases.passed}/${cases.total}`);
}
rmSync(directory, { recursive: true });
console.log(`\n${summaries.join("\n")}`);
process.exit(failed ? 1 : 0);

/** Counts the test cases of a JUnit report; null when there is none. */
function count(report) {
  let xml;
  try {
    xml = readFileSync(report, "utf8");
  } catch {
    return null;
  }
  const result = { passed: 0, failed: 0, skipped: 0, skippedNames: [], cells: new Map() };
  for (const [whole, attributes] of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>[^]*?<\/testcase>)/g)) {
    const name = unescape(/\bname="([^"]*)"/.exec(attributes)?.[1] ?? "?");
    const outcome = /<skipped/.test(whole) ? "skipped" : /<(failure|error)\b/.test(whole) ? "failed" : "passed";
    result[outcome]++;
    if (outcome === "skipped") result.skippedNames.push(name);
    // The conformance cases begin with the cell that they are about: "node tcp async: …".
    const cell = /^((?:deno|bun|node|memory) \w+ \w+): /.exec(name)?.[1];
    if (cell === undefined) continue;
    const cases = result.cells.get(cell) ?? { passed: 0, total: 0 };
    cases.total++;
    if (outcome === "passed") cases.passed++;
    result.cells.set(cell, cases);
  }
  return result;
}

function unescape(text) {
  return text.replace(/&gt;/g, ">").replace(/&lt;/g, "<").replace(/&quot;/g, '"').replace(/&apos;/g, "'").replace(/&amp;/g, "&");
}

/**
 * `npm test`: every test on Deno, Bun and Node, and on the oldest Node supported those that may depend on its version; ends with one
 * summary line per runtime.
 *
 *     npm test [-- --runtime NAME] [FILE …]
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
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

const summaries = new Map(chosen.map(({ name }) => [name, []]));
const failures = [];
let failed = chosen.length === 0;
// A test waits more than it computes, so two runtimes at once take little longer than one. What they print is shown one after the other.
const together = Math.min(2, chosen.length, availableParallelism());
const waiting = [...chosen];
await Promise.all(Array.from({ length: together }, async () => {
  for (let runtime; (runtime = waiting.shift()) !== undefined;) await run(runtime);
}));
rmSync(directory, { recursive: true });
// Once more at the end, where they are seen.
if (failures.length > 0) console.log(`\n${failures.join("\n")}`);
console.log(`\n${[...summaries.values()].flat().join("\n")}`);
// Not process.exit(): a pipe may not have taken all of the output yet.
process.exitCode = failed ? 1 : 0;

async function run({ name, version, command: [binary], test, leavesOut }) {
  const title = `\n=== ${name} ${version}`;
  if (together === 1) console.log(title);
  const report = join(directory, `${name}.xml`);
  const log = join(directory, `${name}.log`);
  const output = together === 1 ? "inherit" : openSync(log, "w");
  // The tests start hundreds of processes: with what Node has compiled kept, each takes a third of the time (where it keeps TypeScript).
  const env = { ...process.env, NODE_COMPILE_CACHE: join(directory, "compiled") };
  const here = positionals.length > 0 || leavesOut === undefined ? files : files.filter((file) => !leavesOut.test(file));
  const child = spawn(binary, test(here, report), { cwd: root, stdio: ["ignore", output, output], env });
  const [status, signal] = await once(child, "close");
  if (together > 1) {
    console.log(title);
    process.stdout.write(readFileSync(log));
  }
  const counts = count(report);
  // A runtime that crashed, or ran nothing, has failed whatever it counted.
  if (status !== 0 || counts === null || counts.passed === 0) failed = true;
  const summary = summaries.get(name);
  if (counts === null) {
    summary.push(`${name} ${version}: no report (ended with ${signal ?? status})`);
    return;
  }
  for (const skipped of counts.skippedNames) console.log(`skipped on ${name}: ${skipped}`);
  failures.push(...counts.failures.map((failure) => `failed on ${name}: ${failure}`));
  summary.push(`${name} ${version}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  for (const [cell, cases] of [...counts.cells].sort()) summary.push(`  ${cell}: ${cases.passed}/${cases.total}`);
}

/** Counts the test cases of a JUnit report; null when there is none. */
function count(report) {
  let xml;
  try {
    xml = readFileSync(report, "utf8");
  } catch {
    return null;
  }
  const result = { passed: 0, failed: 0, skipped: 0, skippedNames: [], failures: [], cells: new Map() };
  for (const [whole, attributes] of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>[^]*?<\/testcase>)/g)) {
    const name = unescape(/\bname="([^"]*)"/.exec(attributes)?.[1] ?? "?");
    const outcome = /<skipped/.test(whole) ? "skipped" : /<(failure|error)\b/.test(whole) ? "failed" : "passed";
    result[outcome]++;
    if (outcome === "skipped") result.skippedNames.push(name);
    if (outcome === "failed") {
      result.failures.push(`${name}\n${unescape(/<(?:failure|error)\b[^]*(?=<\/testcase>)/.exec(whole)?.[0] ?? "")}`);
    }
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
  return text.replace(/&#10;/g, "\n").replace(/&gt;/g, ">").replace(/&lt;/g, "<").replace(/&quot;/g, '"').replace(/&apos;/g, "'")
    .replace(/&amp;/g, "&");
}

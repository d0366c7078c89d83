/**
 * Measures echo on this package against echo on the runtime's own API, and datagrams also against Python's socketserver:
 *
 *     node bench/run.mjs [--rounds 7] [--seconds 1] [--runtime deno|bun|node|node22]... [--workload tcp|udp|unixgram]...
 *
 * Prints a Markdown page for each workload and writes it to bench/results/. Plain JavaScript, since it has to run where nothing but
 * a Node is there; what it starts comes out of node_modules/.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chooseCores, compileLoad, measure, Unsupported } from "./measure.mjs";
import { report } from "./report.mjs";
import { checkRuntime, ROOT, RUNTIMES, runtimeTitle, UsageError, WORKLOADS } from "./workloads.mjs";

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        rounds: { type: "string", default: "7" },
        seconds: { type: "string", default: "1" },
        runtime: { type: "string", multiple: true, default: Object.keys(RUNTIMES) },
        workload: { type: "string", multiple: true, default: Object.keys(WORKLOADS) },
      },
    }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError(`--rounds takes a positive integer, got ${values.rounds}`);
  // The processor time comes in ticks of 10 ms: of less than a tenth of a second nothing would be left.
  if (!(seconds >= 0.1 && seconds <= 3600)) {
    throw new UsageError(`--seconds takes a number from 0.1 to 3600, got ${values.seconds}`);
  }
  const runtimes = chosen("runtime", values.runtime, RUNTIMES);
  for (const name of runtimes) checkRuntime(name);
  return { rounds, seconds, runtimes, workloads: chosen("workload", values.workload, WORKLOADS) };
}

function chosen(option, names, all) {
  for (const name of names) {
    if (!Object.hasOwn(all, name)) throw new UsageError(`--${option} takes one of ${Object.keys(all).join(", ")}, got ${name}`);
  }
  return [...new Set(names)];
}

/**
 * Fresh processes, since some runtimes differ by a fifth from one process start to the next: a single set of processes would
 * measure that, however long it ran. Interleaved, since what else the machine does changes too: the servers of a round run within
 * seconds of each other, and their ratio is what to look at.
 */
async function measureRuntime(runtime, setting) {
  const { ours, peers } = setting.workload;
  // Ours comes second, so that it has the first peer and, if there are two, the other one right beside it.
  const [[firstPeer, firstScript], ...otherPeers] = Object.entries(peers);
  const servers = new Map([[firstPeer, firstScript], ["ours", ours], ...otherPeers]);
  const rounds = [];
  const missing = [];
  for (let round = 0; round < setting.rounds; round++) {
    const figures = {};
    for (const [name, script] of servers) {
      try {
        figures[name] = await measure(runtime, script, setting);
      } catch (error) {
        if (!(error instanceof Unsupported)) throw error;
        servers.delete(name);
        missing.push({ name, why: error.message });
      }
    }
    // Without ours there is nothing to compare.
    if (!servers.has("ours")) return { rounds: [], missing: missing.filter(({ name }) => name === "ours") };
    rounds.push(figures);
  }
  return { rounds, missing };
}

/** The command that repeats a page's figures. */
function repeatCommand(name, { rounds, seconds, runtimes }) {
  const some = runtimes.length === Object.keys(RUNTIMES).length
    ? ""
    : runtimes.map((runtime) => ` --runtime ${runtime}`).join("");
  return `node bench/run.mjs --workload ${name} --rounds ${rounds} --seconds ${seconds}${some}`;
}

async function main() {
  const options = readOptions();
  const cores = chooseCores();
  const titles = new Map(options.runtimes.map((runtime) => [runtime, runtimeTitle(runtime)]));
  for (const name of options.workloads) {
    const workload = WORKLOADS[name];
    const setting = { ...options, workload, cores, program: compileLoad(workload.load) };
    const results = [];
    for (const [runtime, title] of titles) {
      console.error(`measuring ${workload.title} on ${title}`);
      results.push({ title, ...await measureRuntime(runtime, setting) });
    }
    const text = report(workload, results, { ...setting, command: repeatCommand(name, options) });
    mkdirSync(join(ROOT, "bench/results"), { recursive: true });
    writeFileSync(join(ROOT, `bench/results/${name}.md`), text);
    console.log(text);
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? `bench: ${error.message}` : error);
  process.exit(1);
}

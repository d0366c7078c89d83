/**
 * Measures this package beside the runtimes' own APIs and its peers:
 *
 *     node bench/run.mjs [--full] [--rounds N] [--seconds N] [--runtime deno|bun|node|node22]... [--workload NAME]... [--peer NAME]...
 *
 * Without options, in less than two minutes, what stands for the rest, beside the runtimes' own APIs and the machine's limit; with
 * `--workload`, the first case of that one, beside all of its peers or, with `--peer`, those; with `--full`, every case. Writes a
 * Markdown page and the figures of each workload to bench/results/, and of all figures that are there a plot. Plain JavaScript,
 * since it has to run where nothing but a Node is there; what it starts comes out of node_modules/ and, if they are there, from the
 * system's packages.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chooseCores, loadedBy, measure, measureStart } from "./measure.mjs";
import { plotResults } from "./plot.mjs";
import { report, summarize } from "./report.mjs";
import { checkRuntime, isForeign, ROOT, RUNTIMES, runtimeTitle, Unsupported, UsageError } from "./servers.mjs";
import { PEERS, SHORT, WORKLOADS } from "./workloads.mjs";

const RESULTS = join(ROOT, "bench/results");

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        full: { type: "boolean", default: false },
        rounds: { type: "string" },
        seconds: { type: "string" },
        runtime: { type: "string", multiple: true },
        workload: { type: "string", multiple: true },
        peer: { type: "string", multiple: true },
      },
    }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  const short = !values.full && values.workload === undefined;
  const rounds = Number(values.rounds ?? (short ? 3 : 7));
  const seconds = Number(values.seconds ?? (short ? 0.5 : 1));
  if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError(`--rounds takes a positive integer, got ${values.rounds}`);
  // The processor time comes in ticks of 10 ms: of less than a tenth of a second nothing would be left.
  if (!(seconds >= 0.1 && seconds <= 3600)) {
    throw new UsageError(`--seconds takes a number from 0.1 to 3600, got ${values.seconds}`);
  }
  const runtimes = chosen("runtime", values.runtime ?? (short ? SHORT.runtimes : Object.keys(RUNTIMES)), RUNTIMES);
  for (const name of runtimes) checkRuntime(name);
  const workloads = chosen("workload", values.workload ?? (short ? SHORT.workloads : Object.keys(WORKLOADS)), WORKLOADS);
  const peers = values.peer ?? (short ? SHORT.peers : undefined);
  if (peers !== undefined) chosen("peer", peers, PEERS);
  return { full: values.full, rounds, seconds, runtimes, workloads, peers };
}

function chosen(option, names, all) {
  for (const name of names) {
    if (!Object.hasOwn(all, name)) throw new UsageError(`--${option} takes one of ${Object.keys(all).join(", ")}, got ${name}`);
  }
  return [...new Set(names)];
}

/** The servers of a workload in the order in which they run: ours right after the runtime's own, those of no runtime once a round. */
function serversOf({ ours, peers }, { peers: wanted, runtimes }) {
  const { raw, ...others } = Object.fromEntries(
    Object.entries(peers).filter(([name]) => wanted?.includes(name) ?? true),
  );
  const servers = Object.entries({ ...(raw === undefined ? {} : { raw }), ours, ...others });
  const foreign = servers.filter(([, script]) => isForeign(script));
  const native = servers.filter(([, script]) => !isForeign(script));
  return [
    ...foreign.map(([name, script]) => ({ name, script, runtime: null })),
    ...runtimes.flatMap((runtime) => native.map(([name, script]) => ({ name, script, runtime }))),
  ];
}

/**
 * Fresh processes, since some runtimes differ by a fifth from one process start to the next: a single set of processes would
 * measure that, however long it ran. Interleaved, since what else the machine does changes too: the servers of a round run shortly
 * after each other, and their ratio is what to look at.
 */
async function measureCase(name, load, setting) {
  const { workload } = setting;
  const servers = serversOf(workload, setting).map((server) => ({ ...server, case: name, rounds: [] }));
  // Starting takes no seconds, and differs more from one time to the next than anything else.
  const rounds = workload.kind === "import" ? Math.max(15, setting.rounds) : setting.rounds;
  for (let round = 0; round < rounds; round++) {
    for (const server of servers) {
      if (server.missing !== undefined) continue;
      try {
        server.rounds.push(
          workload.kind === "import"
            ? await measureStart(server.runtime, server.script)
            : await measure(server.runtime, server.script, load, setting),
        );
      } catch (error) {
        if (!(error instanceof Unsupported)) throw error;
        server.missing = error.message;
      }
    }
  }
  return servers;
}

/** The command that repeats a page's figures. */
function repeatCommand(name, { full, rounds, seconds, runtimes, peers = [] }) {
  const some = runtimes.length === Object.keys(RUNTIMES).length
    ? ""
    : runtimes.map((runtime) => ` --runtime ${runtime}`).join("");
  const beside = peers.map((peer) => ` --peer ${JSON.stringify(peer)}`).join("");
  return `node bench/run.mjs --workload ${name}${full ? " --full" : ""} --rounds ${rounds} --seconds ${seconds}${some}${beside}`;
}

async function main() {
  const options = readOptions();
  const cores = chooseCores();
  const titles = Object.fromEntries(options.runtimes.map((runtime) => [runtime, runtimeTitle(runtime)]));
  mkdirSync(RESULTS, { recursive: true });
  for (const name of options.workloads) {
    const workload = WORKLOADS[name];
    const setting = { ...options, workload, cores, titles, command: repeatCommand(name, options) };
    const servers = [];
    for (const [caseName, load] of Object.entries(workload.cases).slice(0, options.full ? Infinity : 1)) {
      console.error(`measuring ${[workload.title, caseName].filter((text) => text !== "").join(": ")}`);
      servers.push(...await measureCase(caseName, load, setting));
    }
    const loaded = workload.kind === "import"
      ? await Promise.all(options.runtimes.map(async (runtime) => [titles[runtime], await loadedBy(runtime)]))
      : [];
    const text = report(workload, servers, { ...setting, loaded });
    writeFileSync(join(RESULTS, `${name}.md`), text);
    writeFileSync(join(RESULTS, `${name}.json`), JSON.stringify(summarize(workload, servers, setting), null, 2) + "\n");
    console.log(text);
  }
  plotResults(RESULTS);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError || error instanceof Unsupported ? `bench: ${error.message}` : error);
  process.exit(1);
}

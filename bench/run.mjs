/**
 * Measures echo on this package against echo on the runtime's own API, on every runtime:
 *
 *     node bench/run.mjs [--rounds 7] [--seconds 1] [--runtime deno|bun|node|node22]...
 *
 * Prints a Markdown table and writes it to bench/results/echo.md. Plain JavaScript, since it has to run where nothing but a
 * Node is there; what it starts comes out of node_modules/.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir, type } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RUNTIMES = {
  deno: { title: "Deno", command: ["node_modules/.bin/deno", "run", "-A"] },
  bun: { title: "Bun", command: ["node_modules/.bin/bun"] },
  node: { title: "Node", command: ["node_modules/node/bin/node"] },
  node22: { title: "Node", command: ["node_modules/node22/bin/node"] },
};
const CONNECTIONS = 64;
const BYTES = 64;
const DEPTH = 1;
const WARM_UP_SECONDS = 0.7;
// Only for a server that neither listens nor ends; far above what a start takes on a busy machine.
const START_LIMIT_MS = 60_000;

/** What the user can mend: shown without a stack. */
class UsageError extends Error {}

const children = new Set();
let temporary;
// On "exit" and not in a finally, since it also has to happen when a signal or an uncaught error ends the run.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  if (temporary !== undefined) rmSync(temporary, { recursive: true, force: true });
});
for (const [signal, number] of [["SIGHUP", 1], ["SIGINT", 2], ["SIGTERM", 15]]) {
  process.on(signal, () => process.exit(128 + number));
}

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        rounds: { type: "string", default: "7" },
        seconds: { type: "string", default: "1" },
        runtime: { type: "string", multiple: true, default: Object.keys(RUNTIMES) },
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
  const names = [...new Set(values.runtime)];
  for (const name of names) {
    if (!Object.hasOwn(RUNTIMES, name)) {
      throw new UsageError(`--runtime takes one of ${Object.keys(RUNTIMES).join(", ")}, got ${name}`);
    }
    // Not left out silently: a table without a runtime would read as if it were complete.
    const [path] = RUNTIMES[name].command;
    if (!existsSync(join(ROOT, path))) throw new UsageError(`${path} is missing: run \`npm install\`, or choose with --runtime`);
  }
  return { rounds, seconds, names };
}

function compileLoad() {
  temporary = mkdtempSync(join(tmpdir(), "bench-"));
  const program = join(temporary, "load");
  const cc = spawnSync("cc", ["-O2", "-o", program, join(ROOT, "bench/load.c")], { encoding: "utf8" });
  const hint = "install a C compiler: `apt-get install gcc libc6-dev`";
  if (cc.error !== undefined) throw new UsageError(`the load generator needs a C compiler, cc: ${cc.error.message}; ${hint}`);
  if (cc.status !== 0) {
    throw new UsageError(`bench/load.c (Linux only) doesn't compile:\n${cc.stderr}If headers are missing, ${hint}`);
  }
  return program;
}

/** The numbers in a list of processors as Linux writes it, `0-3,8`. */
function parseCpuList(text) {
  return text.trim().split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** A core for the server and another for the generator, or undefined where they can't be pinned. */
function chooseCores() {
  if (spawnSync("taskset", ["--version"]).error !== undefined) return undefined;
  // In a container the first cores of the machine may be someone else's.
  const allowed = parseCpuList(/^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  if (allowed.length < 2) return undefined;
  const server = allowed[0];
  const siblingsFile = `/sys/devices/system/cpu/cpu${server}/topology/thread_siblings_list`;
  const siblings = existsSync(siblingsFile) ? parseCpuList(readFileSync(siblingsFile, "utf8")) : [server];
  // Two threads of one core slow each other down; they are only taken when there is nothing else.
  return { server, load: allowed.find((cpu) => !siblings.includes(cpu)) ?? allowed[1] };
}

/** Starts a command, pinned when there is a core; what it prints is collected in `stdout` and `stderr`. */
function start(command, core) {
  // taskset replaces itself with the program, so the process id is the program's.
  const [file, ...args] = core === undefined ? command : ["taskset", "-c", String(core), ...command];
  const child = spawn(file, args, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  const started = { child, stdout: "", stderr: "", onOutput() {} };
  children.add(child);
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8").on("data", (text) => {
      started[name] += text;
      started.onOutput();
    });
  }
  started.ended = new Promise((resolve) => {
    child.on("error", (error) => {
      started.stderr += error.message;
      children.delete(child);
      resolve("could not be started");
    });
    child.on("close", (code, signal) => {
      children.delete(child);
      resolve(`ended with ${signal ?? code}`);
    });
  });
  return started;
}

async function listeningPort(server) {
  let timer;
  const listening = new Promise((resolve) => {
    server.onOutput = () => {
      const match = /^listening tcp:\/\/127\.0\.0\.1:(\d+)\r?\n/m.exec(server.stdout);
      if (match !== null) resolve({ port: match[1] });
    };
  });
  const late = new Promise((resolve) => timer = setTimeout(resolve, START_LIMIT_MS, "doesn't listen"));
  const outcome = await Promise.race([listening, server.ended, late]);
  clearTimeout(timer);
  if (typeof outcome === "string") throw new Error(`the server ${outcome}`);
  return outcome.port;
}

async function runLoad(program, core, port, seconds) {
  const load = start([program, port, CONNECTIONS, BYTES, DEPTH, seconds].map(String), core);
  const outcome = await load.ended;
  if (outcome !== "ended with 0") throw new Error(`the load generator ${outcome}: ${load.stderr.trim()}`);
  return JSON.parse(load.stdout);
}

/** The processor time a process has used with all its threads, in microseconds; undefined without /proc. */
function cpuTime(pid) {
  const file = `/proc/${pid}/stat`;
  if (!existsSync(file)) return undefined;
  // After the name, which is in parentheses and may contain anything; utime and stime are fields 14 and 15 of all.
  const fields = readFileSync(file, "utf8").replace(/^.*\)\s/s, "").split(" ");
  // Linux shows them in hundredths of a second on every architecture that the runtimes have.
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

/** Measures one server in a process of its own. */
async function measure(command, name, setting) {
  const { program, cores, seconds } = setting;
  const server = start([join(ROOT, command[0]), ...command.slice(1), `bench/servers/${name}.ts`], cores?.server);
  try {
    const port = await listeningPort(server);
    await runLoad(program, cores?.load, port, WARM_UP_SECONDS);
    const before = cpuTime(server.child.pid);
    const result = await runLoad(program, cores?.load, port, seconds);
    const after = cpuTime(server.child.pid);
    const known = before !== undefined && after !== undefined;
    // Accepting the connections is in it, for both servers alike.
    return { ...result, cpu: known ? (after - before) / (result.messagesPerSecond * seconds) : undefined };
  } catch (error) {
    throw new Error(`${command.join(" ")} bench/servers/${name}.ts: ${error.message}\n${server.stderr}`);
  } finally {
    server.child.kill("SIGKILL");
    // Or it would still be on the core when the next one starts.
    await server.ended;
  }
}

/**
 * Fresh processes, since some runtimes differ by a fifth from one process start to the next: a single pair of processes would
 * measure that, however long it ran. Interleaved, since what else the machine does changes too: the two of a pair run within
 * seconds of each other, and their ratio is what to look at.
 */
async function measureRuntime(command, setting) {
  const pairs = [];
  for (let round = 0; round < setting.rounds; round++) {
    const raw = await measure(command, "raw", setting);
    const ours = await measure(command, "ours", setting);
    pairs.push({ raw, ours });
  }
  return pairs;
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function version(command) {
  const shown = spawnSync(join(ROOT, command[0]), ["--version"], { encoding: "utf8" }).stdout ?? "";
  return /\d+\.\d+\.\d+\S*/.exec(shown)?.[0] ?? "of unknown version";
}

function tableRow({ title, pairs }) {
  const of = (name, field) => median(pairs.map((pair) => pair[name][field]));
  const speeds = pairs.map(({ raw, ours }) => ours.messagesPerSecond / raw.messagesPerSecond);
  const row = {
    "runtime": title,
    "raw msgs/s": of("raw", "messagesPerSecond").toFixed(0),
    "ours msgs/s": of("ours", "messagesPerSecond").toFixed(0),
    "ours / raw": median(speeds).toFixed(2),
    "min..max": `${Math.min(...speeds).toFixed(2)}..${Math.max(...speeds).toFixed(2)}`,
  };
  if (pairs.every(({ raw, ours }) => raw.cpu !== undefined && ours.cpu !== undefined)) {
    row["raw CPU µs/msg"] = of("raw", "cpu").toFixed(2);
    row["ours CPU µs/msg"] = of("ours", "cpu").toFixed(2);
    row["CPU ours / raw"] = median(pairs.map(({ raw, ours }) => ours.cpu / raw.cpu)).toFixed(2);
  }
  row["raw p99 µs"] = of("raw", "p99").toFixed(0);
  row["ours p99 µs"] = of("ours", "p99").toFixed(0);
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

function report(results, { rounds, seconds, names, cores }) {
  const model = cpus()[0]?.model.trim() || "unknown processor";
  const pinned = cores === undefined
    ? "Server and generator are not pinned and may have shared a core."
    : "Server and generator are pinned to a core each.";
  const everything = names.length === Object.keys(RUNTIMES).length;
  const chosen = everything ? "" : names.map((name) => ` --runtime ${name}`).join("");
  // Short paragraphs, which `deno fmt` has no reason to wrap.
  return `# Echo

Echo over TCP on the loopback: ${CONNECTIONS} connections × ${BYTES} bytes, depth ${DEPTH}. ${pinned}

\`raw\` is the runtime's own API, \`ours\` is this package, both as in \`bench/servers/\`.

${markdownTable(results.map(tableRow))}

Medians of ${rounds} rounds of ${seconds} s, each with fresh processes.

The ratios are taken in each round; \`min..max\` is the spread of \`ours / raw\`.

- Machine: ${model}, ${cpus().length} cores, ${type()} ${release()}
- Runtimes: ${results.map(({ title }) => title).join(", ")}
- Date: ${new Date().toISOString().slice(0, 10)}
- Command: \`node bench/run.mjs --rounds ${rounds} --seconds ${seconds}${chosen}\`
`;
}

async function main() {
  const options = readOptions();
  const setting = { ...options, program: compileLoad(), cores: chooseCores() };
  const results = [];
  for (const name of setting.names) {
    const { title, command } = RUNTIMES[name];
    const full = `${title} ${version(command)}`;
    console.error(`measuring ${full}`);
    results.push({ title: full, pairs: await measureRuntime(command, setting) });
  }
  const text = report(results, setting);
  mkdirSync(join(ROOT, "bench/results"), { recursive: true });
  writeFileSync(join(ROOT, "bench/results/echo.md"), text);
  console.log(text);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? `bench: ${error.message}` : error);
  process.exit(1);
}

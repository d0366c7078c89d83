/** Measures one server under one load, each in a process of its own. Linux only. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT, serverCommand, UsageError } from "./workloads.mjs";

const WARM_UP_SECONDS = 0.7;
// Only for a server that neither listens nor ends; far above what a start takes on a busy machine.
const START_LIMIT_MS = 60_000;

/** A server that its runtime can't run; the message says why. */
export class Unsupported extends Error {}

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

/** A directory that is removed at the end. */
function temporaryDirectory() {
  return temporary ??= mkdtempSync(join(tmpdir(), "bench-"));
}

/** Compiles a load generator in bench/ and gives the program's path. */
export function compileLoad(source) {
  const program = join(temporaryDirectory(), source.replace(/\.c$/, ""));
  const cc = spawnSync("cc", ["-O2", "-o", program, join(ROOT, "bench", source)], { encoding: "utf8" });
  const hint = "install a C compiler: `apt-get install gcc libc6-dev`";
  if (cc.error !== undefined) throw new UsageError(`the load generator needs a C compiler, cc: ${cc.error.message}; ${hint}`);
  if (cc.status !== 0) {
    throw new UsageError(`bench/${source} (Linux only) doesn't compile:\n${cc.stderr}If headers are missing, ${hint}`);
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
export function chooseCores() {
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

async function listeningAddress(server) {
  let timer;
  const listening = new Promise((resolve) => {
    server.onOutput = () => {
      const match = /^(listening|unsupported) (.*)\r?\n/m.exec(server.stdout);
      if (match !== null) resolve({ [match[1]]: match[2] });
    };
  });
  const late = new Promise((resolve) => timer = setTimeout(resolve, START_LIMIT_MS, "doesn't listen"));
  const outcome = await Promise.race([listening, server.ended, late]);
  clearTimeout(timer);
  if (typeof outcome === "string") throw new Error(`the server ${outcome}`);
  if (outcome.unsupported !== undefined) throw new Unsupported(outcome.unsupported);
  return outcome.listening;
}

async function runLoad(command, core) {
  const load = start(command.map(String), core);
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

let paths = 0;
/** A path for a socket that nobody has used. */
function unusedPath() {
  return join(temporaryDirectory(), `${++paths}.sock`);
}

/** Measures one server in a process of its own. Throws {@linkcode Unsupported} when the server says that it can't be had. */
export async function measure(runtime, script, { workload, program, cores: pinned, seconds }) {
  const cores = workload.spread ? undefined : pinned;
  const command = serverCommand(runtime, script);
  if (command === undefined) throw new Unsupported("there is no python3 on this machine");
  if (workload.address !== undefined) command.push(workload.address(unusedPath()));
  const server = start(command, cores?.server);
  try {
    const address = await listeningAddress(server);
    await runLoad([program, ...workload.loadArgs(address, WARM_UP_SECONDS)], cores?.load);
    const before = cpuTime(server.child.pid);
    const result = await runLoad([program, ...workload.loadArgs(address, seconds)], cores?.load);
    const after = cpuTime(server.child.pid);
    const known = before !== undefined && after !== undefined;
    // Accepting the connections is in it, for all servers alike.
    return { ...result, cpu: known ? (after - before) / (result.messagesPerSecond * seconds) : undefined };
  } catch (error) {
    if (error instanceof Unsupported) throw error;
    throw new Error(`${command.join(" ")}: ${error.message}\n${server.stderr}`);
  } finally {
    server.child.kill("SIGKILL");
    // Or it would still be on the core when the next one starts.
    await server.ended;
  }
}

/** Measures one server under one load, each in a process of its own. Linux only. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { anew, echo, idle } from "./loads.mjs";
import { asJavaScript, ROOT, serverCommand, temporaryDirectory, Unsupported } from "./servers.mjs";

// Only for a server that neither listens nor ends; far above what a start takes on a busy machine.
const START_LIMIT_MS = 60_000;
// What a server may still give back after the last connection of the churn.
const IDLE_MS = 10_000;
/** Seconds that a server is under load before it is measured. */
const WARM_UP = 1.5;

const children = new Set();
// On "exit" and not in a finally, since it also has to happen when a signal or an uncaught error ends the run.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});
for (const [signal, number] of [["SIGHUP", 1], ["SIGINT", 2], ["SIGTERM", 15]]) {
  process.on(signal, () => process.exit(128 + number));
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
  // sh and taskset replace themselves with the program, so the process id is the program's.
  const pinned = core === undefined ? command : ["taskset", "-c", core, ...command];
  // As many descriptors as it may have, which not every runtime asks for by itself.
  const [file, ...args] = ["sh", "-c", 'ulimit -n "$(ulimit -Hn)"; exec "$@"', "sh", ...pinned].map(String);
  const child = spawn(file, args, { cwd: ROOT, stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.on("error", () => {});
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

async function listeningAddress(server, ready, address) {
  let timer;
  const listening = new Promise((resolve) => {
    server.onOutput = () => {
      const unsupported = /^unsupported (.*)\n/m.exec(server.stdout)?.[1];
      const match = ready.exec(server.stdout);
      if (unsupported !== undefined) resolve({ unsupported });
      else if (match !== null) resolve({ listening: match[1] ?? address });
    };
  });
  const late = new Promise((resolve) => timer = setTimeout(resolve, START_LIMIT_MS, "doesn't listen"));
  const outcome = await Promise.race([listening, server.ended, late]);
  clearTimeout(timer);
  if (typeof outcome === "string") throw new Error(`the server ${outcome}`);
  if (outcome.unsupported !== undefined) throw new Unsupported(outcome.unsupported);
  return outcome.listening;
}

async function runLoad({ command, parse }, core) {
  const load = start(command, core);
  load.child.stdin.end();
  const outcome = await load.ended;
  if (outcome !== "ended with 0") throw new Error(`${command.join(" ")} ${outcome}: ${load.stderr.trim()}`);
  return parse(load.stdout);
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

/** The resident memory of a process, in bytes. */
function residentMemory(pid) {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) * 1024;
}

let paths = 0;
/** A path for a socket that nobody has used. */
function unusedPath() {
  return join(temporaryDirectory(), `${++paths}.sock`);
}

const KINDS = {
  /** Figures of the load, and what it cost the server. */
  async load({ pid, address, cores }, load, { seconds }) {
    // What a server that runs for days is like: compiled.
    await runLoad(load(address, Math.min(WARM_UP, 2 * seconds)), cores?.load);
    const before = cpuTime(pid);
    const result = await runLoad(load(address, seconds), cores?.load);
    const used = cpuTime(pid) - before;
    // Accepting the connections is in it, for all servers alike.
    return { ...result, cpu: used / result.messages, rss: residentMemory(pid) / 1e6 };
  },

  /** What connections cost that say nothing. */
  async idle({ pid, address, cores }, connections) {
    // What is compiled, and allocated once, is not theirs.
    await runLoad(idle(100)(address), cores?.load);
    const before = residentMemory(pid);
    const load = start(idle(connections)(address).command, cores?.load);
    const opened = new Promise((resolve) => load.onOutput = () => resolve());
    const outcome = await Promise.race([opened, load.ended]);
    if (outcome !== undefined) throw new Error(`the idle connections ${outcome}: ${load.stderr.trim()}`);
    const made = JSON.parse(load.stdout).connections;
    const bytes = (residentMemory(pid) - before) / made;
    load.child.stdin.end();
    await load.ended;
    return { made, bytes };
  },

  /** How long the messages of one client take while others attack, beside how long they take without. */
  async attack({ address, cores }, attack, { seconds }) {
    const honest = () => runLoad(echo(64, 1, 1)(address, seconds), cores?.load);
    await honest();
    const { p99: quiet } = await honest();
    // It has what the client leaves of their core: how long the client waits is to be the server's affair, and not the scheduler's.
    const duration = 3 * seconds;
    const { command, parse } = attack(address, duration);
    const attacking = start(["chrt", "--idle", 0, ...command], cores?.load);
    // Some say when all their connections are there.
    await Promise.race([new Promise((resolve) => attacking.onOutput = resolve), attacking.ended, sleep(seconds * 1000)]);
    const { p99 } = await honest();
    attacking.child.stdin.end();
    const outcome = await attacking.ended;
    if (outcome !== "ended with 0") throw new Error(`the attack ${outcome}: ${attacking.stderr.trim()}`);
    const { answered, refused } = parse(attacking.stdout);
    const connections = refused === undefined ? {} : { answered: answered / duration, refused: refused / duration };
    return { ...connections, quiet, p99, slower: p99 / quiet };
  },

  /** Whether memory grows with the connections that there were. */
  async churn({ pid, address, cores }, connections) {
    const run = async (count) => {
      await runLoad(anew(16, count)(address, 86_400), cores?.load);
      return residentMemory(pid) / 1e6;
    };
    const first = await run(connections / 10);
    const last = await run(connections / 10 * 9);
    await sleep(IDLE_MS);
    const idle = residentMemory(pid) / 1e6;
    return { first, last, idle, growth: idle / first };
  },
};

/**
 * Measures one server in a process of its own, with one case of a workload.
 *
 * @throws {Unsupported} When the server can't be had, or says so.
 */
export async function measure(runtime, script, load, { workload, cores: pinned, seconds }) {
  const cores = workload.spread ? undefined : pinned;
  const { command, ready, address: knownAddress } = await serverCommand(runtime, script);
  if (workload.address !== undefined && knownAddress === undefined) command.push(...workload.address(unusedPath()).split(" "));
  const server = start(command, cores?.server);
  try {
    const address = await listeningAddress(server, ready, knownAddress);
    const target = { pid: server.child.pid, address, cores };
    return await KINDS[workload.kind ?? "load"](target, load, { seconds: seconds * (workload.seconds ?? 1) });
  } catch (error) {
    if (error instanceof Unsupported) throw error;
    throw new Error(`${command.join(" ")}: ${error.message}\n${server.stderr}`);
  } finally {
    server.child.kill("SIGKILL");
    // Or it would still be on the core when the next one starts.
    await server.ended;
  }
}

/** Milliseconds from the start of a program to its end. */
export async function measureStart(runtime, script) {
  const { command } = await serverCommand(runtime, runtime === "deno" ? script : asJavaScript(script));
  const started = process.hrtime.bigint();
  const { status, stderr } = spawnSync(command[0], command.slice(1), { cwd: ROOT, encoding: "utf8" });
  const ms = Number(process.hrtime.bigint() - started) / 1e6;
  if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${stderr}`);
  return { ms };
}

/** What importing the package loads, as `servers/loaded.ts` tells it. */
export async function loadedBy(runtime) {
  const { command } = await serverCommand(runtime, "loaded.ts");
  const { stdout } = spawnSync(command[0], command.slice(1), { cwd: ROOT, encoding: "utf8" });
  return JSON.parse(stdout);
}

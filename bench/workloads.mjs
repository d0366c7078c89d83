/** What is measured: which servers, on which runtimes, under which load. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** What the user can mend: shown without a stack. */
export class UsageError extends Error {}

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

export const RUNTIMES = {
  deno: { title: "Deno", command: ["node_modules/.bin/deno", "run", "-A"] },
  bun: { title: "Bun", command: ["node_modules/.bin/bun"] },
  node: { title: "Node", command: ["node_modules/node/bin/node"] },
  node22: { title: "Node", command: ["node_modules/node22/bin/node"] },
};

const BYTES = 64;
const CONNECTIONS = 64;
const DEPTH = 1;
const WINDOW = 32;

const datagrams = {
  load: "datagram_load.c",
  loadArgs: (address, seconds) => [address.replace(/^udp:.*:|^unixgram:/, ""), BYTES, WINDOW, seconds],
};

const loadArgs = (address, seconds) => [address.replace(/^.*:/, ""), CONNECTIONS, BYTES, DEPTH, seconds];

/**
 * `peers` are what ours is compared with, each by the script that serves it; a Python script needs no runtime of ours.
 * `address` is what a server is given to serve on, where it doesn't know by itself. `spread` lets a server use all cores.
 */
export const WORKLOADS = {
  tcp: {
    title: "TCP echo",
    what: `Echo over TCP on the loopback: ${CONNECTIONS} connections × ${BYTES} bytes, depth ${DEPTH}.`,
    load: "load.c",
    loadArgs,
    ours: "ours.ts",
    peers: { raw: "raw.ts" },
  },
  threads: {
    title: "Echo through threads",
    what: `Echo over TCP through worker threads, to which the bytes are relayed: ${CONNECTIONS} connections × ${BYTES} bytes.`,
    load: "load.c",
    loadArgs,
    spread: true,
    ours: "ours_workers.ts threading echo",
    peers: { Async: "ours_workers.ts async echo" },
  },
  computing: {
    title: "A handler that computes",
    what: "A handler that computes for about 200 ms, always as much; four clients at once.",
    load: "load.c",
    loadArgs: (address, seconds) => [address.replace(/^.*:/, ""), 4, BYTES, 1, seconds * 4],
    spread: true,
    ours: "ours_workers.ts threading compute",
    peers: { Async: "ours_workers.ts async compute", Forking: "ours_workers.ts forking compute" },
  },
  processes: {
    title: "Connections through processes",
    what: "Connections made, used for one echo and closed, 16 at once, through child processes that are used again.",
    load: "load.c",
    loadArgs: (address, seconds) => [address.replace(/^.*:/, ""), 16, BYTES, 1, seconds, "anew"],
    spread: true,
    ours: "ours_workers.ts forking once",
    peers: { Python: "python_forking.py" },
  },
  udp: {
    ...datagrams,
    title: "UDP echo",
    what: `Echo over UDP on the loopback: ${BYTES} bytes, a window of ${WINDOW} datagrams.`,
    address: () => "udp://127.0.0.1:0",
    ours: "ours_datagram.ts",
    peers: { raw: "raw_udp.ts", Python: "python_datagram.py" },
  },
  unixgram: {
    ...datagrams,
    title: "Unix datagram echo",
    what: `Echo over Unix datagrams: ${BYTES} bytes, a window of ${WINDOW} datagrams.`,
    address: (unusedPath) => `unixgram:${unusedPath}`,
    ours: "ours_datagram.ts",
    peers: { Python: "python_datagram.py", raw: "raw_unix_datagram.ts" },
  },
};

/** What each peer is, for the reader of the results. */
export const PEERS = {
  raw: "`raw` is the runtime's own API.",
  Async: "`Async` is this package's own server on the event loop.",
  Forking: "`Forking` is this package's own server with child processes.",
  Python: "`Python` is its `socketserver`.",
};

/** How to start a server's script, a file and its arguments, or undefined when there is nothing here to run it. */
export function serverCommand(runtime, script) {
  const [name, ...scriptArgs] = script.split(" ");
  const path = `bench/servers/${name}`;
  if (name.endsWith(".py")) return pythonVersion() === undefined ? undefined : ["python3", path, ...scriptArgs];
  const [file, ...args] = RUNTIMES[runtime].command;
  return [join(ROOT, file), ...args, path, ...scriptArgs];
}

/** Fails for a runtime that isn't installed. Not left out silently: a table without one would read as if it were complete. */
export function checkRuntime(name) {
  const [path] = RUNTIMES[name].command;
  if (!existsSync(join(ROOT, path))) throw new UsageError(`${path} is missing: run \`npm install\`, or choose with --runtime`);
}

/** A runtime as it is shown, with its version. */
export function runtimeTitle(name) {
  const { title, command } = RUNTIMES[name];
  return `${title} ${shownVersion(join(ROOT, command[0])) ?? "of unknown version"}`;
}

let python;
/** The version of python3, or undefined when there is none. */
export function pythonVersion() {
  python ??= { version: shownVersion("python3") };
  return python.version;
}

function shownVersion(file) {
  return /\d+\.\d+\.\d+\S*/.exec(spawnSync(file, ["--version"], { encoding: "utf8" }).stdout ?? "")?.[0];
}

/** The example servers as processes on every installed runtime, for clients on the runtime that runs the test. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { createInterface } from "node:readline";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const quietNode = "--disable-warning=ExperimentalWarning";

/** How each runtime runs a program, and whether it is this one; those that are not installed are left out, which the tests say. */
export const servers: { name: string; command: string[] | null; own: boolean }[] = [
  // Whoever has only Deno runs the tests with that one.
  { name: "deno", command: ["Deno" in globalThis ? process.execPath : "node_modules/.bin/deno", "run", "-A"] },
  { name: "bun", command: ["node_modules/.bin/bun"] },
  { name: "node", command: ["node_modules/node/bin/node", quietNode] },
  { name: "node22", command: ["node_modules/node22/bin/node", quietNode] },
].map(({ name, command }) => {
  const path = resolve(root, command[0]!);
  if (!existsSync(path)) return { name, command: null, own: false };
  return { name, command, own: realpathSync(path) === realpathSync(process.execPath) };
});

/** A running server. */
export interface Running {
  readonly port: number;
  readonly pid: number;
  /** Sends it a signal. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves with its exit status, or the signal that ended it. */
  readonly exited: Promise<number | string | null>;
  /** What it wrote to stderr so far. */
  readonly stderr: string;
}

/** Starts an example and waits for its first line. */
export async function start(command: string[], example: string, args: string[]): Promise<Running> {
  const child = spawn(command[0]!, [...command.slice(1), `examples/${example}`, ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = exit(child);
  let stderr = "";
  child.stderr.on("data", (chunk) => stderr += chunk);
  const first = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).once("line", resolve);
    void exited.then((status) => reject(new Error(`${command[0]} ended with ${status}: ${stderr}`)));
  });
  const port = /^listening tcp:\/\/127\.0\.0\.1:(\d+)$/.exec(first)?.[1];
  if (port === undefined) throw new Error(`the first line is ${JSON.stringify(first)}`);
  return {
    port: Number(port),
    pid: child.pid!,
    // Not child.kill: Deno's then reports the signal as the cause of the exit whatever the status is.
    kill(signal) {
      if (child.exitCode === null && child.signalCode === null) process.kill(child.pid!, signal);
    },
    exited,
    get stderr() {
      return stderr;
    },
  };
}

function exit(child: ChildProcess): Promise<number | string | null> {
  return new Promise((resolve) => child.once("close", (status, signal) => resolve(status ?? signal)));
}

/** Children that run another program than the one that was meant, and programs that can't have children: nothing starts itself for ever. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { getRuntime } from "@sockets/server";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { spawnProcess } from "../../runtimes/shared/processes.ts";
import { commandFor } from "./children.ts";

const { name } = getRuntime();
const start = {
  entry: "handler",
  module: new URL("./handlers/faults.ts", import.meta.url).href,
  serverAddress: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
  data: null,
} as const;

/** Runs a program to its end. */
function run(command: string[], env: NodeJS.ProcessEnv = {}): Promise<{ status: number | null; output: string }> {
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
    timeout: 20_000,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text: string) => output += text);
  return new Promise((resolve) => child.once("close", (status) => resolve({ status, output })));
}

test(`${name}: a child that is another program is ended when it has said nothing in time`, async () => {
  const idle = "setInterval(() => {}, 1000)";
  const child = spawnProcess(
    { start, onFrame() {} },
    () => ({ args: "Deno" in globalThis ? ["eval", idle] : ["--eval", idle] }),
    200,
  );
  await assertRejects(() => child.ready, Error, "has not begun what it was started for within 0.2 s");
  assertMatch((await child.exited).message, /ended with SIGKILL/);
});

test(`${name}: a child that runs the program anew starts no children of its own, and ends`, async () => {
  const command = commandFor(new URL("./programs/worker_server.ts", import.meta.url));
  const { status, output } = await run([...command, "forking"], { SOCKETS_SERVER_CHILD: String(process.pid) });
  assertEquals(status, 1, output);
  assertMatch(output, /^process \d+ was started to handle requests, and runs another program instead: it ends\n$/);
});

test(`${name}: the mark of another process's child keeps nobody from starting children`, async () => {
  const command = commandFor(new URL("./programs/can_fork.ts", import.meta.url));
  const { status, output } = await run(command, { SOCKETS_SERVER_CHILD: "1" });
  assertEquals([status, output], [0, "a child was started\n"]);
});

/** The bundler of one of the runtimes, which makes one file of a program's modules. */
const bundler = fileURLToPath(new URL("../../node_modules/.bin/bun", import.meta.url));
const bundle = (out: string, ...options: string[]) =>
  execFileSync(bundler, [
    "build",
    fileURLToPath(new URL("./programs/can_fork.ts", import.meta.url)),
    `--outfile=${out}`,
    ...options,
  ], { stdio: "ignore" });

const REFUSED = /^UnsupportedError: child processes can't be had on \w+ here: in a compiled program/;

/** Makes one executable of a program on the running runtime; `null` with the reason when it can't be made here. */
const compile: ((folder: string) => string) | string = name === "bun"
  ? (folder) => {
    bundle(`${folder}/compiled`, "--compile");
    return `${folder}/compiled`;
  }
  : name === "node"
  ? process.allowedNodeEnvironmentFlags.has("--build-sea") || Number(process.versions.node.split(".")[0]) >= 26
    ? (folder) => {
      bundle(`${folder}/bundle.mjs`, "--target=node");
      const config = { main: `${folder}/bundle.mjs`, mainFormat: "module", output: `${folder}/compiled` };
      writeFileSync(`${folder}/sea.json`, JSON.stringify({ ...config, disableExperimentalSEAWarning: true }));
      execFileSync(process.execPath, [`--build-sea=${folder}/sea.json`], { stdio: "ignore" });
      return `${folder}/compiled`;
    }
    : "before Node 26, what makes an executable is a package of its own"
  : "deno compile has to fetch what it needs";

test(
  `${name}: a compiled program that forks is told that it can't, and starts nothing${
    typeof compile === "string" ? ` [skipped: ${compile}]` : ""
  }`,
  { skip: typeof compile === "string" },
  async () => {
    const folder = mkdtempSync(`${tmpdir()}/sockets-compiled-`);
    try {
      const { status, output } = await run([(compile as (folder: string) => string)(folder)]);
      assertEquals(status, 1, output);
      // More than once if it had started itself.
      assert(REFUSED.test(output) && output.split("\n").length === 2, output);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

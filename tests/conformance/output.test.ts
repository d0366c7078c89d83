/** A server goes on whatever becomes of those who read what it prints. */
import { assertEquals } from "@std/assert";
import { getRuntime, parseAddress, type Runtime } from "@sockets/server";
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { print } from "../../src/print.ts";
import { setRuntime } from "../../src/runtime.ts";
import { freshPath, openSocket } from "./adapters.ts";
import { commandFor } from "./children.ts";

const runtime = getRuntime();

/** Runs `programs/printing.ts` while `use` runs; `wrap` makes another command of its command. */
async function running(
  mode: string,
  use: (say: (line: string) => Promise<string>, child: ChildProcess) => Promise<void>,
  wrap: (command: string[]) => string[] = (command) => command,
): Promise<void> {
  const [binary, ...args] = wrap([...commandFor(new URL("./programs/printing.ts", import.meta.url)), mode]);
  const child = spawn(binary!, args, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  try {
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const address = parseAddress((await lines.next()).value!);
    await use(async (line) => {
      const client = await openSocket(address);
      await client.write(`${line}\n`);
      await client.end();
      return new TextDecoder().decode(await client.readAll()).trim();
    }, child);
  } finally {
    if (child.exitCode === null && child.signalCode === null) process.kill(child.pid!, "SIGKILL");
    await exited;
  }
}

for (const mode of ["async", "threading", "forking"]) {
  test(`${runtime.name} ${mode}: nobody reads stdout and stderr any more, and the server goes on and ends in order`, () =>
    running(mode, async (say, child) => {
      const exited = new Promise((resolve) => child.once("exit", (status, signal) => resolve(status ?? signal)));
      child.stdout!.destroy();
      child.stderr!.destroy();
      // The first write to a pipe without a reader may still seem to succeed.
      for (let i = 0; i < 3; i++) assertEquals(await say("throw 10"), "");
      for (const how of ["console.error", "console.log", "stderr", "stdout"]) {
        for (let i = 0; i < 3; i++) assertEquals(await say(how), how);
      }
      assertEquals(await say("hello"), "hello");
      process.kill(child.pid!, "SIGTERM");
      assertEquals(await exited, 0);
    }));

  test(`${runtime.name} ${mode}: a stderr that is full and that nobody reads doesn't hold the server up`, () =>
    running(
      mode,
      async (say) => {
        // The pipe takes 64 KiB.
        for (let i = 0; i < 12; i++) assertEquals(await say("throw 20000"), "");
        assertEquals(await say("hello"), "hello");
      },
      // Who opens a FIFO to read and write waits for nobody, and has a reader that never reads.
      (command) => ["sh", "-c", 'mkfifo "$0" && exec 4<>"$0" && rm "$0" && exec "$@" 2>&4', freshPath(), ...command],
    ));
}

test(`${runtime.name}: what nobody reads is kept up to a bound, and how much was dropped is said later`, async () => {
  const printed: string[] = [];
  const reader = Promise.withResolvers<void>();
  setRuntime({
    ...runtime,
    print(text) {
      printed.push(text);
      return reader.promise;
    },
  } as Runtime);
  try {
    const long = "x".repeat(100_000);
    for (let i = 0; i < 1000; i++) print(long);
    const kept = printed.length;
    assertEquals(kept, 11);
    reader.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    assertEquals(printed.slice(kept), [`${1000 - kept} messages were not printed, as nobody read standard error\n`]);
    print("again");
    assertEquals(printed.at(-1), "again\n");
  } finally {
    setRuntime(runtime);
  }
});

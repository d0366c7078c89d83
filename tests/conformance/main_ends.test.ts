/** When a program ends whose main part is over while a thread or a child still handles a request. */
import { assertEquals } from "@std/assert";
import { getRuntime, parseAddress } from "@sockets/server";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { freshPath, openSocket } from "./adapters.ts";
import { commandFor } from "./children.ts";

const { name } = getRuntime();

/** Runs the program until its main part has ended, while its worker does what `command` says; then `use`. It must end by itself. */
async function mainEnds(
  mode: string,
  transport: "tcp" | "unix",
  options: object,
  command: string,
  use: (client: Awaited<ReturnType<typeof openSocket>>) => Promise<void>,
): Promise<void> {
  const [binary, ...args] = commandFor(new URL("./programs/main_ends.ts", import.meta.url));
  const listen = transport === "tcp" ? "tcp://127.0.0.1:0" : `unix:${freshPath()}`;
  const child = spawn(binary!, [...args, mode, listen, JSON.stringify(options)], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.once("exit", (status, signal) => resolve(status ?? signal)));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  try {
    const client = await openSocket(parseAddress((await lines.next()).value!));
    await client.write(command);
    await client.read(1);
    assertEquals((await lines.next()).value, "main has ended");
    await use(client);
    assertEquals(await exited, 0);
    await client.end().catch(() => {});
  } finally {
    if (child.exitCode === null && child.signalCode === null) process.kill(child.pid!, "SIGKILL");
    await exited;
  }
}

for (const transport of ["tcp", "unix"] as const) {
  test(`${name} ${transport} threading: the program waits for its threads, as daemonThreads is false by default`, () =>
    mainEnds("threading", transport, {}, "hold", async (client) => {
      await client.write("go");
      assertEquals(new TextDecoder().decode(await client.readAll()), "over");
    }));

  for (const command of ["hold", "spin"]) {
    test(`${name} ${transport} threading: with daemonThreads it doesn't wait for one that handles "${command}"`, () =>
      mainEnds("threading", transport, { daemonThreads: true }, command, async (client) => {
        assertEquals((await client.readAll()).length, 0);
      }));
  }

  test(`${name} ${transport} forking: the program waits for its children`, () =>
    mainEnds("forking", transport, {}, "hold", async (client) => {
      await client.write("go");
      assertEquals(new TextDecoder().decode(await client.readAll()), "over");
    }));
}

/** A promise that a caller ignores ends no program, whatever happens to the connection: in programs of their own, which would end. */
import { assertEquals } from "@std/assert";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { adapters, freshPath, openSocket, tlsAdapters } from "./adapters.ts";
import { commandFor } from "./children.ts";
import { until } from "./serving.ts";
import { FEW, type Mode, serving, STREAM } from "./worker_serving.ts";

for (const { runtime, name } of [...adapters, ...tlsAdapters]) {
  test(`${runtime.name} ${name}: no promise that nobody awaits becomes an unhandled rejection`, async () => {
    const [binary, ...args] = commandFor(new URL("programs/ignored.ts", import.meta.url));
    const child = spawn(binary!, [...args, runtime.name, name], { stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    child.stdout.on("data", (chunk) => printed += chunk);
    const status = await new Promise((resolve) => child.once("close", resolve));
    assertEquals([status, JSON.parse(printed || '"it ended"')], [0, []]);
  });
}

for (const mode of ["threading", "forking"] as Mode[]) {
  for (const transport of ["tcp", "unix"] as const) {
    test(`${adapters[0]!.runtime.name} ${transport} ${mode}: a promise that a handler ignores doesn't end its worker`, () => {
      const address = transport === "tcp" ? "tcp://127.0.0.1:0" : `unix:${freshPath()}`;
      const module = new URL("handlers/ignoring.ts", import.meta.url);
      const few = mode === "threading" ? { maxThreads: 1 } : { ...FEW.forking, maxChildren: 1 };
      return serving(STREAM[mode][transport], address, module, few, async (server) => {
        const ids = new Set<string>();
        for (const how of ["write", "read", "closeWrite", "writable", "startTls", "reader"]) {
          const client = await openSocket(server.serverAddress);
          await client.write(`${how}\n`);
          ids.add((await client.read(1)).split("\n")[0]!);
          client.reset();
          await until(() => server.stats.active === 0);
        }
        assertEquals([ids.size, server.errors], [1, []]);
      });
    });
  }
}

/** Datagrams that are forged with a raw socket: the examples over UDP answer nobody and themselves never, and say nothing of it. */
import { assertEquals } from "@std/assert";
import { AsyncUDPServer, bind, type Datagram, type RequestHandlerClass, type SocketError } from "@sockets/server";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { handler } from "../conformance/serving.ts";
import { run, runtimeName, serving, withFolder } from "./programs.ts";

const program = fileURLToPath(new URL("forge.py", import.meta.url));
const canForge = spawnSync("python3", [program, "1", "1", ""]).status === 0;

function forgedTest(name: string, body: () => Promise<void>): void {
  if (canForge) void test(`${runtimeName} forged: ${name}`, body);
  else {void test(
      `${runtimeName} forged: ${name} [skipped: it takes root and python3, for a raw socket]`,
      { skip: true },
      () => {},
    );}
}

async function forge(from: string | number, to: string | number, text: string): Promise<void> {
  assertEquals(await run("python3", [program, String(from), String(to), text]), { status: 0, stdout: "", stderr: "" });
}

for (const concurrency of ["sequential", "async", "threading", "forking"]) {
  forgedTest(
    `echo ${concurrency} answers neither itself nor port 0 nor a system's service, and goes on`,
    () =>
      serving("echo.ts", ["--listen", "udp://127.0.0.1:0", "--concurrency", concurrency], async (server) => {
        for (const from of [server.port, 0, 7]) await forge(from, server.port, "forged");
        const client = await bind("udp://127.0.0.1:0");
        client.timeout = 20_000;
        await client.send("hello", server.addresses[0]!);
        assertEquals(new TextDecoder().decode((await client.receive())!.data), "hello");
        await client.close();
      }),
  );
}

forgedTest("dns says nothing of questions from port 0", () =>
  withFolder(async (folder) => {
    const zone = join(folder, "zone.json");
    writeFileSync(zone, JSON.stringify({ origin: "example.test", ttl: 1, records: {} }));
    await serving("dns.ts", ["--listen", "udp://127.0.0.1:0", "--zone", zone], async (server) => {
      // A header of a kind of query that nobody knows is answered with NOTIMP.
      const query = "\x01\x01\x10\x01\x01\x01\x01\x01\x01\x01\x01\x01";
      await forge(0, server.port, query);
      const client = await bind("udp://127.0.0.1:0");
      client.timeout = 20_000;
      await client.send(query, server.addresses[0]!);
      assertEquals((await client.receive())!.data[1], 1);
      await client.close();
    });
  }));

forgedTest("a reply to port 0 is EDESTADDRREQ", async () => {
  const errors: unknown[] = [];
  const Handler = handler(((datagram: Datagram) => datagram.reply("x")) as never) as unknown as RequestHandlerClass<Datagram>;
  const server = new AsyncUDPServer("udp://127.0.0.1:0", Handler);
  server.handleError = (_request, _clientAddress, error) => void errors.push(error);
  await server.activate();
  const serving = server.serveForever();
  await forge(0, (server.serverAddress as { port: number }).port, "x");
  const client = await bind("udp://127.0.0.1:0");
  client.timeout = 20_000;
  await client.send("y", server.serverAddress);
  assertEquals(new TextDecoder().decode((await client.receive())!.data), "x");
  await client.close();
  // Bun drops what comes from port 0 itself.
  assertEquals(errors.map((error) => (error as SocketError).code), server.stats.accepted === 1 ? [] : ["EDESTADDRREQ"]);
  await server.serverClose();
  await serving;
});

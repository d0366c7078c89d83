/** `examples/echo.ts` in each of its cells: the running runtime, four transports, four modes. The clients are `node:net`, `node:dgram`, Perl. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { getRuntime, parseAddress, type UDPServer } from "@sockets/server";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { type Client, freshPath, openSocket } from "../conformance/adapters.ts";
import { openDatagramClient } from "../conformance/datagram_clients.ts";
import { launch, missingUnixDatagram, serving } from "../interop/programs.ts";
import { eightMebibytes, stopped } from "./clients.ts";

const runtime = getRuntime();
const MODES = ["sequential", "async", "threading", "forking"];

for (const mode of MODES) {
  for (const transport of ["tcp", "unix"] as const) {
    test(`${runtime.name} ${transport} ${mode}: examples/echo.ts keeps the promises of a stream, and SIGTERM ends it`, async () => {
      const path = freshPath();
      // A process is started for each client: fewer do.
      const [clients, resets] = mode === "forking" ? [4, 1] : [100, 10];
      const talking = await serving("echo.ts", args(transport, mode, path), async (server) => {
        const open = () => openSocket(parseAddress(server.addresses[0]!));
        await eightMebibytes(await open());
        if (mode === "sequential") { for (let i = 0; i < clients; i++) await talk(await open(), i); }
        else await Promise.all(Array.from({ length: clients }, async (_, i) => talk(await open(), i)));
        for (let i = 0; i < resets; i++) {
          const client = await open();
          void client.write(new Uint8Array(1 << 20)).catch(() => {});
          await client.read(1);
          client.reset();
          await client.gone;
        }
        await stopped(parseAddress(server.addresses[0]!), server.pid);
        // One that goes on talking while the server is told to stop.
        const client = await open();
        await client.write("x");
        assertEquals(await client.read(1), "x");
        return client;
      }, (stderr) => onlyResets(stderr, resets + 1));
      await talking.readAll();
      await talking.end().catch(() => {});
      assert(!existsSync(path), "the socket's file is left behind");
    });
  }

  for (const transport of ["udp", "unixgram"] as const) {
    const supported = transport === "udp" || missingUnixDatagram === false;
    if (supported) {
      test(`${runtime.name} ${transport} ${mode}: examples/echo.ts keeps the promises of datagrams, and SIGTERM ends it`, async () => {
        const path = freshPath();
        await serving("echo.ts", args(transport, mode, path), async (server) => {
          const client = await openDatagramClient({ serverAddress: parseAddress(server.addresses[0]!), runtime } as UDPServer);
          for (const size of [0, 1, 1400, 65_507]) {
            const sent = new Uint8Array(size).map((_, i) => i * 31 + (i >> 8));
            await client.send(sent);
            const { data, from } = await client.receive();
            assertEquals(Buffer.compare(data, sent), 0);
            assertEquals(from, server.addresses[0]);
          }
          // Few enough for every system's buffers.
          const sent = Array.from({ length: mode === "forking" ? 3 : 8 }, (_, i) => `datagram ${i}`);
          for (const text of sent) await client.send(text);
          const received = new Set<string>();
          for (const _ of sent) received.add(new TextDecoder().decode((await client.receive()).data));
          assertEquals(received, new Set(sent));
          await client.close();
        });
        assert(!existsSync(path), "the socket's file is left behind");
      });
    } else {
      test(`${runtime.name} ${transport} ${mode}: examples/echo.ts says what would make it work`, async () => {
        const path = freshPath();
        const { status, stdout, stderr } = await launch("echo.ts", args(transport, mode, path)).finish();
        assertEquals([status, stdout], [1, ""]);
        assertMatch(stderr, /^UnsupportedError: [^\n]*\n$/);
        assert(stderr.includes(missingUnixDatagram as string), stderr);
        assert(!existsSync(path));
      });
    }
  }
}

function args(transport: string, mode: string, path: string): string[] {
  const listen = transport === "tcp" || transport === "udp" ? `${transport}://127.0.0.1:0` : `${transport}:${path}`;
  return ["--listen", listen, "--concurrency", mode];
}

async function talk(client: Client, i: number): Promise<void> {
  await client.write(`client ${i}`);
  assertEquals(await client.read(`client ${i}`.length), `client ${i}`);
  await client.end();
  await client.readAll();
}

/** Whether a server has reported nothing but these many connections that were reset. */
function onlyResets(stderr: string, resets: number): boolean {
  const reported = stderr.match(/^Exception occurred during processing of request from .*$/gm)?.length ?? 0;
  const errors = stderr.match(/^ ?\w*Error: .*$/gm) ?? [];
  return reported <= resets && errors.length === reported && errors.every((line) => /ECONNRESET|EPIPE/.test(line));
}

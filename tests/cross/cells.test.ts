/** `examples/echo.ts` in each of its cells: the running runtime, four transports, four modes. The clients are `node:net`, `node:dgram`, Perl. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { getRuntime, parseAddress, type UDPServer } from "@sockets/server";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { test } from "node:test";
import { type Client, freshPath, openSocket } from "../conformance/adapters.ts";
import { openDatagramClient } from "../conformance/datagram_clients.ts";
import { type Example, launch, missingUnixDatagram, serving } from "../interop/programs.ts";

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
        await stopped(server);
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

/** They come back byte for byte, and the end behind them. */
async function eightMebibytes(client: Client): Promise<void> {
  const sent = new Uint8Array(8 << 20).map((_, i) => (i * 7 + (i >> 10)) & 255);
  const received = client.readAll();
  await client.write(sent);
  await client.end();
  assertEquals(Buffer.compare(await received, sent), 0);
  assertEquals(await client.gone, null);
}

async function talk(client: Client, i: number): Promise<void> {
  await client.write(`client ${i}`);
  assertEquals(await client.read(`client ${i}`.length), `client ${i}`);
  await client.end();
  await client.readAll();
}

/** A client that sends without reading is stopped, and costs the server little memory. */
async function stopped(server: Example): Promise<void> {
  const address = parseAddress(server.addresses[0]!);
  const socket = connect("path" in address ? { path: address.path } : { host: address.hostname, port: address.port });
  socket.on("error", () => {});
  socket.pause();
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  const before = residentMemory(server.pid);
  const piece = new Uint8Array(1 << 16);
  let taken = 0;
  // Stopped means: a write that the system has not taken after half a second will not be taken.
  for (let done = true; done;) {
    done = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), 500);
      socket.write(piece, (error) => {
        clearTimeout(timer);
        resolve(!error);
      });
    });
    if (done) taken += piece.length;
    assert(taken < 64 << 20, "the client was never stopped");
  }
  const after = residentMemory(server.pid);
  if (before !== null && after !== null) assert(after - before < 64 << 10, `memory grew by ${after - before} KiB`);
  socket.destroy();
}

/** In KiB, or `null` where the system doesn't tell. */
function residentMemory(pid: number): number | null {
  const status = `/proc/${pid}/status`;
  return existsSync(status) ? Number(/VmRSS:\s*(\d+)/.exec(readFileSync(status, "utf8"))![1]) : null;
}

/** Whether a server has reported nothing but these many connections that were reset. */
function onlyResets(stderr: string, resets: number): boolean {
  const reported = stderr.match(/^Exception occurred during processing of request from .*$/gm)?.length ?? 0;
  const errors = stderr.match(/^ ?\w*Error: .*$/gm) ?? [];
  return reported <= resets && errors.length === reported && errors.every((line) => /ECONNRESET|EPIPE/.test(line));
}

/**
 * What a stream server does about those that hold it up, one attack for each limit: the attack ends with the right reason and count,
 * and a client beside it goes on.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixStreamServer,
  connect,
  type EndedEvent,
  type EndReason,
  ForkingTCPServer,
  getRuntime,
  type ServerEvents,
  type ServerStats,
  StreamRequestHandler,
  TCPServer,
  type TCPServerOptions,
  ThreadingTCPServer,
  UnixStreamServer,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { spawn } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { existsSync, readdirSync } from "node:fs";
import { connect as netConnect } from "node:net";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { type Adapter, adapters, type Client, openSocket } from "./adapters.ts";
import { commandFor } from "./children.ts";
import Modes, { Telling } from "./handlers/limits.ts";
import { EchoHandler, gate, handler, type Quiet, serving, until } from "./serving.ts";
import { generator } from "../unit/generator.ts";

const SERVERS = {
  tcp: { sequential: TCPServer, async: AsyncTCPServer },
  unix: { sequential: UnixStreamServer, async: AsyncUnixStreamServer },
};
const running = getRuntime();
const linux = existsSync("/proc/self/fd");

// Connections in memory, and what waits for their limits, don't keep the program running; some test runners do neither.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

for (const adapter of adapters) {
  cases(adapter);
  reasons(adapter);
  if (adapter.transport === "tcp" && adapter.runtime !== memory) addresses(adapter);
}
// Workers are the runtime's in memory too, where the sockets' own limits have been tried.
for (const adapter of adapters.filter(({ runtime, transport }) => transport === "tcp" && runtime !== memory)) {
  workerCases(adapter, "threading", ThreadingTCPServer as never, { maxThreads: 1 });
  workerCases(adapter, "forking", ForkingTCPServer as never, { maxChildren: 4, spareChildren: 2, requestsPerChild: Infinity });
}

/** A client that never reads. */
interface Attacker {
  write(data: string): void;
  leave(): void;
}

function attack({ runtime }: Adapter, server: TCPServer): Promise<Attacker> {
  const { serverAddress } = server;
  if (runtime === memory) {
    return connect(serverAddress, { runtime }).then((connection) => ({
      write: (data) => void connection.write(data),
      leave: () => connection.abort(),
    }));
  }
  const where = "path" in serverAddress
    ? { path: serverAddress.path }
    : { host: serverAddress.hostname, port: serverAddress.port };
  return new Promise((resolve, reject) => {
    const socket = netConnect(where, () => {
      socket.off("error", reject);
      socket.on("error", () => {});
      resolve({ write: (data) => void socket.write(data), leave: () => socket.destroy() });
    });
    socket.once("error", reject);
  });
}

/** Echoes without a pause until it is told to stop; then says whether all that came back was right. */
function goesOn(client: Client): () => Promise<void> {
  let stopped = false;
  const text = "honest".repeat(100);
  const echo = async () => {
    await client.write(text);
    assertEquals(await client.read(text.length), text);
  };
  const done = (async () => {
    while (!stopped) {
      await echo();
      // In memory nothing else would ever get its turn.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await echo();
    await leave(client);
  })();
  // It lets go of its end too, whatever the other one saw.
  done.catch(() => client.reset());
  return () => {
    stopped = true;
    return done;
  };
}

/** Connects and says something: the client, or `null` when it is refused. */
async function knock(adapter: Adapter, server: TCPServer, from?: string): Promise<Client | null> {
  const client = await adapter.open(server, from).catch(() => null);
  if (client === null) return null;
  try {
    await client.write("x");
    if (await client.read(1) === "x") return client;
  } catch {
    // Refused with a reset.
  }
  client.reset();
  return null;
}

async function leave(client: Client): Promise<void> {
  await client.end();
  await client.readAll();
}

function ended({ ended }: ServerStats): Partial<Record<EndReason, number>> {
  return Object.fromEntries(Object.entries(ended).filter(([, count]) => count > 0));
}

const ends = (server: TCPServer, reason: EndReason, count = 1) => until(() => server.stats.ended[reason] >= count);

/** Serves, and sees to it that afterwards everything is back where it was. */
async function attacked(
  adapter: Adapter,
  use: (server: TCPServer & Quiet) => Promise<void>,
  options: TCPServerOptions = {},
  Server: typeof TCPServer = SERVERS[adapter.transport].async,
): Promise<void> {
  const descriptors = () => linux && adapter.runtime !== memory ? readdirSync("/proc/self/fd").length : 0;
  // The runtime's own are open from the first connection on.
  await serving(adapter, Server, EchoHandler, async (server) => await leave((await knock(adapter, server))!));
  const before = descriptors();
  let server!: TCPServer & Quiet;
  await serving(adapter, Server, Modes, async (running) => {
    server = running;
    await use(server);
  }, options);
  const { accepted, active, refused, ended, requestTime, unsent } = server.stats;
  assertEquals([active, server.activeRequests.size, unsent], [0, 0, 0]);
  assertEquals(Object.values(ended).reduce((sum, count) => sum + count), accepted + refused);
  assertEquals(requestTime.count, accepted);
  await until(() => descriptors() <= before);
}

function cases(adapter: Adapter): void {
  const { runtime, transport } = adapter;
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport}: ${name}`, body);

  it("idleTimeout: a silent client is ended, one that echoes goes on", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn(await adapter.open(server));
      const silent = await attack(adapter, server);
      const mute = await attack(adapter, server);
      mute.write("x");
      await ends(server, "idle", 2);
      await stop();
      await ends(server, "peer closed");
      assertEquals(ended(server.stats), { "idle": 2, "peer closed": 1 });
      assertEquals(server.errors, []);
      silent.leave();
      mute.leave();
    }, { idleTimeout: 100 }));

  it("idleTimeout: a silent client doesn't hold a sequential server for ever", () =>
    attacked(
      adapter,
      async (server) => {
        const silent = await attack(adapter, server);
        const client = (await knock(adapter, server))!;
        // From here on it may take its time.
        server.idleTimeout = Infinity;
        await leave(client);
        await ends(server, "peer closed");
        assertEquals(ended(server.stats), { "idle": 1, "peer closed": 1 });
        silent.leave();
      },
      { idleTimeout: 100 },
      SERVERS[transport].sequential,
    ));

  it("requestTimeout: a client that never comes to an end is ended, however busy", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn(await adapter.open(server));
      server.requestTimeout = 50;
      const busy = goesOn(await adapter.open(server));
      await ends(server, "deadline");
      server.requestTimeout = Infinity;
      await busy().catch(() => {});
      await stop();
      await ends(server, "peer closed");
      assertEquals(ended(server.stats), { "deadline": 1, "peer closed": 1 });
      assertEquals(server.errors, []);
    }));

  it("minReadRate: a trickle is ended, one that sends as fast as it can goes on", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn(await adapter.open(server));
      const slow = await attack(adapter, server);
      const trickle = setInterval(() => slow.write("."), 10);
      await ends(server, "too slow");
      clearInterval(trickle);
      await stop();
      await ends(server, "peer closed");
      assertEquals(ended(server.stats), { "too slow": 1, "peer closed": 1 });
      assertEquals(server.errors, []);
      slow.leave();
    }, { minReadRate: 1000, readRateWindow: 200, readRateGrace: 10 }));

  it("writeTimeout: a peer that never reads is ended, one that reads goes on", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn(await adapter.open(server));
      const deaf = await attack(adapter, server);
      deaf.write("S");
      await ends(server, "write timeout");
      await stop();
      await ends(server, "peer closed");
      assertEquals(ended(server.stats), { "write timeout": 1, "peer closed": 1 });
      assertEquals(server.errors, []);
      deaf.leave();
    }, { writeTimeout: 200 }));

  it("writeTimeout: also when the handler is done and only the peer has to take the rest", async () => {
    const Handler = handler((conn) => void conn.write(new Uint8Array(32 << 20)));
    await serving(adapter, SERVERS[transport].async, Handler, async (server) => {
      const deaf = await attack(adapter, server);
      await ends(server, "write timeout");
      assertEquals(server.stats.active, 0);
      deaf.leave();
    }, { writeTimeout: 100 });
  });

  it("writeTimeout: a peer that reads a large answer slowly gets all of it", () =>
    attacked(adapter, async (server) => {
      const client = await adapter.open(server);
      await client.write("B");
      assertEquals((await client.readAll()).length, 16 << 20);
      await client.end();
      await until(() => server.stats.active === 0);
      assertEquals(ended(server.stats)["write timeout"], undefined);
      assertEquals(server.stats.bytesWritten, 16 << 20);
    }, { writeTimeout: 1000, maxBackpressure: 0, maxTotalBackpressure: 0 }));

  it("maxBackpressure: a handler that doesn't await its writes doesn't fill the memory for a peer that never reads", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn(await adapter.open(server));
      const deaf = await attack(adapter, server);
      deaf.write("F");
      await ends(server, "backpressure");
      await stop();
      await ends(server, "peer closed");
      assertEquals(ended(server.stats), { "backpressure": 1, "peer closed": 1 });
      assertEquals(server.errors, []);
      deaf.leave();
    }, { maxBackpressure: 1 << 20 }));

  it("maxTotalBackpressure: nor do several of them together", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn(await adapter.open(server));
      const deaf = await Promise.all(Array.from({ length: 4 }, () => attack(adapter, server)));
      for (const one of deaf) one.write("F");
      await ends(server, "backpressure", 3);
      await stop();
      await ends(server, "peer closed");
      for (const one of deaf) one.leave();
      await until(() => server.stats.active === 0);
      assertEquals(server.stats.ended["peer closed"] >= 1, true);
    }, { maxTotalBackpressure: 1 << 20 }));

  it("maxConnections: those beyond are refused, and counted, until one leaves", () =>
    attacked(adapter, async (server) => {
      const clients = await Promise.all(Array.from({ length: 3 }, () => knock(adapter, server)));
      assert(!clients.includes(null));
      const refused: unknown[] = [];
      server.handleEnd = (request, _clientAddress, reason) => void refused.push([request, reason]);
      for (let i = 0; i < 5; i++) assertEquals(await knock(adapter, server), null);
      assertEquals(server.stats.refused, 5);
      assertEquals(refused, Array(5).fill([null, "max connections"]));
      await leave(clients[0]!);
      await ends(server, "peer closed");
      const next = await knock(adapter, server);
      assert(next !== null);
      for (const client of [clients[1]!, clients[2]!, next]) await leave(client);
      await ends(server, "peer closed", 4);
      assertEquals(ended(server.stats), { "max connections": 5, "peer closed": 4 });
    }, { maxConnections: 3, whenFull: "refuse" }));

  it("maxConnections: those beyond wait, and the pauses are counted, until one leaves", () =>
    attacked(adapter, async (server) => {
      const clients = await Promise.all(Array.from({ length: 3 }, () => knock(adapter, server)));
      assert(!clients.includes(null));
      assertEquals(server.stats.paused, 1);
      let served = 0;
      const waiting = Array.from({ length: 3 }, () =>
        knock(adapter, server).then((client) => {
          served++;
          return client;
        }));
      // They are there, but the first three have the server to themselves.
      await clients[0]!.write("y");
      assertEquals(await clients[0]!.read(1), "y");
      assertEquals([served, server.stats.active], [0, 3]);
      for (const client of clients) await leave(client!);
      for (const client of await Promise.all(waiting)) await leave(client!);
      await ends(server, "peer closed", 6);
      assertEquals([server.stats.accepted, server.stats.refused], [6, 0]);
    }, { maxConnections: 3 }));

  it("a flood of connections: each is served or refused, and an honest client goes on", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn((await knock(adapter, server))!);
      const clients = await Promise.all(Array.from({ length: 200 }, () => knock(adapter, server)));
      await stop();
      const served = clients.filter((client) => client !== null);
      const { stats } = server;
      assertEquals([stats.accepted, stats.refused], [1 + served.length, 200 - served.length]);
      await Promise.all(served.map(leave));
      await until(() => server.stats.active === 0);
    }, { maxConnections: 20, whenFull: "refuse" }));

  it("a flood of resets, before and after the first byte, leaves nothing behind", () =>
    attacked(adapter, async (server) => {
      const stop = goesOn((await knock(adapter, server))!);
      await Promise.all(Array.from({ length: 200 }, async (_, i) => {
        const client = i % 2 === 0 ? await knock(adapter, server) : await adapter.open(server);
        client!.reset();
        await client!.gone;
      }));
      await stop();
      await until(() => server.stats.active === 0 && server.stats.accepted === 201);
    }));

  if (runtime === memory) {
    it("stats.queued are those that wait to be accepted", () =>
      attacked(
        adapter,
        async (server) => {
          const first = (await knock(adapter, server))!;
          const waiting = await Promise.all(Array.from({ length: 3 }, () => adapter.open(server)));
          assertEquals(server.stats.queued, 3);
          for (const client of [first, ...waiting]) await leave(client);
          await ends(server, "peer closed", 4);
          assertEquals(server.stats.queued, 0);
        },
        {},
        SERVERS[transport].sequential,
      ));
  }

  it("connections that are reset while they wait to be accepted leave nothing behind", () =>
    attacked(
      adapter,
      async (server) => {
        const first = (await knock(adapter, server))!;
        await Promise.all(Array.from({ length: 50 }, async () => {
          const client = await adapter.open(server);
          client.reset();
          await client.gone;
        }));
        await leave(first);
        await leave((await knock(adapter, server))!);
        await until(() => server.stats.active === 0);
      },
      {},
      SERVERS[transport].sequential,
    ));

  it("a wrong limit is told before anything is bound", async () => {
    const Server = SERVERS[transport].async;
    for (
      const [options, Class] of [
        [{ maxConnections: 0 }, RangeError],
        [{ maxConnections: 1.5 }, RangeError],
        [{ maxConnectionsPerAddress: -1 }, RangeError],
        [{ maxConnectionRatePerAddress: 0 }, RangeError],
        [{ whenFull: "drop" }, TypeError],
        [{ allow: "10.0.0.0/8" }, TypeError],
        [{ allow: ["10.0.0.0/33"] }, TypeError],
        [{ deny: ["localhost"] }, TypeError],
        [{ idleTimeout: 0 }, RangeError],
        [{ requestTimeout: NaN }, RangeError],
        [{ writeTimeout: "5" }, RangeError],
        [{ readRateWindow: 2 ** 31 }, RangeError],
        [{ readRateGrace: -1 }, RangeError],
        [{ minReadRate: Infinity }, RangeError],
        [{ maxBackpressure: NaN }, RangeError],
        [{ maxTotalBackpressure: -1 }, RangeError],
      ] as const
    ) {
      const server = new Server(adapter.freshAddress(), EchoHandler, { runtime, ...options as object });
      const error = await assertRejects(() => server.activate(), Class);
      assert(error.message.includes(Object.keys(options)[0]!), error.message);
    }
  });

  it("what the server counted, and told on its channels, is what the clients counted", () => counts(adapter));
}

/** How many requests the clients make: `LIMITS_REQUESTS=100000` for a night. */
const REQUESTS = Number(process.env.LIMITS_REQUESTS ?? 1000);

/** Requests of all kinds at random, with one in a hundred of each kind that goes wrong. */
async function counts(adapter: Adapter): Promise<void> {
  const { runtime, transport } = adapter;
  const internet = transport === "tcp" && runtime !== memory;
  const kinds = ["throw", ...(transport === "tcp" ? ["reset"] : []), ...(internet ? ["denied", "rejected"] : [])] as const;
  const counted: Record<string, number> = { echo: 0, throw: 0, reset: 0, denied: 0, rejected: 0, sent: 0, received: 0 };
  const random = generator(2024);
  await attacked(adapter, async (server) => {
    server.verifyRequest = (_request, address) =>
      !(address !== null && "hostname" in address && address.hostname === "127.0.0.77");
    const seen: Record<string, number> = {};
    server.handleEnd = (_request, _clientAddress, reason) => seen[reason] = (seen[reason] ?? 0) + 1;
    const told = { accepted: 0, refused: 0, ended: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
    const listeners: [name: keyof ServerEvents, listener: (event: unknown) => void][] = [
      ["sockets.connection.accepted", (event) => told.accepted += of(event)],
      ["sockets.connection.refused", (event) => told.refused += of(event)],
      ["sockets.request.error", (event) => told.errors += of(event)],
      ["sockets.connection.ended", (event) => {
        const { bytesRead, bytesWritten } = event as EndedEvent;
        told.ended += of(event);
        told.bytesRead += bytesRead * of(event);
        told.bytesWritten += bytesWritten * of(event);
      }],
    ];
    const of = (event: unknown) => (event as EndedEvent).server === server as unknown ? 1 : 0;
    for (const [name, listener] of listeners) subscribe(name, listener);
    let left = REQUESTS;
    await Promise.all(Array.from({ length: 20 }, async () => {
      while (left-- > 0) {
        const dice = Math.floor(random() * 100);
        const kind = kinds[dice] ?? "echo";
        await request(kind, 1 + Math.floor(random() * 3000));
        counted[kind]!++;
      }
    }));
    await until(() => server.stats.active === 0);
    for (const [name, listener] of listeners) unsubscribe(name, listener);
    const { stats } = server;
    assertEquals(ended(stats), seen);
    const by = (reason: EndReason) => stats.ended[reason];
    assertEquals(
      { ...counted },
      {
        echo: by("peer closed"),
        throw: by("handler error"),
        reset: by("reset"),
        denied: by("denied"),
        rejected: by("rejected"),
        sent: stats.bytesRead,
        received: stats.bytesWritten,
      },
    );
    const { accepted, refused, rejected, errors, aborted, requestTime } = stats;
    assertEquals([accepted, refused, rejected, aborted], [REQUESTS - counted.denied!, counted.denied, counted.rejected, 0]);
    // A handler whose peer resets fails too.
    assertEquals([errors, server.errors.length], [counted.throw! + counted.reset!, errors]);
    assertEquals(requestTime.count, accepted);
    assertEquals(told, {
      accepted,
      refused,
      ended: accepted,
      errors,
      bytesRead: stats.bytesRead,
      bytesWritten: stats.bytesWritten,
    });

    async function request(kind: string, size: number): Promise<void> {
      if (kind === "denied" || kind === "rejected") {
        const client = await adapter.open(server, kind === "denied" ? "127.0.0.66" : "127.0.0.77").catch(() => null);
        assertEquals(await client?.readAll() ?? new Uint8Array(0), new Uint8Array(0));
        return await client?.end().catch(() => {});
      }
      // Spread, as one address has no more than some 28,000 ports.
      const client = await adapter.open(server, internet ? `127.0.0.${1 + Math.floor(random() * 50)}` : undefined);
      const text = (kind === "throw" ? "T" : "e").repeat(kind === "throw" ? 1 : size);
      await client.write(text);
      counted.sent! += text.length;
      if (kind === "reset") {
        assertEquals(await client.read(size), text);
        counted.received! += size;
        client.reset();
        await client.gone;
        return;
      }
      if (kind === "echo") await client.end();
      const answer = await client.readAll();
      assertEquals(answer.length, kind === "throw" ? 0 : size);
      counted.received! += answer.length;
      if (kind === "throw") await client.end().catch(() => {});
    }
  }, { deny: ["127.0.0.66"] });
}

/** Limits by address; the whole of 127.0.0.0/8 is this machine. */
function addresses(adapter: Adapter): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${adapter.runtime.name} tcp: ${name}`, body);

  it("maxConnectionsPerAddress: no more from one address, as many from another, and again when one has left", () =>
    attacked(adapter, async (server) => {
      const mine = [await knock(adapter, server, "127.0.0.2"), await knock(adapter, server, "127.0.0.2")];
      assert(!mine.includes(null));
      for (let i = 0; i < 3; i++) assertEquals(await knock(adapter, server, "127.0.0.2"), null);
      const other = await knock(adapter, server, "127.0.0.3");
      assert(other !== null);
      await leave(mine[0]!);
      await ends(server, "peer closed");
      const again = await knock(adapter, server, "127.0.0.2");
      assert(again !== null);
      for (const client of [mine[1]!, other, again]) await leave(client);
      await ends(server, "peer closed", 4);
      assertEquals(ended(server.stats), { "max connections per address": 3, "peer closed": 4 });
    }, { maxConnectionsPerAddress: 2 }));

  it("maxConnectionRatePerAddress: those that come too fast from one address are refused, others come in", () =>
    attacked(adapter, async (server) => {
      for (const address of ["127.0.0.2", "127.0.0.3"]) {
        const first = await knock(adapter, server, address);
        for (let i = 0; i < 3; i++) assertEquals(await knock(adapter, server, address), null);
        await leave(first!);
      }
      await ends(server, "peer closed", 2);
      assertEquals(ended(server.stats), { "connection rate": 6, "peer closed": 2 });
    }, { maxConnectionRatePerAddress: 0.001 }));

  it("maxConnectionRatePerAddress: a flood from one address is refused to the last, while others come in", () =>
    attacked(adapter, async (server) => {
      const flood = Promise.all(Array.from({ length: 300 }, () => knock(adapter, server, "127.0.0.2")));
      const honest = await knock(adapter, server, "127.0.0.3");
      const comeIn = (await flood).filter((client) => client !== null);
      for (const client of [honest!, ...comeIn]) await leave(client!);
      await ends(server, "peer closed", 2);
      assertEquals(ended(server.stats), { "connection rate": 299, "peer closed": 2 });
    }, { maxConnectionRatePerAddress: 0.001 }));

  it("allow and deny: who is not let in gets nothing, and no request is made of it", () =>
    attacked(adapter, async (server) => {
      for (const [address, comesIn] of [["127.0.0.5", true], ["127.0.0.9", false], ["127.0.1.1", false]] as const) {
        const client = await knock(adapter, server, address);
        assertEquals(client !== null, comesIn, address);
        if (client !== null) await leave(client);
      }
      await ends(server, "peer closed");
      assertEquals(ended(server.stats), { "denied": 2, "peer closed": 1 });
      assertEquals([server.stats.accepted, server.stats.refused], [1, 2]);
    }, { allow: ["127.0.0.0/24"], deny: ["127.0.0.8/29"] }));

  it("allow and deny: a rule for IPv4 holds on a dual-stack listener", async () => {
    const server = new AsyncTCPServer("tcp://[::]:0", EchoHandler, { deny: ["127.0.0.2"] });
    await server.activate();
    void server.serveForever();
    const { port } = server.serverAddress as { port: number };
    const open = (_: TCPServer, from?: string) => openSocket({ transport: "tcp", hostname: "127.0.0.1", port }, from);
    assertEquals(await knock({ ...adapter, open }, server, "127.0.0.2"), null);
    await leave((await knock({ ...adapter, open }, server, "127.0.0.3"))!);
    await server.serverClose();
  });

  it("handleRequest() handles one request, however many are refused before", async () => {
    const server = new TCPServer("tcp://127.0.0.1:0", EchoHandler, { deny: ["127.0.0.2"] });
    await server.activate();
    const handled = server.handleRequest();
    for (let i = 0; i < 3; i++) assertEquals(await knock(adapter, server, "127.0.0.2"), null);
    await leave((await knock(adapter, server))!);
    await handled;
    assertEquals([server.stats.accepted, server.stats.refused], [1, 3]);
    server.timeout = 20;
    await server.handleRequest();
    await server.serverClose();
  });

  test(`${adapter.runtime.name} udp: allow and deny are refused, since nothing would heed them`, async () => {
    const server = new AsyncUDPServer(
      "udp://127.0.0.1:0",
      class extends EchoHandler {} as never,
      { deny: ["127.0.0.2"] } as never,
    );
    await assertRejects(() => server.activate(), TypeError, "verifyRequest");
  });
}

const shortage = "a process out of descriptors goes on, and is as it was when some are free again";
test(`${running.name}: ${shortage}${linux ? "" : " [skipped: Linux only]"}`, { skip: !linux }, exhausted);

/** A server with few descriptors, which more clients want than there are. */
async function exhausted(): Promise<void> {
  const [binary, ...args] = commandFor(new URL("programs/exhausted.ts", import.meta.url));
  const child = spawn("sh", ["-c", 'ulimit -n 64; exec "$@"', "sh", binary!, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => (await lines.next()).value as string;
  try {
    const port = Number((await line()).split(" ")[1]);
    const address = { transport: "tcp", hostname: "127.0.0.1", port } as const;
    const stop = goesOn(await openSocket(address));
    const crowd = await Promise.all(Array.from({ length: 200 }, () => openSocket(address).catch(() => null)));
    // A client is connected as soon as the kernel has taken it; the server may get to it later.
    let during: { active: number; shortages: string[] };
    do {
      child.stdin.write("stats\n");
      during = JSON.parse(await line());
    } while (during.active <= 10);
    // A runtime that reports it does so once: a server that spins would report it again and again.
    assert(during.shortages.length <= 1 && during.shortages.every((code) => code === "EMFILE"), `${during.shortages}`);
    for (const client of crowd) client?.reset();
    await stop();
    const next = await openSocket(address);
    await next.write("x");
    assertEquals(await next.read(1), "x");
    await leave(next);
    child.stdin.write("stats\n");
    for (let after = JSON.parse(await line()); after.active > 0; after = JSON.parse(await line())) child.stdin.write("stats\n");
  } finally {
    child.stdin.end();
    await new Promise((resolve) => child.once("close", resolve));
  }
}

/** Why connections end, as the handler's `finish()`, `handleEnd()` and the stats tell. */
function reasons(adapter: Adapter): void {
  const { runtime, transport } = adapter;
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport}: reasons: ${name}`, body);
  const Server = SERVERS[transport].async;
  /** Serves one connection, and gives what the handler's `finish()` and `handleEnd()` were told of it. */
  async function told(
    Handler: typeof Modes,
    use: (client: Client, server: TCPServer & Quiet) => Promise<void>,
    options: TCPServerOptions = {},
  ): Promise<[EndReason | null | undefined, EndReason]> {
    const told: (EndReason | null)[] = [];
    class Listening extends Handler {
      override async finish(): Promise<void> {
        told.push(this.request.endReason);
        await super.finish();
      }
    }
    const end = gate<EndReason>();
    await serving(adapter, Server, Listening, async (server) => {
      server.handleEnd = (request, clientAddress, reason) => {
        assertEquals(request!.endReason, reason);
        assertEquals(clientAddress === null, transport === "unix");
        end.resolve(reason);
      };
      await use(await adapter.open(server), server);
      const reason = await end.promise;
      assertEquals(ended(server.stats), { [reason]: 1 });
    }, options);
    return [told[0], await end.promise];
  }

  it("the handler is done first", async () => {
    assertEquals(await told(Modes, (client) => client.write("D")), ["handler done", "handler done"]);
  });

  it("the peer closes first", async () => {
    const outcome = await told(Modes, async (client) => {
      await client.write("x");
      await leave(client);
    });
    assertEquals(outcome, ["peer closed", "peer closed"]);
  });

  it("the handler fails", async () => {
    assertEquals(await told(Modes, (client) => client.write("T")), ["handler error", "handler error"]);
  });

  it("the handler's finish() fails", async () => {
    assertEquals(await told(Telling, (client) => client.write("D")), ["handler done", "handler error"]);
  });

  if (transport === "tcp") {
    it("the peer resets", async () => {
      const outcome = await told(Modes, async (client) => {
        await client.write("x");
        await client.read(1);
        client.reset();
      });
      assertEquals(outcome, ["reset", "reset"]);
    });
  }

  it("verifyRequest() rejects it; there is no handler", async () => {
    const outcome = await told(Modes, async (client, server) => {
      await leave(client);
      assertEquals(server.stats.rejected, 1);
    }, { verifyRequest: () => false } as never);
    assertEquals(outcome, [undefined, "rejected"]);
  });

  it("it ends while the server is draining", async () => {
    const outcome = await told(Modes, async (client, server) => {
      await client.write("x");
      await client.read(1);
      assertEquals(server.draining, false);
      const drained = server.shutdown({ drain: 60_000 });
      assertEquals(server.draining, true);
      await leave(client);
      await drained;
      assertEquals(server.draining, false);
    });
    assertEquals(outcome, ["drained", "drained"]);
  });

  it("the server stops and the handler is not done in time", async () => {
    const outcome = await told(Modes, async (client, server) => {
      await client.write("x");
      await client.read(1);
      await server.shutdown({ drain: 0 });
      assertEquals([server.stats.aborted, server.errors], [1, []]);
    });
    assertEquals(outcome, ["aborted", "aborted"]);
  });

  it("a limit ends it; the handler's finish() sees which, its signal fires, and its failing is no error", async () => {
    const signalled = gate<unknown>();
    class Signalled extends Modes {
      override handle(): Promise<void> {
        const { signal } = this.request;
        signal.addEventListener("abort", () => signalled.resolve(signal.reason));
        return super.handle();
      }
    }
    const outcome = await told(Signalled, async (_client, server) => {
      await ends(server, "idle");
      assertEquals(server.errors, []);
    }, { idleTimeout: 20 });
    assertEquals(outcome, ["idle", "idle"]);
    const { code, message } = await signalled.promise as { code: string; message: string };
    assertEquals([code, message.includes("idle")], ["ECONNABORTED", true]);
  });

  it("a limit ends it while wfile holds something, which is no error either", async () => {
    class Holding extends StreamRequestHandler {
      override wbufsize = 1000;
      override async handle(): Promise<void> {
        await this.wfile.write("held back");
        await this.rfile.readLine();
      }
    }
    const outcome = await told(Holding as never, async (_client, server) => {
      await ends(server, "idle");
      assertEquals(server.errors, []);
    }, { idleTimeout: 20 });
    assertEquals(outcome, ["idle", "idle"]);
  });

  it("what handleEnd() throws goes to handleError(), and the server goes on", () =>
    serving(adapter, Server, EchoHandler, async (server) => {
      server.handleEnd = () => {
        throw new Error("from handleEnd");
      };
      for (let i = 1; i <= 2; i++) {
        await leave((await knock(adapter, server))!);
        await until(() => server.errors.length === i);
      }
      assertEquals(server.errors.map(String), ["Error: from handleEnd", "Error: from handleEnd"]);
    }));
}

type WorkerServer = new (address: string, handler: URL, options: object) => TCPServer;

/** The sockets are the server's; what depends on the handler the worker sees to. Either way `finish()` knows why. */
function workerCases(adapter: Adapter, mode: string, Server: WorkerServer, few: object): void {
  const { runtime } = adapter;
  const attacks: [EndReason, TCPServerOptions, (attacker: Attacker) => void][] = [
    // Long enough for the one that goes on, also where a child takes its time to start.
    ["idle", { idleTimeout: 2000 }, () => {}],
    ["deadline", { requestTimeout: 100 }, (attacker) => attacker.write("x")],
    ["write timeout", { writeTimeout: 200 }, (attacker) => attacker.write("S")],
    ["backpressure", { maxBackpressure: 1 << 20 }, (attacker) => attacker.write("F")],
    ["backpressure", { maxTotalBackpressure: 1 << 20 }, (attacker) => attacker.write("F")],
    ["too slow", { minReadRate: 1000, readRateWindow: 200, readRateGrace: 10 }, (attacker) => {
      const trickle = setInterval(() => attacker.write("."), 10);
      const { leave } = attacker;
      attacker.leave = () => {
        clearInterval(trickle);
        leave();
      };
    }],
  ];
  for (const [reason, limits, attacks_] of attacks) {
    test(`${runtime.name} tcp ${mode}: ${reason} (${Object.keys(limits)[0]}): the worker's handler sees it, and others go on`, async () => {
      const server = new Server(adapter.freshAddress(), new URL("./handlers/limits.ts#Telling", import.meta.url), {
        runtime,
        ...few,
        ...limits,
      });
      const errors: string[] = [];
      server.handleError = (_request, _clientAddress, error) => void errors.push(String(error));
      await server.activate();
      const served = server.serveForever();
      try {
        const client = await adapter.open(server);
        const attacker = await attack(adapter, server);
        const stop = reason === "deadline" ? () => leave(client).catch(() => {}) : goesOn(client);
        attacks_(attacker);
        await ends(server, reason);
        await stop();
        await until(() => server.stats.active === 0);
        attacker.leave();
        assert(errors.some((error) => error.includes(`finish: ${reason}`)), errors.join("; "));
        assertEquals(server.stats[mode === "threading" ? "threads" : "children"] >= 1, true);
      } finally {
        await server.shutdown({ drain: 0 });
        await server.serverClose();
        await served;
      }
    });
  }
}

test(`${running.name}: a connection in memory that nobody ends doesn't keep the program running`, async () => {
  const [binary, ...args] = commandFor(new URL("programs/left_open.ts", import.meta.url));
  const child = spawn(binary!, args, { stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (chunk) => out += chunk);
  const status = await new Promise((resolve) => child.once("close", resolve));
  assertEquals([status, out.trim()], [0, "left open"]);
});

/** What servers tell on the channels of `node:diagnostics_channel`, and that it costs nothing while nobody listens. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  bind,
  type Channel,
  connect,
  type Connection,
  type Datagram,
  getRuntime,
  type Runtime,
  type ServerEvents,
  type TCPServer,
  type TCPServerOptions,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { after, test } from "node:test";
import { type Adapter, adapters } from "./adapters.ts";
import { EchoHandler, handler, quiet, until } from "./serving.ts";
import { FEW, type Mode, only, STREAM } from "./worker_serving.ts";

const NAMES: (keyof ServerEvents)[] = [
  "sockets.server.listening",
  "sockets.server.closed",
  "sockets.connection.accepted",
  "sockets.connection.refused",
  "sockets.connection.ended",
  "sockets.request.error",
  "sockets.worker.started",
  "sockets.worker.exited",
];

// Connections in memory don't keep the program running; some test runners don't either.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

type Told = { [name in keyof ServerEvents]: [name: name, event: ServerEvents[name]] }[keyof ServerEvents];

/** Listens to all channels while `use` runs; what was told of one server, in order. */
async function listening(use: (told: Told[]) => Promise<unknown>): Promise<Told[]> {
  const told: Told[] = [];
  const listener = (message: unknown, name: string | symbol) => void told.push([name, message] as Told);
  for (const name of NAMES) subscribe(name, listener);
  try {
    const server = await use(told);
    return told.filter(([, event]) => event.server === server);
  } finally {
    for (const name of NAMES) unsubscribe(name, listener);
  }
}

function made({ runtime, transport, freshAddress }: Adapter, Handler: typeof EchoHandler, options: TCPServerOptions = {}) {
  const Server = { tcp: AsyncTCPServer, unix: AsyncUnixStreamServer }[transport];
  return new (quiet(Server as typeof TCPServer))(freshAddress(), Handler, { runtime, ...options });
}

async function echo(adapter: Adapter, server: TCPServer, text: string): Promise<void> {
  const client = await adapter.open(server);
  await client.write(text);
  assertEquals(await client.read(text.length), text);
  await client.end();
  await client.readAll();
}

/** The one event of a name. */
function single<N extends keyof ServerEvents>(told: Told[], name: N): ServerEvents[N] {
  const events = told.filter(([of]) => of === name);
  assertEquals(events.length, 1, `${name} was told ${events.length} times`);
  return events[0]![1] as ServerEvents[N];
}

for (const adapter of adapters) {
  const { runtime, transport } = adapter;
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport}: ${name}`, body);

  it("a connection is told of when it was accepted and when it has ended, a server when it listens and when it is closed", async () => {
    let connection: Connection | null = null;
    const told = await listening(async () => {
      const server = made(
        adapter,
        handler(async (request) => {
          connection = request;
          for await (const chunk of request) await request.write(chunk);
        }) as typeof EchoHandler,
      );
      await server.activate();
      const serving = server.serveForever();
      await echo(adapter, server, "hello");
      await until(() => server.stats.ended["peer closed"] === 1);
      await server.shutdown();
      await serving;
      await server.serverClose();
      await server.serverClose();
      return server;
    });
    assertEquals(told.map(([name]) => name), [
      "sockets.server.listening",
      "sockets.connection.accepted",
      "sockets.connection.ended",
      "sockets.server.closed",
    ]);
    const accepted = single(told, "sockets.connection.accepted");
    assertStrictEquals(accepted.connection, connection);
    assertEquals(accepted.clientAddress === null, transport === "unix");
    const { connection: same, clientAddress, reason, bytesRead, bytesWritten, duration } = single(
      told,
      "sockets.connection.ended",
    );
    assertStrictEquals(same, connection);
    assertEquals(clientAddress, accepted.clientAddress);
    assertEquals([reason, bytesRead, bytesWritten], ["peer closed", 5, 5]);
    assert(duration > 0);
  });

  it("a connection that a limit keeps out is told of with the limit, and never as accepted", async () => {
    const told = await listening(async () => {
      const server = made(adapter, EchoHandler, { maxConnections: 1, whenFull: "refuse" });
      await server.activate();
      const serving = server.serveForever();
      const inside = await adapter.open(server);
      await inside.write("x");
      await inside.read(1);
      const outside = await adapter.open(server).catch(() => null);
      await until(() => server.stats.refused === 1);
      outside?.reset();
      await inside.end();
      await inside.readAll();
      await server.shutdown({ drain: 10_000 });
      await serving;
      await server.serverClose();
      return server;
    });
    assertEquals(single(told, "sockets.connection.refused").reason, "max connections");
    single(told, "sockets.connection.accepted");
    single(told, "sockets.connection.ended");
  });

  it("an error is told of before handleError() gets it", async () => {
    const order: string[] = [];
    const failure = new Error("a handler's own");
    const told = await listening(async (told) => {
      const server = made(
        adapter,
        handler(() => {
          throw failure;
        }) as typeof EchoHandler,
      );
      server.handleError = () => void order.push(...told.filter(([, event]) => event.server === server).map(([name]) => name));
      await server.activate();
      const serving = server.serveForever();
      const client = await adapter.open(server);
      await client.readAll();
      await client.end().catch(() => {});
      await until(() => server.stats.active === 0);
      await server.shutdown();
      await serving;
      await server.serverClose();
      return server;
    });
    assertEquals(order, ["sockets.server.listening", "sockets.connection.accepted", "sockets.request.error"]);
    const { error, request } = single(told, "sockets.request.error");
    assertStrictEquals(error, failure);
    assertStrictEquals(request, single(told, "sockets.connection.accepted").connection);
    assertEquals(single(told, "sockets.connection.ended").reason, "handler error");
  });
}

for (const mode of ["threading", "forking"] as const) {
  const adapter = adapters[0]!;
  test(`${adapter.runtime.name} tcp ${mode}: a worker is told of when it has started and when it is gone`, () =>
    workers(mode, adapter));
}

async function workers(mode: Mode, adapter: Adapter): Promise<void> {
  const kind = mode === "threading" ? "thread" : "process";
  const Server = STREAM[mode].tcp;
  const handlers = (name: string) => new URL(`./handlers/stream.ts#${name}`, import.meta.url);
  const life = async (name: string, use: (server: TCPServer, told: Told[]) => Promise<void>) =>
    (await listening(async (told) => {
      const spare = only(mode, { spareThreads: 1, spareChildren: 1 });
      const server = new Server(adapter.freshAddress(), handlers(name), { ...FEW[mode], ...spare });
      server.handleError = () => {};
      await server.activate();
      const serving = server.serveForever();
      await use(server, told);
      await server.shutdown();
      await serving;
      await server.serverClose();
      const count = (name: string) => told.filter(([of]) => of === name).length;
      await until(() => count("sockets.worker.exited") === count("sockets.worker.started"));
      return server;
    })).flatMap(([name, event]) =>
      name === "sockets.worker.started" || name === "sockets.worker.exited" ? [{ name, ...event }] : []
    );

  const [started, exited, ...more] = await life("default", (server) => echo(adapter, server, "hello"));
  assertEquals([started?.name, started?.kind], ["sockets.worker.started", kind]);
  assertEquals([exited?.name, exited?.kind, exited?.id], ["sockets.worker.exited", kind, started?.id]);
  // The server has ended it.
  assertEquals([(exited as { error?: unknown }).error, more], [null, []]);

  const died = await life("Obedient", async (server, told) => {
    const client = await adapter.open(server);
    await client.write("exit|");
    await client.readAll();
    await client.end().catch(() => {});
    await until(() => told.some(([name]) => name === "sockets.worker.exited"));
  });
  const gone = died.find(({ name }) => name === "sockets.worker.exited") as unknown as { error: Error };
  assert(gone.error instanceof Error);
}

test(`${getRuntime().name}: datagram servers tell of themselves and of errors, and of no datagram`, async () => {
  const told = await listening(async () => {
    class Failing extends BaseRequestHandler<Datagram> {
      override handle(): void {
        throw new Error("a handler's own");
      }
    }
    const server = new AsyncUDPServer("udp://127.0.0.1:0", Failing);
    server.handleError = () => {};
    await server.activate();
    const serving = server.serveForever();
    const client = await bind("udp://127.0.0.1:0");
    await client.send("x", server.serverAddress);
    await until(() => server.stats.errors === 1);
    await client.close();
    await server.shutdown();
    await serving;
    await server.serverClose();
    return server;
  });
  assertEquals(told.map(([name]) => name), ["sockets.server.listening", "sockets.request.error", "sockets.server.closed"]);
});

test("while nobody listens, a connection costs a look at two channels, a message and a datagram none, and nothing is published", async () => {
  let looks = 0;
  const channel = (): Channel => ({
    get hasSubscribers() {
      looks++;
      return false;
    },
    publish() {
      throw new Error("nobody listens");
    },
  });
  const runtime: Runtime = { ...memory, channel };

  const streams = new AsyncTCPServer("tcp://127.0.0.1:0", EchoHandler, { runtime });
  await streams.activate();
  void streams.serveForever();
  looks = 0;
  const client = await connect(streams.serverAddress, { runtime });
  for (let i = 0; i < 100; i++) {
    await client.write("x");
    await client.read();
  }
  await client.close();
  await until(() => streams.stats.active === 0);
  assertEquals(looks, 2);
  await streams.serverClose();

  class Replies extends BaseRequestHandler<Datagram> {
    override handle(): void | Promise<void> {
      return this.request.reply("x");
    }
  }
  const datagrams = new AsyncUDPServer("udp://127.0.0.1:0", Replies, { runtime });
  await datagrams.activate();
  void datagrams.serveForever();
  looks = 0;
  const sender = await bind("udp://127.0.0.1:0", { runtime });
  for (let i = 0; i < 100; i++) {
    await sender.send("x", datagrams.serverAddress);
    await sender.receive();
  }
  assertEquals(looks, 0);
  await sender.close();
  await datagrams.serverClose();
});

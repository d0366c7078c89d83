/** Workers whose handlers don't come to an end after their requests have: they are ended and replaced, and everybody is told why. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { BaseRequestHandler, type ForkingTCPServer, getRuntime, TCPServer, type ThreadingTCPServer } from "@sockets/server";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { test } from "node:test";
import type { Client } from "./adapters.ts";
import { openDatagramClient } from "./datagram_clients.ts";
import { until } from "./serving.ts";
import { answer, ask, DATAGRAM, type Errors, type Mode, serving, STREAM } from "./worker_serving.ts";

const runtime = getRuntime();
const faulty = (name = "default") => new URL(`./handlers/faults.ts#${name}`, import.meta.url);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** What a server does whose limits hold once its worker has started, which takes a busy machine longer than the limits allow. */
async function limited(
  server: TCPServer,
  limits: Partial<Pick<TCPServer, "requestTimeout" | "idleTimeout">>,
  use: () => Promise<void>,
): Promise<void> {
  const { requestTimeout, idleTimeout } = server;
  assertEquals(await answer(await ask(server, "fine")), "fine");
  Object.assign(server, limits);
  await use();
  // Another worker takes over, and has to start first.
  Object.assign(server, { requestTimeout, idleTimeout });
  assertEquals(await answer(await ask(server, "fine")), "fine");
}

/** What is told of the workers of a server that has ended. */
async function exits(use: (errors: (Error | null)[]) => Promise<void>): Promise<void> {
  const errors: (Error | null)[] = [];
  const note = (event: unknown) => void errors.push((event as { error: Error | null }).error);
  subscribe("sockets.worker.exited", note);
  try {
    await use(errors);
  } finally {
    unsubscribe("sockets.worker.exited", note);
  }
}

for (const mode of ["threading", "forking"] as const) workers(mode);
threads();
children();
for (const method of ["spawnThread", "fork"] as const) handedOver(method);

function workers(mode: Mode): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp ${mode}: ${name}`, body);
  const one = mode === "threading" ? { maxThreads: 1 } : { maxChildren: 1, requestsPerChild: Infinity };
  const running = (server: unknown) =>
    mode === "threading" ? (server as ThreadingTCPServer).threads : (server as ForkingTCPServer).activeChildren.size;
  const during = (requestTimeout: number, use: (server: TCPServer & Errors) => Promise<void>) =>
    serving(
      STREAM[mode].tcp,
      "tcp://127.0.0.1:0",
      faulty(),
      { ...one, workerGrace: 200 },
      (server) => limited(server, { requestTimeout }, () => use(server)),
    );

  it("one that computes without end after requestTimeout is ended, and the next client is served", () =>
    exits((ended) =>
      during(500, async (server) => {
        const client = await ask(server, "spin");
        assertEquals(await answer(client), "spinning");
        await until(() => server.errors.length > 0);
        const [error] = server.errors as Error[];
        assertMatch(error!.message, /^the (thread|process) .* was ended: it did not answer within 200 ms, .*\(deadline\)/);
        await until(() => server.stats.active === 0 && ended.length === 1);
        assertEquals([server.stats.stuckWorkers, server.stats.ended.deadline], [1, 1]);
        assertMatch(ended[0]!.message, /was ended: it did not answer/);
        server.requestTimeout = Infinity;
        assertEquals(await answer(await ask(server, "fine")), "fine");
        assertEquals([running(server), server.errors.length], [1, 1]);
      })
    ));

  it("so is one whose client has left before", () =>
    during(500, async (server) => {
      const client = await ask(server, "spin");
      assertEquals(text(new TextEncoder().encode(await client.read(8))), "spinning");
      client.reset();
      await until(() => server.errors.length > 0);
      assertEquals(server.stats.stuckWorkers, 1);
    }));

  it("one that answers goes on, with what its handler has left to do", () =>
    during(100, async (server) => {
      const client = await ask(server, "ends-late 600");
      assertEquals(await answer(client), "");
      await until(() => server.stats.active === 0);
      assertEquals([server.stats.stuckWorkers, server.stats.ended.deadline], [0, 1]);
    }));

  it("workerGrace is a number of milliseconds above 0", async () => {
    for (const workerGrace of [0, -1, NaN, "1" as unknown as number]) {
      const server = new STREAM[mode].tcp("tcp://127.0.0.1:0", faulty(), { workerGrace });
      await assertRejects(() => server.activate(), RangeError, "workerGrace");
    }
  });

  test(`${runtime.name} udp ${mode}: a datagram's handler that computes without end, too`, () =>
    serving(
      DATAGRAM[mode].udp,
      "udp://127.0.0.1:0",
      faulty("Spins"),
      { ...one, workerGrace: 200, requestTimeout: 500 },
      async (server) => {
        const client = await openDatagramClient(server);
        await client.send("spin");
        await until(() => server.errors.length > 0);
        assertMatch((server.errors[0] as Error).message, /did not answer/);
        server.requestTimeout = Infinity;
        await client.send("fine");
        assertEquals(text((await client.receive()).data), "fine");
        await client.close();
      },
    ));
}

function threads(): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp threading: ${name}`, body);

  it("what else ran on a stuck thread fails, and says why", () =>
    serving(
      STREAM.threading.tcp,
      "tcp://127.0.0.1:0",
      faulty(),
      { maxThreads: 1, workerGrace: 50 },
      (server) =>
        limited(server, { idleTimeout: 300 }, async () => {
          const neighbour = await ask(server, "hold");
          await neighbour.read(1);
          // It is never idle.
          const busy = setInterval(() => void neighbour.write("x").catch(() => {}), 20);
          const client = await ask(server, "spin");
          assertEquals(await answer(client), "spinning");
          assertEquals(await answer(neighbour), "");
          clearInterval(busy);
          await until(() => server.errors.length === 2);
          for (const error of server.errors as Error[]) assertMatch(error.message, /did not answer within 500 ms, .*\(idle\)/);
          await until(() => server.stats.active === 0);
          assertEquals([server.stats.ended.idle, server.stats.ended["handler error"]], [1, 1]);
        }),
    ));

  it("a thread that computes gets no further clients while another has time", () =>
    serving(STREAM.threading.tcp, "tcp://127.0.0.1:0", faulty(), { maxThreads: 2, spareThreads: 2 }, async (server) => {
      const spinning = await ask(server, "spin");
      assertEquals(await spinning.read(8), "spinning");
      const clients: Client[] = [];
      let served = 0;
      for (let i = 0; i < 12; i++) {
        const client = await ask(server, "hold");
        clients.push(client);
        void client.read(1).then((said) => served += said === "" ? 0 : 1);
        // For so long nobody can know.
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      await until(() => served >= 10);
      for (const client of [spinning, ...clients]) client.reset();
    }));
}

function children(): void {
  test(`${runtime.name} tcp forking: a handler that waits without end keeps its process ten times the grace`, () =>
    serving(
      STREAM.forking.tcp,
      "tcp://127.0.0.1:0",
      faulty(),
      { maxChildren: 1, requestsPerChild: Infinity, workerGrace: 300 },
      (server) =>
        limited(server, { requestTimeout: 500 }, async () => {
          assertEquals(await answer(await ask(server, "ignore")), "ignoring");
          await until(() => server.errors.length > 0);
          assertMatch((server.errors[0] as Error).message, /its handler was not done within 3000 ms .*\(deadline\)/);
        }),
    ));
}

function handedOver(method: "spawnThread" | "fork"): void {
  test(`${runtime.name} tcp plain: a request that ${method}() has handed over to one that computes without end is over, too`, async () => {
    class HandsOver extends BaseRequestHandler {
      override async handle(): Promise<void> {
        if (text(await this.request.read() ?? new Uint8Array()) === "elsewhere") this[method](faulty("SpinsAtOnce"));
        else await this.request.write("fine");
      }
    }
    const server = new TCPServer("tcp://127.0.0.1:0", HandsOver, { requestTimeout: 500, workerGrace: 200 });
    const errors: Error[] = [];
    const stop = new Int32Array(new SharedArrayBuffer(4));
    // A process gets its data as JSON.
    if (method === "spawnThread") server.data = { stop: stop.buffer };
    server.handleError = (_request: unknown, _clientAddress: unknown, error: unknown) => void errors.push(error as Error);
    await server.activate();
    const served = server.serveForever();
    try {
      assertEquals(await answer(await ask(server, "elsewhere")), "");
      await until(() => errors.length > 0);
      assertMatch(errors[0]!.message, /was ended: it did not answer/);
      await until(() => server.stats.active === 0);
      assertEquals(server.stats.stuckWorkers, 1);
      assertEquals(await answer(await ask(server, "here")), "fine");
      assert(errors.length === 1);
    } finally {
      await server.shutdown({ drain: 0 });
      await server.serverClose();
      await served;
      Atomics.store(stop, 0, 1);
    }
  });
}

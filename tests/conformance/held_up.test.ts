/**
 * Timeouts of a program that is held up: its event loop is busy, or the program is stopped. What came in time is there, whenever it is looked
 * at. The peers run in threads of their own, as they must go on meanwhile. Memory is left out: in it nobody can send meanwhile.
 */
import { assert, assertEquals } from "@std/assert";
import {
  type Address,
  AsyncTCPServer,
  AsyncUnixStreamServer,
  bind,
  connect,
  type Connection,
  getRuntime,
  StreamReader,
  type TCPServer,
} from "@sockets/server";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { adapters, freshPath, tlsAdapters } from "./adapters.ts";
import { authority } from "./certificates.ts";
import { handler, serving, until } from "./serving.ts";
import type { PeerStart, Step } from "./programs/peer.ts";
import { FEW, type Mode, serving as servingWorkers, STREAM } from "./worker_serving.ts";

const runtime = getRuntime();
/** Milliseconds: what the operations may take, and for how long the thread is held up meanwhile. */
const TIMEOUT = 100;
const HELD_UP = 3 * TIMEOUT;

/** A peer, and what holds this thread up. */
class Peer {
  readonly #worker: Worker;
  readonly #flags = new Int32Array(new SharedArrayBuffer(8));
  readonly #told: unknown[] = [];
  #wake = (): void => {};
  #failure: Error | null = null;

  constructor(address: Address | null, ...steps: Step[]) {
    const where = address === null
      ? { port: 0, host: "127.0.0.1" }
      : "path" in address
      ? { path: address.path }
      : { port: address.port, host: "127.0.0.1" };
    const ca = steps.includes("secure") ? authority().cert : null;
    const workerData: PeerStart = { steps, where, ca, datagrams: address?.transport === "udp", flags: this.#flags };
    this.#worker = new Worker(new URL("programs/peer.ts", import.meta.url), { workerData });
    this.#worker.on("message", (message) => {
      this.#told.push(message);
      this.#wake();
    });
    this.#worker.on("error", (error) => {
      this.#failure = error as Error;
      this.#wake();
    });
  }

  /** What it tells next. */
  async told(): Promise<unknown> {
    while (this.#told.length === 0) {
      if (this.#failure !== null) throw this.#failure;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#told.shift();
  }

  /** Holds this thread up until the peer is done and the time is over. */
  holdUp(ms = HELD_UP): void {
    const begun = performance.now();
    Atomics.store(this.#flags, 0, 1);
    Atomics.notify(this.#flags, 0);
    while (performance.now() - begun < ms || Atomics.load(this.#flags, 1) === 0) {
      assert(performance.now() - begun < 10_000, "the peer was not done in ten seconds");
    }
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** A large write: more than the kernel takes. */
const LARGE = 8 << 20;
/** Milliseconds in which a slow machine gets through it. */
const LONG = 2000;
const text = (bytes: Uint8Array | null) => new TextDecoder().decode(bytes ?? undefined);
const real = [...adapters, ...tlsAdapters].filter((adapter) => adapter.runtime === runtime);
const SERVERS = { tcp: AsyncTCPServer, unix: AsyncUnixStreamServer };

for (const adapter of real) {
  const Server: typeof TCPServer = SERVERS[adapter.transport];
  const secured = tlsAdapters.includes(adapter);
  const open: Step[] = secured ? ["connect", "secure"] : ["connect"];
  const it = (what: string, body: () => Promise<void>) => void test(`${runtime.name} ${adapter.name}: held up, ${what}`, body);

  /** Serves one connection of the peer that `steps` make with `handle`, and waits for that. */
  const withPeer = async (
    steps: Step[],
    handle: (conn: Connection, peer: Peer) => Promise<void>,
    then: (peer: Peer, server: TCPServer) => Promise<void> = async () => {},
    options: object = {},
  ): Promise<void> => {
    let peer!: Peer;
    const handled = Promise.withResolvers<void>();
    const Handler = handler(async (conn) => {
      try {
        await handle(conn, peer);
        handled.resolve();
      } catch (error) {
        handled.reject(error);
      }
    });
    await serving(adapter, Server, Handler, async (server) => {
      peer = new Peer(server.serverAddress, ...steps);
      try {
        await then(peer, server);
        await handled.promise;
        assertEquals(server.errors, []);
      } finally {
        await peer.end();
      }
    }, options);
  };

  const reads: [string, (conn: Connection) => Promise<string>][] = [
    ["read()", async (conn) => text(await conn.read())],
    ["readInto()", async (conn) => {
      const buffer = new Uint8Array(10);
      return text(buffer.subarray(0, (await conn.readInto(buffer))!));
    }],
    ["readLine()", async (conn) => `${await new StreamReader(conn).readLine()}\n`],
    ["for await", async (conn) => {
      for await (const chunk of conn) return text(chunk);
      return "";
    }],
  ];
  for (const [way, read] of reads) {
    it(`${way} gets what came in time`, () =>
      withPeer([...open, "hear", { tell: "asked" }, "wait", { say: "!\n" }, "done"], async (conn, peer) => {
        conn.timeout = TIMEOUT;
        await conn.write("?");
        await peer.told();
        const reading = read(conn);
        peer.holdUp();
        assertEquals(await reading, "!\n");
      }));
  }

  it("a read of a peer that says nothing times out all the same", () =>
    withPeer([...open, "hear", { tell: "asked" }, "wait", "done"], async (conn, peer) => {
      conn.timeout = TIMEOUT;
      await conn.write("?");
      await peer.told();
      const reading = conn.read().then(String, ({ code }) => code);
      peer.holdUp();
      assertEquals(await reading, "ETIMEDOUT");
    }));

  it("a write goes on whose peer took something in time", () =>
    withPeer([...open, "wait", "drain", "done"], async (conn, peer) => {
      conn.timeout = TIMEOUT;
      const writing = conn.write(new Uint8Array(LARGE));
      assert(writing instanceof Promise, "the kernel has taken it all");
      peer.holdUp(LONG);
      await writing;
    }));

  it("close() lets a peer have the rest that took something in time", () =>
    withPeer([...open, "wait", "drain", "done", "end"], async (conn, peer) => {
      conn.timeout = TIMEOUT;
      void conn.write(new Uint8Array(LARGE));
      const closed = conn.close();
      peer.holdUp(LONG);
      await closed;
      assertEquals([conn.error, await peer.told()], [null, LARGE]);
    }));

  const limits = [["idleTimeout", "!", {}], ["minReadRate", "!".repeat(100), { minReadRate: 50, readRateGrace: 0 }]] as const;
  for (const [limit, say, options] of limits) {
    it(`${limit} is not held against a peer that sent in time`, () =>
      withPeer(
        [...open, { say: "?" }, "hear", { tell: "ready" }, "wait", { say }, "done", "hear", { tell: "heard" }],
        async (conn) => {
          await conn.write(text(await conn.read()));
          await conn.write(text(await conn.read()));
        },
        async (peer) => {
          await peer.told();
          peer.holdUp();
          assertEquals(await peer.told(), "heard");
        },
        { idleTimeout: limit === "idleTimeout" ? TIMEOUT : Infinity, readRateWindow: TIMEOUT, ...options },
      ));
  }

  it("handleRequest() takes a request that came in time", async () => {
    let handled = 0;
    const Handler = handler(async (conn) => {
      handled++;
      await conn.read();
    });
    const server = new Server(adapter.freshAddress(), Handler, { ...adapter.options, timeout: TIMEOUT });
    let timeouts = 0;
    server.handleTimeout = () => void timeouts++;
    await server.activate();
    // A handshake can't be done meanwhile: there it is enough that the peer has begun.
    const peer = new Peer(server.serverAddress, { tell: "ready" }, "wait", ...open, "done", { say: "?" });
    try {
      await peer.told();
      const handling = server.handleRequest();
      peer.holdUp();
      await handling;
      assertEquals([handled, timeouts], [1, 0]);
    } finally {
      await peer.end();
      await server.serverClose();
    }
  });

  if (secured) {
    it("a handshake goes on whose peer has begun in time", () =>
      withPeer(["connect", { tell: "ready" }, "wait", "secure", "done", { say: "?" }], async (conn) => {
        assertEquals(text(await conn.read()), "?");
      }, async (peer, server) => {
        await peer.told();
        await until(() => server.stats.handshaking === 1);
        peer.holdUp();
      }, { tls: { ...(adapter.options.tls as object), handshakeTimeout: TIMEOUT } }));
  } else if (adapter.transport === "tcp") {
    it("a PROXY header is read that came in time", () =>
      withPeer(
        ["connect", { tell: "ready" }, "wait", { say: "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n?" }, "done"],
        async (conn) => {
          assertEquals([text(await conn.read()), conn.proxy !== null], ["?", true]);
        },
        async (peer) => {
          await peer.told();
          // The server takes the connection.
          for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setTimeout(resolve));
          peer.holdUp();
        },
        { proxyProtocol: true, proxyTimeout: TIMEOUT },
      ));
  }
}

test(`${runtime.name} tcp: held up, connect() gets a connection that was there in time`, async () => {
  const peer = new Peer(null, "listen", "wait", "done");
  const connecting = connect({ transport: "tcp", hostname: "127.0.0.1", port: await peer.told() as number }, {
    timeout: TIMEOUT,
  });
  peer.holdUp();
  await (await connecting).close();
  await peer.end();
});

test(`${runtime.name} udp: held up, receive() gets a datagram that came in time`, async () => {
  const socket = await bind("udp://127.0.0.1:0");
  const peer = new Peer(socket.address, { tell: "ready" }, "wait", { say: "!" }, "done");
  await peer.told();
  socket.timeout = TIMEOUT;
  const receiving = socket.receive();
  peer.holdUp();
  assertEquals(text((await receiving)!.data), "!");
  await socket.close();
  await peer.end();
});

for (const mode of ["threading", "forking"] as Mode[]) {
  for (const transport of ["tcp", "unix"] as const) {
    test(`${runtime.name} ${transport} ${mode}: held up, a worker's read() gets what came in time to the server`, () => {
      const address = transport === "tcp" ? "tcp://127.0.0.1:0" : `unix:${freshPath()}`;
      const module = new URL("handlers/held_up.ts", import.meta.url);
      return servingWorkers(STREAM[mode][transport], address, module, { ...FEW[mode], data: TIMEOUT }, async (server) => {
        const steps: Step[] = [
          "connect",
          "hear",
          { tell: "asked" },
          "wait",
          { say: "!" },
          "done",
          "hear",
          { tell: "answered" },
          "end",
        ];
        const peer = new Peer(server.serverAddress, ...steps);
        try {
          await peer.told();
          peer.holdUp();
          await peer.told();
          // "?" and the answer: "!" or the code of an error.
          assertEquals(await peer.told(), 2);
        } finally {
          await peer.end();
        }
      });
    });
  }
}

/** What servers promise whose handlers run in threads and in child processes, on every transport and adapter. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import {
  BaseRequestHandler,
  connect,
  type Connection,
  formatAddress,
  getRuntime,
  Mutex,
  SocketError,
  StreamRequestHandler,
  SystemExit,
  TCPServer,
  type UDPServer,
  UnixStreamServer,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { generator } from "../unit/generator.ts";
import { type Adapter, adapters, freshPath, mostTakenAhead } from "./adapters.ts";
import { type DatagramClient, openDatagramClient } from "./datagram_clients.ts";
import { until } from "./serving.ts";
import { DATAGRAM, type Errors, FEW, type Mode, only, serving, STREAM } from "./worker_serving.ts";

const streamHandler = (name = "default") => new URL(`./handlers/stream.ts#${name}`, import.meta.url);
const datagramHandler = (name = "default") => new URL(`./handlers/datagram.ts#${name}`, import.meta.url);
const text = (bytes: Uint8Array | null) => new TextDecoder().decode(bytes ?? undefined);

/** In memory a Unix socket differs from a TCP one by its address alone, of which a worker knows nothing. */
const distinct = adapters.filter(({ runtime, transport }) => runtime !== memory || transport === "tcp");

for (const mode of ["threading", "forking"] as const) {
  for (const adapter of distinct) streamCases(mode, adapter);
  for (const runtime of [getRuntime(), memory]) {
    for (const transport of ["udp", "unixgram"] as const) {
      if (transport === "udp" || runtime.capabilities.unixDatagram === true) datagramCases(mode, runtime, transport);
    }
  }
  pools(mode);
  handingOver(mode);
}

/** `fork()` and `spawnThread()` in the handler of a server that handles one request at a time. */
function handingOver(mode: Mode): void {
  const method = mode === "forking" ? "fork" : "spawnThread";
  for (const adapter of distinct) {
    const { runtime, transport } = adapter;
    test(`${runtime.name} ${transport} ${mode}: ${method}() hands over what was not read, and the server goes on`, async () => {
      class First extends StreamRequestHandler {
        override wbufsize = 100;
        override async handle(): Promise<void> {
          const name = await this.rfile.readLine();
          await this.wfile.write(`hello ${name};`);
          if (name === "stays") return;
          this[method](streamHandler(name === "wrong" ? "nothing" : "Lines"), { name });
        }
      }
      const Plain = transport === "tcp" ? TCPServer : UnixStreamServer;
      const server = new Plain(adapter.freshAddress(), First, { runtime });
      const errors: unknown[] = [];
      server.handleError = (_request, _clientAddress, error) => void errors.push(error);
      await server.activate();
      const served = server.serveForever();
      const goes = await adapter.open(server);
      await goes.write("goes\none\ntw");
      assertEquals(await goes.read(11), "hello goes;");
      const stays = await adapter.open(server);
      await stays.write("stays\n");
      assertEquals(text(await stays.readAll()), "hello stays;");
      await until(() => server.stats.active === 1);
      assertEquals(errors, []);
      await goes.write("o\nthree");
      await goes.end();
      assertEquals(text(await goes.readAll()), "<one><two><three>");
      const wrong = await adapter.open(server);
      await wrong.write("wrong\n");
      assertEquals(text(await wrong.readAll()), "hello wrong;");
      await until(() => server.stats.active === 0);
      assert(/as nothing, got undefined/.test(String(errors[0])), String(errors[0]));
      await Promise.all([stays.end(), wrong.end()]);
      await server.serverClose();
      await served;
    });
  }
}

function streamCases(mode: Mode, adapter: Adapter): void {
  const { runtime, transport, freshAddress, open } = adapter;
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport} ${mode}: ${name}`, body);
  const during = (handler: string, use: (server: TCPServer & Errors) => Promise<void>, options = {}) =>
    serving(
      STREAM[mode][transport],
      freshAddress(),
      streamHandler(handler),
      { runtime, ...FEW[mode], ...only(mode, options) },
      use,
    );

  it("8 MiB come back byte for byte, and the end after them", () =>
    during("default", async (server) => {
      const client = await open(server);
      const sent = new Uint8Array(8 << 20).map((_, i) => (i * 31 + (i >> 8)) & 255);
      const received = client.readAll();
      await client.write(sent);
      await client.end();
      assertEquals(Buffer.compare(await received, sent), 0);
    }));

  it("thirty clients, one after the other and at once", () =>
    during("default", async (server) => {
      const talk = async (i: number) => {
        const client = await open(server);
        await client.write(`client ${i}`);
        await client.end();
        assertEquals(text(await client.readAll()), `client ${i}`);
      };
      for (let i = 0; i < 10; i++) await talk(i);
      await Promise.all(Array.from({ length: 20 }, (_, i) => talk(i)));
      await until(() => server.stats.active === 0);
      assertEquals([server.stats.accepted, server.stats.errors], [30, 0]);
    }));

  it("a handler knows both addresses, the server's and its data", () =>
    during("Facts", async (server) => {
      const client = await open(server);
      const facts = JSON.parse(text(await client.readAll()));
      assertEquals(facts.serverAddress, server.serverAddress);
      assertEquals(facts.localAddress, server.serverAddress);
      assertEquals(facts.data, { greeting: "hello" });
      assertEquals(facts.clientAddress, transport === "tcp" ? facts.remoteAddress : null);
      if (transport === "tcp") assertEquals(facts.clientAddress.port, client.port);
      await client.end();
    }, { data: { greeting: "hello" } }));

  it("rfile and wfile", () =>
    during("Lines", async (server) => {
      const client = await open(server);
      for (const piece of ["one\r", "\ntwo\nthr", "ee\nlast"]) await client.write(piece);
      await client.end();
      assertEquals(text(await client.readAll()), "<one><two><three><last>");
    }));

  it("an error of a handler is handled in the server, and tells where it came from; the next request is fine", () =>
    during("Obedient", async (server) => {
      for (const command of ["throw", "fine"]) {
        const client = await open(server);
        await client.write(command);
        assertEquals(text(await client.readAll()), command === "fine" ? "fine" : "");
        await client.end();
      }
      const [error] = server.errors as Error[];
      assertEquals([server.errors.length, error!.name, error!.message], [1, "RangeError", "a handler's own"]);
      assert(error!.stack!.includes("handlers/stream.ts"), error!.stack);
    }));

  it("a connection that is lost ends the handler's waiting; a peer that isn't read is stopped", () =>
    during("Deaf", async (server) => {
      const client = await connect(server.serverAddress, { runtime });
      client.timeout = 300;
      let sent = 0;
      const error = await assertRejects(async () => {
        for (;; sent += 1 << 16) await client.write(new Uint8Array(1 << 16));
      }, SocketError);
      assertEquals(error.code, "ETIMEDOUT");
      const taken = server.stats.bytesRead;
      assert(taken <= 2 * mostTakenAhead(runtime) + 131_072, `${taken} bytes were taken of ${sent}`);
      client.abort();
      await server.shutdown({ drain: 0 });
      assertEquals(server.stats.active, 0);
    }));

  it("a read that times out is ETIMEDOUT", () =>
    during("Obedient", async (server) => {
      const client = await open(server);
      await client.write("time out");
      assertEquals(text(await client.readAll()), "ETIMEDOUT");
      await client.end();
    }));

  it("a handler that computes makes nobody wait", () =>
    during("Obedient", async (server) => {
      const enough = freshPath();
      const busy = await open(server);
      await busy.write(`compute|${enough}`);
      assertEquals(await busy.read(9), "computing");
      for (let i = 0; i < 3; i++) {
        const other = await open(server);
        await other.write("quick");
        assertEquals(text(await other.readAll()), "quick");
        await other.end();
      }
      writeFileSync(enough, "");
      assertEquals(text(await busy.readAll()), "computed");
      await busy.end();
      rmSync(enough);
    }, { spareThreads: 2, spareChildren: 2 }));

  it("drain waits for a handler, then aborts it", () =>
    during("Obedient", async (server) => {
      const client = await open(server);
      await client.write("wait");
      assertEquals(await client.read(7), "waiting");
      const down = server.shutdown({ drain: 10_000 });
      await client.write("go");
      assertEquals(text(await client.readAll()), "over");
      await client.end();
      await down;
      const served = server.serveForever();
      const stubborn = await open(server);
      await stubborn.write("never");
      assertEquals(await stubborn.read(5), "never");
      await server.shutdown({ drain: 10 });
      await served;
      await stubborn.readAll();
      await stubborn.end().catch(() => {});
    }));
}

function datagramCases(mode: Mode, runtime: Adapter["runtime"], transport: "udp" | "unixgram"): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport} ${mode}: ${name}`, body);
  const during = (
    handler: string,
    use: (server: UDPServer & Errors, client: DatagramClient) => Promise<void>,
  ) => {
    const address = transport === "udp" ? "udp://127.0.0.1:0" : `unixgram:${freshPath()}`;
    const options = { runtime, maxPacketSize: 40_000, ...FEW[mode] };
    return serving(DATAGRAM[mode][transport], address, datagramHandler(handler), options, async (server) => {
      const client = await openDatagramClient(server);
      await use(server, client).finally(() => client.close());
    });
  };

  it("datagrams of every size come back whole, from the server's own address", () =>
    during("default", async (server, client) => {
      for (const size of [0, 1, 1400, 40_000]) {
        const sent = new Uint8Array(size).map((_, i) => i * 31 + (i >> 8));
        await client.send(sent);
        const { data, from } = await client.receive();
        assertEquals(Buffer.compare(data, sent), 0);
        assertEquals(from, formatAddress(server.serverAddress));
      }
      assertEquals(server.errors, []);
    }));

  it("two hundred, none of them lost", () =>
    during("default", async (server, client) => {
      const numbers = new Set<string>();
      let sent = 0;
      while (sent < 4) await client.send(String(sent++));
      while (numbers.size < sent) {
        numbers.add(text((await client.receive()).data));
        if (sent < 200) await client.send(String(sent++));
      }
      assertEquals([numbers.size, server.stats.accepted], [200, 200]);
    }));

  it("DatagramRequestHandler, and what was cut", () =>
    during("Lines", async (_server, client) => {
      await client.send("one\ntwo");
      assertEquals(text((await client.receive()).data), "<one><two>");
      await client.send("x".repeat(40_001));
      assertEquals(text((await client.receive()).data), `cut <${"x".repeat(40_000)}>`);
    }));

  it("errors of a handler and of a reply are handled in the server", () =>
    during("Fails", async (server, client) => {
      for (const what of ["throw", "long", "fine"]) await client.send(what);
      assertEquals(text((await client.receive()).data), "fine");
      await until(() => server.errors.length === 2);
      assertEquals(
        new Set(server.errors.map((error) => (error as SocketError).code ?? (error as Error).name)),
        new Set(["RangeError", "EMSGSIZE"]),
      );
    }));
}

/** What the transport doesn't matter to. What goes wrong in workers is `faults.test.ts`. */
function pools(mode: Mode): void {
  const runtime = getRuntime();
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp ${mode}: ${name}`, body);
  const Server = STREAM[mode].tcp;
  const during = (handler: string, use: (server: TCPServer & Errors) => Promise<void>, options = {}) =>
    serving(Server, "tcp://127.0.0.1:0", streamHandler(handler), { ...FEW[mode], ...options }, use);
  const ask = async (server: TCPServer, command: string) => {
    const client = await connect(server.serverAddress);
    await client.write(command);
    return client;
  };
  const answer = async (client: Connection) => {
    let all = "";
    try {
      for await (const chunk of client) all += text(chunk);
    } catch {
      // Reset: what came before is the answer.
    }
    await client.close();
    return all;
  };

  it("SystemExit in a worker ends serveForever", async () => {
    const server = new Server("tcp://127.0.0.1:0", streamHandler("Obedient"), FEW[mode]);
    await server.activate();
    const ended = assertRejects(() => server.serveForever(), SystemExit);
    const client = await ask(server, "system exit");
    assertEquals((await ended).exitCode, 3);
    await answer(client);
    await server.serverClose();
  });

  it("a class, or what is no URL, is a TypeError that says what to do", async () => {
    const given = (handler: unknown) => new Server("tcp://127.0.0.1:0", handler as URL);
    class Mine extends BaseRequestHandler {}
    assertThrows(() => given(Mine), TypeError, "new URL(");
    assertThrows(() => given("./handler.ts"), TypeError, "./handler.ts");
    assertThrows(() => given(undefined), TypeError, "undefined");
    for (
      const options of mode === "threading"
        ? [{ maxThreads: 0 }, { maxRequestsPerThread: 0 }]
        : [{ maxChildren: 0 }, { requestsPerChild: 1.5 }]
    ) {
      const server = new Server("tcp://127.0.0.1:0", streamHandler(), options);
      await assertRejects(() => server.activate(), RangeError, Object.keys(options)[0]);
    }
  });

  it("data that a worker can't be given is refused before one is started", async () => {
    const data = { greeting: "hello", log: () => {} };
    const server = new Server("tcp://127.0.0.1:0", streamHandler(), { ...FEW[mode], data });
    const refused = await assertRejects(() => server.activate(), TypeError);
    assertMatch(
      refused.message,
      mode === "threading" ? /^data can't be passed to a thread: / : /^data\.log is a function, which /,
    );
  });

  if (mode === "threading") {
    it("threads share what is passed to them, and are replaced after maxRequestsPerThread", async () => {
      const shared = new SharedArrayBuffer(4);
      await during("Counter", async (server) => {
        const counted: string[] = [];
        for (let i = 0; i < 4; i++) counted.push(await answer(await ask(server, "")));
        assertEquals(counted, ["1", "2", "1", "2"]);
        assertEquals(new Int32Array(shared)[0], 4);
      }, { data: shared, maxThreads: 1, maxRequestsPerThread: 2 });
    });

    it("ten thousand increments under a Mutex by four threads are ten thousand", async () => {
      const count = new SharedArrayBuffer(4);
      const { buffer } = new Mutex();
      await during("Guarded", async (server) => {
        const done = await Promise.all(Array.from({ length: 40 }, async () => answer(await ask(server, ""))));
        assertEquals(new Set(done), new Set(["done"]));
        assertEquals(new Int32Array(count)[0], 10_000);
      }, { data: { count, buffer }, maxThreads: 4, spareThreads: 4 });
    });

    it("a Mutex goes to those who wait in the order of their asking, whichever thread they are in", async () => {
      const turns = new SharedArrayBuffer(4 * 13);
      const mutex = new Mutex();
      // Its first number counts those who have asked.
      const asked = new Int32Array(mutex.buffer);
      await during("Queued", async (server) => {
        const held = await mutex.lock();
        const waiting: Promise<string>[] = [];
        for (let i = 1; i <= 12; i++) {
          waiting.push(ask(server, String(i)).then(answer));
          await until(() => Atomics.load(asked, 0) === i + 1);
        }
        // Who lets it go and asks again is the last.
        const again = mutex.lock();
        held.unlock();
        (await again).unlock();
        assertEquals([...new Int32Array(turns)], [12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assertEquals(new Set(await Promise.all(waiting)), new Set(["done"]));
      }, { data: { turns, buffer: mutex.buffer }, maxThreads: 4, spareThreads: 4 });
    });

    it("threads that end while they hold a Mutex, or wait for it, leave it to the others", async () => {
      const { buffer: lock } = new Mutex();
      const words = new SharedArrayBuffer(16);
      await during("TakesTurns", async (server) => {
        const random = generator(7);
        const last = await Promise.all(Array.from({ length: 12 }, async () => {
          let said = "";
          for (let round = 0; round < 6; round++) {
            // Whoever shares a thread with one that ends is cut off, and comes again.
            const dies = random() < 0.25;
            const turns = 1 + Math.floor(random() * 40);
            said = await answer(await ask(server, String(dies ? -turns : turns)));
          }
          return said;
        }));
        assertEquals(last.length, 12);
        assertEquals(await answer(await ask(server, "5")), "done");
        const [inside, done, met, abandoned] = new Int32Array(words);
        assertEquals([inside, met], [0, 0]);
        assert(done! >= 5 && abandoned! >= 1, `${done} turns, ${abandoned} abandoned`);
      }, { data: { lock, words }, maxThreads: 3, spareThreads: 3 });
    });

    it("a thread that was ended while it computed keeps a Mutex until it has stopped", async () => {
      // On Deno that is when it next gives its event loop a turn.
      const { buffer: lock } = new Mutex();
      const words = new SharedArrayBuffer(4);
      const server = new Server("tcp://127.0.0.1:0", streamHandler("HoldsAndComputes"), { maxThreads: 1, data: { lock, words } });
      await server.activate();
      const served = server.serveForever();
      const client = await ask(server, "go");
      await until(() => Atomics.load(new Int32Array(words), 0) > 0);
      const next = new Mutex(lock).lock();
      await server.serverClose({ drain: 0 });
      await served;
      await client.close();
      const held = await next;
      const counted = Atomics.load(new Int32Array(words), 0);
      // Nobody else is in there: it would count on.
      await new Promise((resolve) => setTimeout(resolve, 50));
      assertEquals([Atomics.load(new Int32Array(words), 0), held.abandoned], [counted, true]);
      held.unlock();
    });
    return;
  }

  it("a fresh process for each request: what one changes never reaches the next", () =>
    during("Counter", async (server) => {
      for (let i = 0; i < 3; i++) assertEquals(await answer(await ask(server, "")), "1");
    }, { requestsPerChild: 1 }));

  it("a process is used again as often as requestsPerChild says", () =>
    during("Counter", async (server) => {
      const counted: string[] = [];
      for (let i = 0; i < 4; i++) counted.push(await answer(await ask(server, "")));
      assertEquals(counted, ["1", "2", "1", "2"]);
    }, { maxChildren: 1, requestsPerChild: 2 }));

  it("requests wait when all children are busy, and none is lost", () =>
    during("Obedient", async (server) => {
      const busy = await ask(server, "wait");
      assertEquals(text(await busy.read()), "waiting");
      const waiting = await Promise.all(["one", "two", "three"].map((command) => ask(server, command)));
      assertEquals(server.stats.active, 1);
      await busy.write("go");
      assertEquals(await answer(busy), "over");
      assertEquals(await Promise.all(waiting.map(answer)), ["one", "two", "three"]);
    }, { maxChildren: 1, spareChildren: 0 }));
}

/**
 * The promises of a connection, kept where the handler runs in a thread or a child process: the cases of `stream.test.ts` that make sense
 * there. A server for each transport and mode serves them all, with few workers that are used again and again.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { getRuntime, SocketError, SystemExit, type TCPServer } from "@sockets/server";
import { after, test } from "node:test";
import { type Adapter, adapters, type Client, mostTakenAhead, tlsAdapters } from "./adapters.ts";
import { ANSWERED } from "./handlers/commands.ts";
import { until } from "./serving.ts";
import { type Errors, FEW, type Mode, STREAM } from "./worker_serving.ts";

const handler = new URL("./handlers/commands.ts", import.meta.url);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

type Server = TCPServer & Errors;
const started: Promise<Server>[] = [];

after(async () => {
  for (const server of started) await (await server).serverClose();
});

// What memory has of its own is in workers.test.ts: relaying is the same there.
for (const adapter of adapters.filter(({ runtime }) => runtime === getRuntime())) {
  for (const mode of ["threading", "forking"] as const) cases(adapter, mode);
}
// The server does the TLS, whoever the bytes are for.
for (const adapter of tlsAdapters) cases(adapter, "threading");

function make({ options: needed, freshAddress, transport }: Adapter, mode: Mode, options: Record<string, unknown> = {}): Server {
  const server = new STREAM[mode][transport](freshAddress(), handler, { ...needed, ...FEW[mode], ...options });
  server.errors = [];
  server.handleError = (_request: unknown, _clientAddress: unknown, error: unknown) => void server.errors.push(error);
  return server as unknown as Server;
}

function cases(adapter: Adapter, mode: Mode): void {
  const { runtime, transport, name, open } = adapter;
  /** Whether `abort()` reaches the peer as a reset. */
  const resets = runtime.capabilities.reset && transport === "tcp";
  const it = (what: string, body: () => Promise<void>) => void test(`${runtime.name} ${name} ${mode}: ${what}`, body);

  let running: Promise<Server> | undefined;
  /** Uses the server that all share; what it has counted and the errors that it has had are of this use. */
  const during = (use: (server: Server, begin: (command: string) => Promise<Client>) => Promise<void>) => async () => {
    if (running === undefined) {
      running = (async () => {
        const server = make(adapter, mode);
        await server.activate();
        server.serveForever().catch(() => {});
        return server;
      })();
      started.push(running);
    }
    const server = await running;
    server.errors = [];
    await use(server, async (command) => {
      const client = await open(server);
      await client.write(command);
      if (ANSWERED.has(command)) assertEquals(await client.read(1), "+");
      return client;
    });
    await until(() => server.stats.active === 0);
  };
  /** What the handler has told as its error. */
  const told = async (server: Server) => {
    await until(() => server.errors.length > 0);
    return (server.errors.shift() as Error).message;
  };

  it(
    "what is sent comes back",
    during(async (_server, begin) => {
      const client = await begin("echo");
      for (const text of ["a", "hello\r\n", "x".repeat(1400)]) {
        await client.write(text);
        assertEquals(await client.read(text.length), text);
      }
      await client.end();
      await client.readAll();
    }),
  );

  it(
    "readInto: what is sent comes back byte for byte",
    during(async (_server, begin) => {
      const client = await begin("into");
      const sent = new Uint8Array(100_000).map((_, i) => i * 31 + (i >> 8));
      const received = client.readAll();
      await client.write(sent);
      await client.end();
      assertEquals(Buffer.compare(await received, sent), 0);
    }),
  );

  it(
    "a chunk is a Uint8Array that the handler may keep and change",
    during(async (server, begin) => {
      const client = await begin("keep");
      for (const text of ["one", "two"]) {
        await client.write(text);
        assertEquals(await client.read(3), text);
      }
      await client.end();
      assertEquals(JSON.parse(await told(server)), [["Uint8Array", 1, 1, 1], ["Uint8Array", 2, 2, 2]]);
      await client.readAll();
    }),
  );

  it(
    "a peer that has ended its side still gets everything",
    during(async (_server, begin) => {
      const client = await begin("count");
      await client.write("12345");
      await client.end();
      assertEquals(text(await client.readAll()), "got 5");
    }),
  );

  it(
    "a server that has ended its side still reads",
    during(async (server, begin) => {
      const client = await begin("bye");
      assertEquals(text(await client.readAll()), "bye");
      await client.write("still here");
      assertEquals(await told(server), "EPIPE still here");
      await client.end();
    }),
  );

  it(
    "what a handler writes is seen at once",
    during(async (server, begin) => {
      const client = await begin("now");
      assertEquals(await client.read(3), "now");
      await client.end();
      assertEquals(await client.gone, null);
      assertEquals(server.errors, []);
    }),
  );

  it(
    "writes that nobody awaits arrive whole and in order, also when the handler ends at once",
    during(async (_server, begin) => {
      const client = await begin("flood");
      const received = await client.readAll();
      assertEquals(received.length, 20 * 300_000);
      for (let i = 0; i < 20; i++) assertEquals([received[i * 300_000], received[(i + 1) * 300_000 - 1]], [i, i]);
      await client.end();
    }),
  );

  it(
    "ten peers that reset in the middle of a transfer end their own requests and harm nobody",
    during(async (server, begin) => {
      for (let i = 1; i <= 10; i++) {
        const client = await begin("echo");
        void client.write(new Uint8Array(1 << 20)).catch(() => {});
        await client.read(1);
        client.reset();
        await client.gone;
        await until(() => server.stats.active === 0);
      }
      // A Unix socket has no reset: what the handler is told depends on whether it reads or writes.
      for (const error of server.errors) {
        assert(["ECONNRESET", ...(transport === "unix" ? ["EPIPE"] : [])].includes((error as SocketError).code), String(error));
      }
      if (transport === "tcp") assertEquals(server.errors.length, 10);
      const client = await begin("echo");
      await client.write("alive");
      await client.end();
      assertEquals(text(await client.readAll()), "alive");
    }),
  );

  if (transport === "tcp") {
    it(
      "the signal and closed tell of a lost peer also while nobody reads",
      during(async (server, begin) => {
        const client = await begin("watch");
        client.reset();
        assertEquals(await told(server), "ECONNRESET ECONNRESET");
      }),
    );
  }

  it(
    "the signal fires when the handler closes the connection, and nothing is lost to watching",
    during(async (server, begin) => {
      const client = await begin("close");
      await client.write("first ");
      await client.write("second");
      await client.end();
      assertEquals(await told(server), "first second ECONNABORTED null");
      await client.readAll();
    }),
  );

  it(
    "a read and a write that wait when the handler aborts reject, and so does all that comes later",
    during(async (server, begin) => {
      // Ours reads only when it is asked to.
      const client = await adapter.connect(server);
      await client.write("abort");
      assertEquals(await told(server), ["TypeError", ...Array(5).fill("ECONNABORTED")].join(" "));
      client.abort();
      if (!resets) return;
      const other = await begin("patience");
      // It reads all, so it is not aborted; its own end is what the server sees.
      other.reset();
      assertEquals(await told(server), "ECONNRESET true");
    }),
  );

  it(
    "a peer that never reads is noticed by back-pressure, and times out",
    during(async (server) => {
      const client = await adapter.connect(server);
      await client.write("patience");
      assertEquals(await told(server), "ETIMEDOUT true");
      client.abort();
    }),
  );

  it(
    "a peer that is not read is stopped",
    during(async (server) => {
      const client = await adapter.connect(server);
      await client.write("deaf");
      await client.read();
      client.timeout = 300;
      const before = server.stats.bytesRead;
      let sent = 0;
      const error = await assertRejects(async () => {
        for (;; sent += 1 << 16) await client.write(new Uint8Array(1 << 16));
      }, SocketError);
      assertEquals(error.code, "ETIMEDOUT");
      // The server takes as much ahead as for a handler of its own, and hands on 128 KiB; so does the worker.
      const taken = server.stats.bytesRead - before;
      assert(taken <= 2 * mostTakenAhead(runtime) + 131_072, `${taken} bytes were taken of ${sent}`);
      client.abort();
      // Behind what is unread the peer's end is unseen: the server ends it.
      await server.shutdown({ drain: 0 });
      server.serveForever().catch(() => {});
    }),
  );

  it(
    "small segments that nobody reads are merged",
    during(async (server) => {
      const client = await adapter.connect(server);
      client.setNoDelay();
      await client.write("merge");
      assertEquals(text(await client.read() as Uint8Array), "+");
      for (let i = 0; i < 200; i++) await client.write("x");
      const answer = text(await client.read() as Uint8Array);
      const chunks = Number(answer);
      assert(chunks >= 1 && chunks <= 10, `${answer} chunks`);
      client.abort();
    }),
  );

  it(
    "a read that times out rejects with ETIMEDOUT and loses nothing",
    during(async (_server, begin) => {
      const client = await begin("timeout");
      assertEquals(await client.read(19), "ETIMEDOUT ETIMEDOUT");
      await client.write("late");
      await client.write(" but whole");
      await client.end();
      assertEquals(text(await client.readAll()), "late but whole");
    }),
  );

  it(
    "web streams carry the connection in both directions",
    during(async (_server, begin) => {
      const client = await begin("streams");
      const sent = "0123456789".repeat(20_000);
      const received = client.readAll();
      await client.write(sent);
      await client.end();
      assertEquals(text(await received), sent);
    }),
  );

  it(
    "the options of the socket can be set from where the handler runs",
    during(async (server, begin) => {
      const client = await begin("options");
      assertEquals(text(await client.readAll()), "set");
      await client.end();
      assertEquals(server.errors, []);
    }),
  );

  it(
    "a hundred clients at once",
    during(async (server) => {
      const { accepted } = server.stats;
      await Promise.all(Array.from({ length: 100 }, async (_, i) => {
        const client = await open(server);
        await client.write("count");
        assertEquals(await client.read(1), "+");
        await client.write("x".repeat(i));
        await client.end();
        assertEquals(text(await client.readAll()), `got ${i}`);
      }));
      assertEquals([server.stats.accepted - accepted, server.errors.length], [100, 0]);
    }),
  );

  it(
    "a request that verifyRequest turns away is shut down and reaches no worker",
    during(async (server) => {
      server.verifyRequest = () => false;
      try {
        const client = await open(server);
        assertEquals((await client.readAll()).length, 0);
        await client.end();
      } finally {
        server.verifyRequest = () => true;
      }
      assertEquals(server.errors, []);
    }),
  );

  it(
    "serverClose frees the address for the next activate, also with a client connected; the new server serves",
    async () => {
      const server = make(adapter, mode, { shutdownTimeout: 0 });
      await server.activate();
      const address = server.serverAddress;
      for (let i = 0; i < 2; i++) {
        const served = server.serveForever();
        const client = await open(server);
        await client.write("echo");
        assertEquals(await client.read(1), "+");
        await server.serverClose();
        await served;
        await client.readAll();
        await client.end().catch(() => {});
        await server.activate();
        assertEquals(server.serverAddress, address);
      }
      const handled = server.handleRequest();
      const client = await open(server);
      await client.write("count");
      await client.end();
      assertEquals(text(await client.readAll()), "+got 0");
      await handled;
      await until(() => server.stats.active === 0);
      assertEquals(server.errors, []);
      await server.serverClose();
    },
  );

  it("a server that is shut down while it starts, and what handleError throws, end serveForever", async () => {
    const server = make(adapter, mode);
    const starting = server.serveForever();
    await server.shutdown();
    await starting;
    server.handleError = (_request, _address, error) =>
      Promise.reject(new SystemExit((error as Error).message === "EPIPE x" ? 5 : 6));
    const rejected = assertRejects(() => server.serveForever(), SystemExit);
    await server.activate();
    const client = await open(server);
    await client.write("bye");
    assertEquals(text(await client.readAll()), "bye");
    await client.write("x");
    assertEquals((await rejected).exitCode, 5);
    await client.end();
    await server.serverClose();
  });
}

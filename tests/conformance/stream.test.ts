/** What a stream server promises, over TCP and Unix sockets, on every adapter, one request at a time and concurrently. */
import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import {
  AsyncTCPServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  type Connection,
  type InetAddress,
  type RequestHandlerClass,
  SocketError,
  StreamRequestHandler,
  SystemExit,
  TCPServer,
  UnixStreamServer,
} from "@sockets/server";
import { test } from "node:test";
import { type Adapter, adapters, type Client, mostTakenAhead, tlsAdapters } from "./adapters.ts";
import { EchoHandler, gate, handler, serving, until } from "./serving.ts";

const SERVERS: { [transport in Adapter["transport"]]: { [mode: string]: typeof TCPServer } } = {
  tcp: { sequential: TCPServer, async: AsyncTCPServer },
  unix: { sequential: UnixStreamServer, async: AsyncUnixStreamServer },
};

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Echoes through a buffer with room for so many bytes. */
const intoHandler = (room: number) =>
  handler(async (conn) => {
    const buffer = new Uint8Array(room);
    for (let size; (size = await conn.readInto(buffer)) !== null;) await conn.write(buffer.subarray(0, size));
  });

for (const adapter of [...adapters, ...tlsAdapters]) {
  for (const [mode, Server] of Object.entries(SERVERS[adapter.transport])) cases(adapter, mode, Server);
}

function cases(adapter: Adapter, mode: string, Server: typeof TCPServer): void {
  const { runtime, transport, name } = adapter;
  const it = (what: string, body: () => Promise<void>) => void test(`${runtime.name} ${name} ${mode}: ${what}`, body);
  /** Whether `abort()` reaches the peer as a reset. Memory has that on Unix sockets too. */
  const resetsPeer = transport === "tcp" || runtime.name === "memory";
  const resets = runtime.capabilities.reset && resetsPeer;

  it("what is sent comes back", () =>
    serving(adapter, Server, EchoHandler, async (server) => {
      const client = await adapter.open(server);
      for (const text of ["a", "hello\r\n", "x".repeat(1400)]) {
        await client.write(text);
        assertEquals(await client.read(text.length), text);
      }
    }));

  const ways: [string, RequestHandlerClass][] = [
    ["", EchoHandler],
    ["forEach: ", handler((conn) => conn.forEach((chunk) => conn.write(chunk)))],
    ...[999, 65_536].map((room): [string, RequestHandlerClass] => [`readInto ${room} bytes: `, intoHandler(room)]),
  ];
  for (const [way, Handler] of ways) {
    it(`${way}8 MiB come back byte for byte, and the end after them`, () =>
      serving(adapter, Server, Handler, async (server) => {
        const client = await adapter.open(server);
        const sent = new Uint8Array(8 << 20).map((_, i) => (i * 31 + (i >> 8)) & 255);
        const received = client.readAll();
        await client.write(sent);
        await client.end();
        assertEquals(Buffer.compare(await received, sent), 0);
        assertEquals(server.errors, []);
      }));
  }

  it("a chunk is a Uint8Array that the handler may keep and change", async () => {
    const chunks: Uint8Array[] = [];
    const Handler = handler(async (conn) => {
      for await (const chunk of conn) {
        const copy = new Uint8Array(chunk);
        chunks.push(chunk);
        chunk.fill(chunks.length);
        await conn.write(copy);
      }
    });
    // A runtime may choose what it reads into by what came before: larger and smaller, and often the same.
    const lengths = [3, 3, 1024, 1024, 300, 1024, 5000, 5000, 20_000, 20_000, 20_000, 65_536, 65_536, 100, 9000, 100, 1, 1024, 3];
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      for (const [i, length] of lengths.entries()) {
        const text = String.fromCharCode(97 + i).repeat(length);
        await client.write(text);
        assertEquals(await client.read(length), text);
      }
    });
    for (const [i, chunk] of chunks.entries()) {
      assert(chunk.every((byte) => byte === (i + 1) % 256), `chunk ${i} has others' bytes`);
      assert(chunk.buffer.byteLength <= Math.max(1024, chunk.length * 8), `chunk ${i} keeps a large buffer`);
    }
  });

  it("forEach: the next chunk waits for the promise of the one before", async () => {
    const steps: string[] = [];
    const begun = gate<Connection>();
    const open = gate();
    const Handler = handler((conn) => {
      // Someone who waits for this makes Deno read ahead, so that the second chunk is seen to have come.
      void conn.signal;
      return conn.forEach(async (chunk) => {
        const text = new TextDecoder().decode(chunk);
        steps.push(`begins ${text}`);
        begun.resolve(conn);
        await open.promise;
        steps.push(`ends ${text}`);
        await conn.write(chunk);
      });
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("a");
      const conn = await begun.promise;
      await client.write("b");
      await until(() => conn.bytesRead === 2);
      assertEquals(steps, ["begins a"]);
      open.resolve();
      assertEquals(await client.read(2), "ab");
    });
    assertEquals(steps, ["begins a", "ends a", "begins b", "ends b"]);
  });

  it("forEach: what the callback throws is its rejection, and the connection goes on", async () => {
    const failures: unknown[] = [];
    const Handler = handler(async (conn) => {
      for (const fail of [() => Promise.reject(new Error("later")), () => assert(false, "at once")]) {
        await conn.write("next");
        await conn.forEach(fail).catch((error) => failures.push(error.message));
      }
      const chunk = await conn.read();
      await conn.write(chunk!);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      for (const text of ["one", "two"]) {
        assertEquals(await client.read(4), "next");
        await client.write(text);
      }
      await until(() => failures.length === 2);
      await client.write("three");
      assertEquals(await client.read(5), "three");
    });
    assertEquals(failures, ["later", "at once"]);
  });

  it("forEach: closing and timing out end it, and a second reader is turned away", async () => {
    const codes: string[] = [];
    const Handler = handler(async (conn) => {
      const noted = (error: unknown) => void codes.push(error instanceof SocketError ? error.code : (error as Error).name);
      conn.timeout = 20;
      await conn.forEach(() => {}).catch(noted);
      conn.timeout = 0;
      assertEquals(new TextDecoder().decode((await conn.read())!), "here");
      const waiting = conn.forEach(() => {});
      await conn.read().catch(noted);
      conn.abort();
      await waiting.catch(noted);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await until(() => codes.length === 1);
      await client.write("here");
      await until(() => codes.length === 3);
    });
    assertEquals(codes, ["ETIMEDOUT", "TypeError", "ECONNABORTED"]);
  });

  it("readInto: it fills no more than the buffer, and what is left comes first, whoever reads next", async () => {
    const Handler = handler(async (conn) => {
      const memory = new Uint8Array(8).fill(46);
      const first = await conn.readInto(memory.subarray(2, 5));
      await conn.write(`${first} ${text(memory)} `);
      await conn.readInto(memory.subarray(7));
      await conn.write(`${text(memory)} `);
      await conn.write(text((await conn.read())!));
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("abcdefgh");
      await client.end();
      assertEquals(text(await client.readAll()), "3 ..abc... ..abc..d efgh");
    });
  });

  it("readInto: reads that nobody has awaited are in order, or turned away", async () => {
    let got = "";
    const Handler = handler(async (conn) => {
      const buffers = [1, 2, 2].map((size) => new Uint8Array(size));
      const note = (buffer: Uint8Array, size: number | null) => got += text(buffer.subarray(0, size ?? 0));
      note(buffers[0]!, await conn.readInto(buffers[0]!));
      const reading = Promise.allSettled(buffers.slice(1).map((buffer) => conn.readInto(buffer)));
      await conn.write("more");
      (await reading).forEach((read, i) => {
        if (read.status === "fulfilled") note(buffers[i + 1]!, read.value);
        else assertInstanceOf(read.reason, TypeError);
      });
      for await (const chunk of conn) got += text(chunk);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("abcd");
      assertEquals(await client.read(4), "more");
      await client.write("efgh");
      await client.end();
      await client.readAll();
      assertEquals(server.errors, []);
    });
    assertEquals(got, "abcdefgh");
  });

  it("readInto: after a timeout the buffer is left alone, and nothing is lost", async () => {
    const reads: unknown[] = [];
    const timedOut = gate();
    const buffer = new Uint8Array(4);
    const Handler = handler(async (conn) => {
      conn.timeout = 20;
      await conn.readInto(buffer).catch(({ code }) => reads.push(code));
      timedOut.resolve();
      conn.timeout = 0;
      await until(() => conn.bytesRead > 0);
      reads.push([...buffer]);
      const other = new Uint8Array(2);
      for (let size; (size = await conn.readInto(other)) !== null;) reads.push(text(other.subarray(0, size)));
      reads.push([...buffer]);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await timedOut.promise;
      await client.write("abc");
      await client.end();
      await client.readAll();
    });
    assertEquals(reads, ["ETIMEDOUT", [0, 0, 0, 0], "ab", "c", [0, 0, 0, 0]]);
  });

  it("readInto: a second reader, no room, and what is no buffer are errors; closing ends it", async () => {
    const codes: string[] = [];
    const Handler = handler(async (conn) => {
      const noted = (error: unknown) => void codes.push(error instanceof SocketError ? error.code : (error as Error).name);
      await conn.readInto(new Uint8Array(0)).catch(noted);
      await conn.readInto("buffer" as never).catch(noted);
      const waiting = conn.readInto(new Uint8Array(1));
      await conn.readInto(new Uint8Array(1)).catch(noted);
      void conn.close();
      await waiting.catch(noted);
    });
    await serving(adapter, Server, Handler, async (server) => {
      await adapter.open(server);
      await until(() => codes.length === 4);
    });
    assertEquals(codes, ["RangeError", "TypeError", "TypeError", "ECONNABORTED"]);
  });

  it("a peer that has ended its side still gets everything", async () => {
    const Handler = handler(async (conn) => {
      let size = 0;
      for await (const chunk of conn) size += chunk.length;
      await conn.write(`got ${size}`);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("12345");
      await client.end();
      assertEquals(new TextDecoder().decode(await client.readAll()), "got 5");
    });
  });

  it("a server that has ended its side still reads", async () => {
    const heard = gate<string>();
    const Handler = handler(async (conn) => {
      await conn.write("bye");
      await conn.closeWrite();
      await conn.closeWrite();
      const error = await assertRejects(async () => await conn.write("more"), SocketError);
      assertEquals(error.code, "EPIPE");
      const chunk = await conn.read();
      heard.resolve(new TextDecoder().decode(chunk!));
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      assertEquals(new TextDecoder().decode(await client.readAll()), "bye");
      await client.write("still here");
      assertEquals(await heard.promise, "still here");
      await client.end();
      assertEquals(server.errors, []);
    });
  });

  it("what a handler writes is seen at once", async () => {
    const seen = gate();
    const Handler = handler(async (conn) => {
      await conn.write("now");
      await seen.promise;
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      assertEquals(await client.read(3), "now");
      seen.resolve();
      await client.end();
      assertEquals(await client.gone, null);
    });
  });

  it("writes that nobody awaits arrive whole and in order, also when the handler ends at once", async () => {
    const piece = new Uint8Array(300_000);
    const Handler = handler((conn) => {
      for (let i = 0; i < 20; i++) void conn.write(piece.slice().fill(i));
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      const received = await client.readAll();
      assertEquals(received.length, 20 * piece.length);
      for (let i = 0; i < 20; i++) {
        assertEquals(received[i * piece.length], i);
        assertEquals(received[(i + 1) * piece.length - 1], i);
      }
    });
  });

  it("both ends know each other's address", async () => {
    const seen = gate<unknown[]>();
    const Handler = handler((conn, self) => seen.resolve([conn.remoteAddress, self.clientAddress, conn.localAddress]));
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      const peer = transport === "tcp" ? { transport, hostname: "127.0.0.1", port: client.port } : { transport, path: "" };
      // A client that has bound no name has no address that a server could tell it by.
      const { tls: _, ...local } = server.serverAddress as InetAddress;
      assertEquals(await seen.promise, [peer, transport === "tcp" ? peer : null, local]);
      await client.end();
    });
  });

  it("setup, handle, finish; finish also when one of them throws, and then the next request", async () => {
    const steps: string[] = [];
    let failing = "";
    class Handler extends BaseRequestHandler {
      step(name: string): void {
        steps.push(name);
        if (failing === name) throw new Error(`in ${name}`);
      }
      override setup(): void {
        this.step("setup");
      }
      override async handle(): Promise<void> {
        await this.request.write("x");
        this.step("handle");
      }
      override finish(): void {
        this.step("finish");
      }
    }
    await serving(adapter, Server, Handler, async (server) => {
      for (
        const [name, expected] of [["", "setup handle finish"], ["setup", "setup finish"], ["handle", "setup handle finish"], [
          "finish",
          "setup handle finish",
        ]] as const
      ) {
        failing = name;
        steps.length = 0;
        server.errors.length = 0;
        const client = await adapter.open(server);
        await client.readAll();
        await client.end();
        await until(() => server.activeRequests.size === 0);
        assertEquals(steps.join(" "), expected);
        assertEquals(server.errors.map((error) => (error as Error).message), name === "" ? [] : [`in ${name}`]);
      }
      assertEquals(server.stats.errors, 3);
    });
  });

  it("an error of handle and one of finish are both reported", async () => {
    class Handler extends BaseRequestHandler {
      override handle(): void {
        throw new Error("first");
      }
      override finish(): Promise<void> {
        return Promise.reject(new Error("second"));
      }
    }
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.readAll();
      await until(() => server.errors.length > 0);
      assertInstanceOf(server.errors[0], AggregateError);
      assertEquals(server.errors[0].errors.map((error) => error.message), ["first", "second"]);
      await client.end();
    });
  });

  it("a request that verifyRequest turns away is shut down and not handled", async () => {
    const calls: string[] = [];
    class Strict extends Server {
      override verifyRequest(): boolean {
        return false;
      }
      override shutdownRequest(request: Connection): void | Promise<void> {
        calls.push("shutdownRequest");
        return super.shutdownRequest(request);
      }
    }
    await serving(adapter, Strict as typeof TCPServer, handler(() => void calls.push("handle")), async (server) => {
      const client = await adapter.open(server);
      assertEquals((await client.readAll()).length, 0);
      await until(() => server.activeRequests.size === 0);
      assertEquals(calls, ["shutdownRequest"]);
      assertEquals(server.stats.rejected, 1);
      await client.end();
    });
  });

  // A Unix socket has no reset: see below for what takes its place.
  const itResets = resetsPeer ? it : () => {};
  itResets(
    "a peer that resets ends its own request, with ECONNRESET, and harms nobody",
    () =>
      serving(adapter, Server, EchoHandler, async (server) => {
        for (let i = 0; i < 10; i++) {
          const client = await adapter.open(server);
          await client.write("x");
          await client.read(1);
          client.reset();
          await until(() => server.errors.length === i + 1);
        }
        for (const error of server.errors) {
          assertInstanceOf(error, SocketError);
          assertEquals(error.code, "ECONNRESET");
        }
        const client = await adapter.open(server);
        await client.write("alive");
        assertEquals(await client.read(5), "alive");
      }),
  );

  if (!resetsPeer) {
    it("a peer that is gone is the end of the stream for who reads, and EPIPE for who writes, and harms nobody", () => {
      const Handler = handler(async (conn) => {
        const chunks: unknown[] = [await conn.read(), await conn.read()];
        assertEquals(chunks.length, 2);
        for (;;) await conn.write("x");
      });
      return serving(adapter, Server, Handler, async (server) => {
        for (let i = 0; i < 10; i++) {
          const client = await adapter.open(server);
          await client.write("x");
          client.reset();
          await until(() => server.errors.length === i + 1);
        }
        for (const error of server.errors) assertEquals((error as SocketError).code, "EPIPE");
      });
    });
  }

  itResets("the signal and closed tell of a lost peer also while nobody reads", async () => {
    const watching = gate();
    const reasons: unknown[] = [];
    const Handler = handler(async (conn) => {
      await conn.read();
      const { signal } = conn;
      const lost = new Promise((resolve) => signal.addEventListener("abort", resolve));
      watching.resolve();
      await Promise.all([lost, conn.closed]);
      reasons.push(signal.reason, conn.error);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("x");
      await watching.promise;
      client.reset();
      await until(() => reasons.length === 2);
      assertEquals(reasons.map((reason) => (reason as SocketError).code), ["ECONNRESET", "ECONNRESET"]);
    });
  });

  it("text of any length is sent as UTF-8 between bytes, as it was written, and counted in bytes", async () => {
    const written = gate<number>();
    // More in all than any buffer on the way takes, so that some of it has to wait; a lone surrogate has no UTF-8.
    const texts = ["a", "", "\u{1f600} и так далее ", "x".repeat(1500), "é\n".repeat(3000), "\ud800!", "…".repeat(200_000)];
    const parts = Array.from({ length: 60 }, (_, i) => i % 5 === 4 ? new Uint8Array(i) : texts[i % texts.length]!);
    const expected = Buffer.concat(
      parts.map((part) => new TextEncoder().encode(typeof part === "string" ? part : "\0".repeat(part.length))),
    );
    const Handler = handler(async (conn) => {
      await conn.read();
      const pending = parts.map((part) => conn.write(part));
      await Promise.all(pending);
      written.resolve(conn.bytesWritten);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("go");
      assertEquals(Buffer.compare(await client.readAll(), expected), 0);
      assertEquals(await written.promise, expected.length);
      assertEquals(server.errors, []);
    });
  });

  it("close({ linger }): a peer that is still sending gets what was written, and is not reset", async () => {
    const Handler = handler(async (conn) => {
      await conn.read();
      await conn.write("refused");
      await conn.close({ linger: 60_000 });
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      const received = client.readAll();
      await client.write(new Uint8Array(8 << 20));
      await client.end();
      assertEquals(new TextDecoder().decode(await received), "refused");
      assertEquals(await client.gone, null);
      assertEquals(server.errors, []);
    });
  });

  for (
    const [when, end] of [
      ["when its time is up", (conn: Connection) => conn.close({ linger: 20 })],
      ["when it is closed again", (conn: Connection) => (conn.close({ linger: 60_000 }), conn.close())],
    ] as const
  ) {
    it(`close({ linger }): the connection of a peer that does not end its side is closed ${when}`, async () => {
      const closed = gate();
      const Handler = handler(async (conn) => {
        assertThrows(() => conn.close({ linger: -1 }), RangeError, "linger");
        await conn.write("bye");
        await end(conn);
        closed.resolve();
      });
      await serving(adapter, Server, Handler, async (server) => {
        const client = await adapter.open(server);
        assertEquals(await client.read(3), "bye");
        await closed.promise;
        assertEquals(server.errors, []);
      });
    });
  }

  it("a handler may return what is no promise", () =>
    serving(adapter, Server, handler((() => 1) as never), async (server) => {
      assertEquals((await (await adapter.open(server)).readAll()).length, 0);
      assertEquals(server.errors, []);
    }));

  it("the signal fires when the connection is closed here, and nothing is lost to watching", async () => {
    const done = gate<string>();
    const Handler = handler(async (conn) => {
      const { signal } = conn;
      assert(!signal.aborted);
      let text = "";
      for await (const chunk of conn) text += new TextDecoder().decode(chunk);
      await conn.close();
      assertEquals((signal.reason as SocketError).code, "ECONNABORTED");
      assertEquals(conn.error, null);
      done.resolve(text);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("first ");
      await client.write("second");
      await client.end();
      assertEquals(await done.promise, "first second");
    });
  });

  it("a read and a write that wait when the connection is aborted reject, and so does all that comes later", async () => {
    const codes = gate<string[]>();
    const Handler = handler(async (conn) => {
      const found: string[] = [];
      const note = (error: unknown) => void found.push((error as SocketError).code);
      const read = conn.read().catch(note);
      // More than any buffer on the way takes.
      const write = (async () => {
        for (;;) await conn.write(new Uint8Array(1 << 20));
      })().catch(note);
      await conn.read().catch((error) => assertInstanceOf(error, TypeError));
      await new Promise((resolve) => setTimeout(resolve, 20));
      conn.abort();
      conn.abort();
      await Promise.all([read, write]);
      await conn.read().catch(note);
      await conn.closeWrite().catch(note);
      await Promise.resolve(conn.write("x")).catch(note);
      await conn.close();
      await conn.closed;
      codes.resolve(found);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.connect(server);
      assertEquals(await codes.promise, Array(5).fill("ECONNABORTED"));
      client.abort();
    });
  });

  it("abort() while the end is on its way closes the socket: what the peer goes on to send is refused", async () => {
    const Handler = handler(async (conn) => {
      await conn.read();
      const end = conn.closeWrite().catch(() => {});
      conn.abort();
      await end;
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      // A socket that stays open takes what its buffers hold and then nothing, so this would never end.
      while (await client.write(new Uint8Array(1 << 16)).then(() => true, () => false));
      await client.gone;
    });
  });

  it("a peer that never reads is noticed by back-pressure, and times out", async () => {
    const outcome = gate<{ taken: number; code: string }>();
    const Handler = handler(async (conn) => {
      conn.timeout = 100;
      let taken = 0;
      try {
        for (;; taken += 1 << 16) await conn.write(new Uint8Array(1 << 16));
      } catch (error) {
        conn.abort();
        outcome.resolve({ taken, code: (error as SocketError).code });
      }
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.connect(server);
      const { taken, code } = await outcome.promise;
      assertEquals(code, "ETIMEDOUT");
      assert(taken < 32 << 20, `${taken} bytes were taken`);
      client.abort();
    });
  });

  it("a peer that is not read is stopped", async () => {
    const over = gate();
    await serving(adapter, Server, handler(() => over.promise), async (server) => {
      const client = await adapter.connect(server);
      client.timeout = 100;
      let sent = 0;
      const error = await assertRejects(async () => {
        for (;; sent += 1 << 16) await client.write(new Uint8Array(1 << 16));
      }, SocketError);
      assertEquals(error.code, "ETIMEDOUT");
      // The rest is in the kernel's buffers.
      const taken = server.stats.bytesRead;
      assert(taken <= mostTakenAhead(runtime), `${taken} bytes were taken of ${sent}`);
      client.abort();
      over.resolve();
    });
  });

  it("small segments that nobody reads are merged", async () => {
    // A Unix socket's buffer holds 277 of one byte.
    const bytes = 200;
    const sent = gate();
    const read = gate<{ chunks: number; size: number }>();
    const Handler = handler(async (conn) => {
      await sent.promise;
      let [chunks, size] = [0, 0];
      for (let chunk; size < bytes && (chunk = await conn.read()) !== null; size += chunk.length) chunks++;
      read.resolve({ chunks, size });
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.connect(server);
      client.setNoDelay();
      for (let i = 0; i < bytes; i++) await client.write("x");
      // On Deno nothing is taken ahead, and the kernel merges them.
      if (server.stats.bytesRead > 0) await until(() => server.stats.bytesRead === bytes);
      sent.resolve();
      const { chunks, size } = await read.promise;
      assertEquals(size, bytes);
      assert(chunks <= 10, `${chunks} chunks`);
      client.abort();
    });
  });

  it("writes that nobody awaits arrive as they were written, and their promises resolve once the system has them", async () => {
    const pieces = [1, 40, 1, 3000, 40, 65_536, 1, 1 << 20, 1, 300_000, 5].flatMap((size) => [size, 7, size]);
    const all = new Uint8Array(pieces.reduce((sum, size) => sum + size)).map((_, i) => i * 31 + (i >> 8));
    const Handler = handler(async (conn) => {
      await conn.read();
      const writes: (void | Promise<void>)[] = [];
      let at = 0;
      for (const size of pieces) writes.push(conn.write(all.subarray(at, at += size)));
      await Promise.all(writes);
      // What TLS is given counts a little more or less until it has left.
      if (name === transport) assertEquals(conn.bytesWritten, all.length);
      // These wait for nothing but the end.
      for (let i = 0; i < 100; i++) void conn.write("end");
      void conn.close();
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await client.write("x");
      const received = await client.readAll();
      assertEquals(received.length, all.length + 300);
      assertEquals(Buffer.compare(received.subarray(0, all.length), all), 0);
      assertEquals(server.errors, []);
    });
  });

  it("a read that times out rejects with ETIMEDOUT and loses nothing", async () => {
    const timedOut = gate();
    const Handler = handler(async (conn) => {
      conn.timeout = 20;
      for (let i = 0; i < 2; i++) {
        const error = await assertRejects(() => conn.read(), SocketError);
        assertEquals(error.code, "ETIMEDOUT");
      }
      timedOut.resolve();
      conn.timeout = 0;
      for await (const chunk of conn) await conn.write(chunk);
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await timedOut.promise;
      await client.write("late");
      await client.write(" but whole");
      assertEquals(await client.read(14), "late but whole");
      assertEquals(server.errors, []);
    });
  });

  it("web streams carry the connection in both directions", () =>
    serving(adapter, Server, handler((conn) => conn.readable.pipeTo(conn.writable)), async (server) => {
      const client = await adapter.open(server);
      const sent = "0123456789".repeat(20_000);
      const received = client.readAll();
      await client.write(sent);
      await client.end();
      assertEquals(new TextDecoder().decode(await received), sent);
    }));

  it("a chunk of a web stream has a buffer of its own", async () => {
    const Handler = handler(async (conn) => {
      for await (const chunk of conn.readable) {
        const { byteOffset, buffer, length } = chunk;
        await conn.write(`${byteOffset === 0 && buffer.byteLength === length}`.padEnd(5));
      }
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      for (const size of [1, 1, 100, 3, 1]) {
        await client.write("x".repeat(size));
        assertEquals(await client.read(5), "true ");
      }
    });
  });

  it("rfile and wfile: lines in, a buffered answer out", async () => {
    class Handler extends StreamRequestHandler {
      override wbufsize = 1024;
      override timeout = 5000;
      override async handle(): Promise<void> {
        for await (const line of this.rfile) await this.wfile.write(`<${line}>`);
      }
    }
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      for (const piece of ["one\r", "\ntwo\nthr", "ee\n\nlast"]) await client.write(piece);
      await client.end();
      assertEquals(new TextDecoder().decode(await client.readAll()), "<one><two><three><><last>");
    });
  });

  it("three clients are served, then the server shuts down", () =>
    serving(adapter, Server, EchoHandler, async (server) => {
      for (let i = 0; i < 3; i++) {
        const client = await adapter.open(server);
        await client.write("hello");
        await client.end();
        assertEquals(new TextDecoder().decode(await client.readAll()), "hello");
      }
      await server.shutdown();
      await until(() => server.stats.active === 0);
      assertEquals(server.stats.accepted, 3);
    }));

  it("handleRequest handles one request, and calls handleTimeout when none comes", async () => {
    let timeouts = 0;
    class Patient extends Server {
      override timeout: number | null = 10;
      override handleTimeout(): void {
        timeouts++;
      }
    }
    const server = new Patient(adapter.freshAddress(), handler((conn) => conn.write("one")), adapter.options);
    await server.handleRequest();
    assertEquals(timeouts, 1);
    server.timeout = null;
    const handled = server.handleRequest();
    const client = await adapter.open(server);
    assertEquals(new TextDecoder().decode(await client.readAll()), "one");
    await handled;
    await client.end();
    assertEquals(server.stats.accepted, 1);
    await server.serverClose();
  });

  it("shutdown before, during and twice around serveForever makes it return", async () => {
    const server = new Server(adapter.freshAddress(), EchoHandler, adapter.options);
    await server.shutdown();
    await server.serveForever();
    const served = server.serveForever();
    await Promise.all([server.shutdown(), server.shutdown()]);
    await served;
    const again = server.serveForever();
    await assertRejects(() => server.serveForever(), Error, "serving already");
    const client = await adapter.open(server);
    await client.write("x");
    assertEquals(await client.read(1), "x");
    await client.end();
    await client.readAll();
    await server.shutdown();
    await again;
    const controller = new AbortController();
    const signalled = server.serveForever({ signal: controller.signal });
    controller.abort();
    await signalled;
    await server.serveForever({ signal: AbortSignal.abort() });
    await server.serverClose();
    await server.serverClose();
  });

  it("twenty servers in a row shut down while they start", async () => {
    for (let i = 0; i < 20; i++) {
      const server = new Server(adapter.freshAddress(), EchoHandler, adapter.options);
      const served = server.serveForever();
      await server.shutdown();
      await served;
      await server.serverClose();
    }
  });

  it("serverClose frees the port for the next activate, also with a client connected", async () => {
    const server = new Server(adapter.freshAddress(), EchoHandler, { ...adapter.options, shutdownTimeout: 0 });
    await server.serverClose();
    await server.activate();
    const address = server.serverAddress;
    for (let i = 0; i < 3; i++) {
      const served = server.serveForever();
      const client = await adapter.open(server);
      await client.write("x");
      assertEquals(await client.read(1), "x");
      await server.serverClose();
      await served;
      await ending(client);
      await server.activate();
      assertEquals(server.serverAddress, address);
    }
    await server[Symbol.asyncDispose]();
  });

  it("a handler's SystemExit ends serveForever and is not handled", async () => {
    const server = new Server(adapter.freshAddress(), handler(() => Promise.reject(new SystemExit(3))), adapter.options);
    server.handleError = () => assert(false, "handleError was called");
    const rejected = assertRejects(() => server.serveForever(), SystemExit);
    await server.activate();
    const client = await adapter.open(server);
    const exit = await rejected;
    assertEquals(exit.exitCode, 3);
    await client.readAll();
    await client.end();
    await server.serverClose();
  });

  it("what handleError throws ends serveForever", async () => {
    const server = new Server(adapter.freshAddress(), handler(() => Promise.reject(new Error("boom"))), adapter.options);
    server.handleError = (_request, _address, error) => Promise.reject(error);
    await server.activate();
    const rejected = assertRejects(() => server.serveForever(), Error, "boom");
    const client = await adapter.open(server);
    await rejected;
    await client.readAll();
    await client.end();
    await server.serverClose();
  });

  it("drain gives requests time to finish, then aborts them; a handler that ignores it holds nothing up", async () => {
    const started = gate();
    const never = new Promise<void>(() => {});
    const Handler = handler(async (conn) => {
      await conn.write("started");
      started.resolve();
      await never;
    });
    await serving(adapter, Server, Handler, async (server) => {
      const client = await adapter.open(server);
      await started.promise;
      await server.shutdown({ drain: 10 });
      assertEquals(await ending(client), resets ? "ECONNRESET" : null);
    });
    const release = gate();
    const Polite = handler(async (conn) => {
      await conn.read();
      await release.promise;
      await conn.write("finished");
    });
    await serving(adapter, Server, Polite, async (server) => {
      const client = await adapter.open(server);
      await client.write("x");
      await until(() => server.stats.active === 1);
      const down = server.shutdown({ drain: 30_000 });
      release.resolve();
      assertEquals(new TextDecoder().decode(await client.readAll()), "finished");
      await down;
      assertEquals(server.stats.active, 0);
      await client.end();
    });
  });

  it(
    mode === "async" ? "a request does not wait for another" : "a request is not begun before the last is finished",
    async () => {
      const begun: number[] = [];
      const first = gate();
      const Handler = handler(async (conn) => {
        const number = begun.push(begun.length);
        if (number === 1) await first.promise;
        await conn.write(`answer ${number}`);
      });
      await serving(adapter, Server, Handler, async (server) => {
        const one = await adapter.open(server);
        await until(() => begun.length === 1);
        const two = await adapter.open(server);
        if (mode === "async") {
          assertEquals(new TextDecoder().decode(await two.readAll()), "answer 2");
          await until(() => server.activeRequests.size === 1);
          first.resolve();
        } else {
          await two.write("waiting");
          assertEquals([begun.length, server.activeRequests.size], [1, 1]);
          first.resolve();
          assertEquals(new TextDecoder().decode(await two.readAll()), "answer 2");
        }
        assertEquals(new TextDecoder().decode(await one.readAll()), "answer 1");
        await Promise.all([one.end(), two.end()]);
      });
    },
  );

  it("no peer is lost silently when more wait than the queue takes", async () => {
    const first = gate();
    const Handler = handler(async (conn) => {
      await first.promise;
      await conn.write("answer");
    });
    await serving(adapter, Server, Handler, async (server) => {
      const opening = Array.from({ length: 12 }, () => adapter.open(server).catch((error) => error as Error));
      // With TLS, those that the queue has no room for wait for their handshake.
      if (adapter.options.tls === undefined) await Promise.all(opening);
      else await until(() => server.activeRequests.size > 0);
      const outcomes = opening.map(async (open) => {
        const client = await open;
        if (client instanceof Error) return "refused";
        const [answer] = await Promise.all([client.readAll(), client.end().catch(() => {})]);
        return answer.length > 0 ? "answered" : await client.gone;
      });
      first.resolve();
      const counts = { answered: 0, refused: 0 };
      for (const outcome of await Promise.all(outcomes)) counts[outcome === "answered" ? "answered" : "refused"]++;
      assertEquals(counts.answered, server.stats.accepted);
      // Where the kernel keeps the queue, those beyond it wait in connect(2) and are answered too.
      assertEquals(counts.refused, server.stats.refused);
    }, { requestQueueSize: 4 });
  });

  it("a hundred clients at once", () =>
    serving(adapter, Server, EchoHandler, async (server) => {
      const sizes = await Promise.all(Array.from({ length: 100 }, async (_, i) => {
        const client = await adapter.open(server);
        const text = `client ${i} `.repeat(100);
        await client.write(text);
        await client.end();
        assertEquals(new TextDecoder().decode(await client.readAll()), text);
        return text.length;
      }));
      await until(() => server.activeRequests.size === 0);
      const { accepted, active, rejected, aborted, errors, refused, bytesRead, bytesWritten } = server.stats;
      assertEquals(
        { accepted, active, rejected, aborted, errors, refused },
        { accepted: 100, active: 0, rejected: 0, aborted: 0, errors: 0, refused: 0 },
      );
      const sum = sizes.reduce((sum, size) => sum + size);
      assertEquals([bytesRead, bytesWritten], [sum, sum]);
    }));
}

/** Reads to the end, answers it, and says what the connection died of. */
async function ending(client: Client): Promise<string | null> {
  await client.readAll();
  await client.end().catch(() => {});
  return client.gone;
}

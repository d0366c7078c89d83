/** What a datagram server promises, over UDP and Unix datagrams, on every adapter, one at a time and concurrently. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Address,
  AsyncUDPServer,
  AsyncUnixDatagramServer,
  BaseRequestHandler,
  bind,
  connect,
  Datagram,
  DatagramRequestHandler,
  formatAddress,
  getRuntime,
  parseAddress,
  type RequestHandlerClass,
  type Runtime,
  SocketError,
  SystemExit,
  UDPServer,
  type UDPServerOptions,
  UnixDatagramServer,
  UnsupportedError,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { freshPath } from "./adapters.ts";
import { type DatagramClient, openDatagramClient, PerlClient, UdpClient } from "./datagram_clients.ts";
import { gate, until } from "./serving.ts";

type Transport = "udp" | "unixgram";

const SERVERS = {
  udp: { sequential: UDPServer, async: AsyncUDPServer },
  unixgram: { sequential: UnixDatagramServer, async: AsyncUnixDatagramServer },
};

for (const runtime of [getRuntime(), memory]) {
  for (const transport of ["udp", "unixgram"] as const) {
    for (const mode of ["sequential", "async"] as const) {
      const { unixDatagram } = runtime.capabilities;
      if (transport === "udp" || unixDatagram === true) cases(runtime, transport, mode);
      else unsupported(runtime, mode, unixDatagram);
    }
  }
}

/** A server class that keeps its errors instead of printing them. */
interface Quiet {
  errors: unknown[];
}

class EchoHandler extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    return this.request.reply(this.request.data);
  }
}

function handler(handle: (datagram: Datagram) => void | Promise<void>): RequestHandlerClass<Datagram> {
  return class extends BaseRequestHandler<Datagram> {
    override handle(): void | Promise<void> {
      return handle(this.request);
    }
  };
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function unsupported(runtime: Runtime, mode: "sequential" | "async", reason: string): void {
  test(`${runtime.name} unixgram ${mode}: an error says what would make it work, before anything is bound`, async () => {
    const Server = SERVERS.unixgram[mode];
    const server = new Server(`unixgram:${freshPath()}`, EchoHandler, { runtime });
    const error = await assertRejects(() => server.activate(), UnsupportedError);
    assert(error.message.includes(reason) && reason.includes("Node 26"), error.message);
    await assertRejects(() => bind("unixgram:", { runtime }), UnsupportedError);
    await server.serverClose();
  });
}

function cases(runtime: Runtime, transport: Transport, mode: "sequential" | "async"): void {
  const Server = SERVERS[transport][mode] as typeof UDPServer;
  const native = runtime.name !== "memory";
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport} ${mode}: ${name}`, body);
  const freshAddress = () => transport === "udp" ? "udp://127.0.0.1:0" : `unixgram:${freshPath()}`;

  /** Serves while `use` runs, with a client; closes both whatever happens. */
  async function serving(
    Handler: RequestHandlerClass<Datagram>,
    use: (server: UDPServer & Quiet, client: DatagramClient) => Promise<void>,
    options: UDPServerOptions = {},
    address: string | Address = freshAddress(),
  ): Promise<void> {
    class Quieted extends Server {
      errors: unknown[] = [];
      override handleError(_request: unknown, _clientAddress: unknown, error: unknown): void {
        this.errors.push(error);
      }
    }
    const server = new Quieted(address, Handler, { runtime, ...options });
    await server.activate();
    const served = server.serveForever();
    const client = await openDatagramClient(server as unknown as UDPServer);
    try {
      await use(server as unknown as UDPServer & Quiet, client);
    } finally {
      await client.close();
      await server.shutdown({ drain: 0 });
      await server.serverClose();
      await served;
    }
  }

  it("a handler may return what is no promise", () =>
    serving(handler(((datagram: Datagram) => datagram.reply("done") ?? 1) as never), async (server, client) => {
      await client.send("a");
      assertEquals(text((await client.receive()).data), "done");
      assertEquals(server.errors, []);
    }));

  it("datagrams of every size come back whole, from the server's own address", () =>
    serving(EchoHandler, async (server, client) => {
      for (const size of [0, 1, 1400, 8192, 65_507]) {
        const sent = new Uint8Array(size).map((_, i) => i * 31 + (i >> 8));
        await client.send(sent);
        const { data, from } = await client.receive();
        assertEquals(data.length, size);
        assertEquals(Buffer.compare(data, sent), 0);
        assertEquals(from, formatAddress(server.serverAddress));
      }
      assertEquals(server.errors, []);
      assertEquals(server.stats.truncated, 0);
    }, { maxPacketSize: 65_507 }));

  it("datagrams and their bytes are counted both ways, for as long as the server is there", async () => {
    let server!: UDPServer;
    const counts = () => {
      const { accepted, bytesRead, bytesWritten, datagramsSent, requestTime, ended } = server.stats;
      // One in 16 is timed and counts for 16.
      assertEquals(requestTime.count, Math.ceil(accepted / 16) * 16);
      assertEquals(Object.values(ended).every((count) => count === 0), true);
      return { accepted, bytesRead, bytesWritten, datagramsSent };
    };
    const twice = handler(async (datagram) => {
      if (datagram.data.length === 100) return;
      await datagram.reply(datagram.data);
      await datagram.reply("and again");
    });
    await serving(twice, async (running, client) => {
      server = running;
      for (let size = 1; size <= 100; size++) {
        await client.send(new Uint8Array(size));
        if (size < 100) { for (let i = 0; i < 2; i++) await client.receive(); }
      }
      await until(() => server.stats.accepted === 100 && server.stats.active === 0);
      assertEquals(counts(), { accepted: 100, bytesRead: 5050, bytesWritten: 4950 + 99 * 9, datagramsSent: 198 });
    });
    assertEquals(counts(), { accepted: 100, bytesRead: 5050, bytesWritten: 4950 + 99 * 9, datagramsSent: 198 });
    // Bound anew, it goes on counting.
    await server.activate();
    assertEquals(counts().datagramsSent, 198);
    await server.serverClose();
  });

  it("what is longer than maxPacketSize is cut there, and the request and the stats say so", async () => {
    const seen: [number, boolean][] = [];
    const Handler = handler((datagram) => {
      seen.push([datagram.data.length, datagram.truncated]);
      return datagram.reply(datagram.data);
    });
    await serving(Handler, async (server, client) => {
      for (const size of [8192, 8193, 20_000]) {
        await client.send(new Uint8Array(size).fill(7));
        assertEquals((await client.receive()).data, new Uint8Array(8192).fill(7));
      }
      assertEquals(seen, [[8192, false], [8192, true], [8192, true]]);
      assertEquals(server.stats.truncated, 2);
    });
  });

  it("a reply may be longer than maxPacketSize, and text or part of a buffer", async () => {
    const bytes = new Uint8Array(60_000).map((_, i) => i * 31 + (i >> 8));
    const replies = new Map<string, Uint8Array | string>([
      ["long", bytes],
      ["part", bytes.subarray(7, 100)],
      ["text", "grüße"],
      ["nothing", ""],
      ["longer", bytes.subarray(1)],
    ]);
    await serving(handler((datagram) => datagram.reply(replies.get(text(datagram.data))!)), async (server, client) => {
      for (const [name, reply] of replies) {
        await client.send(name);
        assertEquals(Buffer.compare((await client.receive()).data, Buffer.from(reply as Uint8Array)), 0, name);
      }
      assertEquals(server.errors, []);
    }, { maxPacketSize: 512 });
  });

  it("a datagram is a Uint8Array that the handler may keep and change", async () => {
    const kept: Uint8Array[] = [];
    const Handler = handler(async (datagram) => {
      const count = kept.push(datagram.data);
      await datagram.reply(new Uint8Array(datagram.data));
      datagram.data.fill(count);
    });
    await serving(Handler, async (_server, client) => {
      for (const sent of ["one", "two"]) {
        await client.send(sent);
        assertEquals(text((await client.receive()).data), sent);
      }
      await until(() => kept[1]?.[0] === 2);
      assertEquals(kept.map((data) => [data.constructor, ...data]), [[Uint8Array, 1, 1, 1], [Uint8Array, 2, 2, 2]]);
    });
  });

  it("the handler sees who sent it, and the server's socket", async () => {
    const seen: unknown[] = [];
    class Handler extends BaseRequestHandler<Datagram> {
      override async handle(): Promise<void> {
        const { address, socket } = this.request;
        seen.push(this.clientAddress && formatAddress(this.clientAddress), address === this.clientAddress);
        seen.push(socket === (this.server as unknown as UDPServer).socket, formatAddress(socket.address));
        await socket.send("hello", this.clientAddress!);
      }
    }
    await serving(Handler, async (server, client) => {
      await client.send("x");
      assertEquals(text((await client.receive()).data), "hello");
      assertEquals(seen, [client.address, true, true, formatAddress(server.serverAddress)]);
    });
  });

  it("DatagramRequestHandler: rfile reads the datagram, wfile makes one reply of it, and nothing written sends none", async () => {
    class Handler extends DatagramRequestHandler {
      override async handle(): Promise<void> {
        for await (const line of this.rfile) await this.wfile.write(`<${line}>`);
      }
    }
    await serving(Handler, async (server, client) => {
      await client.send("one\ntwo\r\nlast");
      assertEquals(text((await client.receive()).data), "<one><two><last>");
      await client.send("");
      await client.send("after");
      assertEquals(text((await client.receive()).data), "<after>");
      assertEquals(server.errors, []);
    });
  });

  it("a thousand, none of them lost", () =>
    serving(EchoHandler, async (server, client) => {
      const numbers = new Set<number>();
      let sent = 0;
      const send = () => client.send(new Uint8Array(new Uint32Array([sent++]).buffer));
      // As many on their way at a time as every system's default buffers take.
      while (sent < 8) await send();
      while (numbers.size < sent) {
        numbers.add(new Uint32Array((await client.receive()).data.slice().buffer)[0]!);
        if (sent < 1000) await send();
      }
      assertEquals([numbers.size, server.stats.accepted], [1000, 1000]);
      assertEquals(server.errors, []);
    }));

  if (mode === "async") {
    it("a thousand in progress at once", async () => {
      const open = gate();
      const Handler = handler(async (datagram) => {
        await open.promise;
        await datagram.reply(datagram.data);
      });
      await serving(Handler, async (server, client) => {
        for (let i = 0; i < 1000; i++) {
          await client.send(String(i));
          await until(() => server.stats.accepted === i + 1);
        }
        assertEquals(server.activeRequests.size, 1000);
        open.resolve();
        const replies = new Set<string>();
        // Replies that the client's own buffer has no room for are lost on UDP, and errors of those replies on Unix sockets.
        while (replies.size + server.errors.length < 1000 && (transport === "unixgram" || replies.size < 200)) {
          replies.add(text((await client.receive()).data));
        }
        for (const error of server.errors) assertEquals((error as SocketError).code, "EAGAIN");
      });
    });

    it("maxActiveRequests leaves the others waiting", async () => {
      const open = gate();
      let most = 0;
      let now = 0;
      const Handler = handler(async (datagram) => {
        most = Math.max(most, ++now);
        await open.promise;
        now--;
        await datagram.reply("done");
      });
      await serving(Handler, async (server, client) => {
        for (let i = 0; i < 5; i++) await client.send("x");
        await until(() => server.activeRequests.size === 2);
        open.resolve();
        for (let i = 0; i < 5; i++) assertEquals(text((await client.receive()).data), "done");
        assertEquals(most, 2);
      }, { maxActiveRequests: 2 });
    });
  }

  it(
    mode === "async" ? "a request does not wait for another" : "a request is not begun before the last is finished",
    async () => {
      const first = gate();
      const begun: string[] = [];
      const Handler = handler(async (datagram) => {
        const name = text(datagram.data);
        begun.push(name);
        if (name === "one") await first.promise;
        await datagram.reply(name);
      });
      await serving(Handler, async (server, client) => {
        await client.send("one");
        await until(() => begun.length === 1);
        await client.send("two");
        if (mode === "async") {
          assertEquals(text((await client.receive()).data), "two");
          first.resolve();
          assertEquals(text((await client.receive()).data), "one");
        } else {
          assertEquals([begun, server.activeRequests.size], [["one"], 1]);
          first.resolve();
          assertEquals(text((await client.receive()).data), "one");
          assertEquals(text((await client.receive()).data), "two");
        }
      });
    },
  );

  it("an error of a handler, thrown at once or later, is handled, and the server goes on", async () => {
    const Handler = handler((datagram) => {
      const what = text(datagram.data);
      if (what === "sync") throw new Error("sync");
      if (what === "async") return Promise.reject(new Error("async"));
      return datagram.reply("fine");
    });
    await serving(Handler, async (server, client) => {
      for (const what of ["sync", "async", "x"]) await client.send(what);
      assertEquals(text((await client.receive()).data), "fine");
      await until(() => server.errors.length === 2 && server.stats.active === 0);
      assertEquals(server.errors.map((error) => (error as Error).message), ["sync", "async"]);
      assertEquals([server.stats.errors, server.stats.active], [2, 0]);
    });
  });

  it("a handler's SystemExit ends serveForever", async () => {
    const server = new Server(freshAddress(), handler(() => Promise.reject(new SystemExit(3))), { runtime });
    await server.activate();
    const rejected = assertRejects(() => server.serveForever(), SystemExit);
    const client = await openDatagramClient(server);
    await client.send("x");
    assertEquals((await rejected).exitCode, 3);
    await client.close();
    await server.serverClose();
  });

  it("verifyRequest false turns a datagram away", async () => {
    class Choosy extends Server {
      override verifyRequest(request: Datagram): boolean {
        return text(request.data) === "good";
      }
    }
    const server = new Choosy(freshAddress(), EchoHandler, { runtime });
    await server.activate();
    const served = server.serveForever();
    const client = await openDatagramClient(server);
    await client.send("bad");
    await client.send("good");
    assertEquals(text((await client.receive()).data), "good");
    assertEquals([server.stats.accepted, server.stats.rejected], [2, 1]);
    await client.close();
    await server.serverClose();
    await served;
  });

  it("handleRequest handles one, and calls handleTimeout when none comes", async () => {
    let timeouts = 0;
    class Patient extends Server {
      override timeout: number | null = 10;
      override handleTimeout(): void {
        timeouts++;
      }
    }
    const server = new Patient(freshAddress(), EchoHandler, { runtime });
    await server.handleRequest();
    assertEquals(timeouts, 1);
    server.timeout = null;
    const client = await openDatagramClient(server);
    for (const sent of ["one", "two"]) {
      const handled = server.handleRequest();
      await client.send(sent);
      await handled;
      assertEquals(text((await client.receive()).data), sent);
    }
    await client.close();
    await server.serverClose();
  });

  it("shutdown before, during and twice around serveForever makes it return; what comes meanwhile waits", async () => {
    const server = new Server(freshAddress(), EchoHandler, { runtime });
    await server.shutdown();
    await server.serveForever();
    const served = server.serveForever();
    await Promise.all([server.shutdown(), server.shutdown()]);
    await served;
    await server.activate();
    const client = await openDatagramClient(server);
    await client.send("waits");
    const again = server.serveForever();
    assertEquals(text((await client.receive()).data), "waits");
    await server.shutdown();
    await again;
    await client.close();
    await server.serverClose();
    await server.serverClose();
  });

  it("serverClose frees the address for the next activate, and another server's while it is taken is EADDRINUSE", async () => {
    const server = new Server(freshAddress(), EchoHandler, { runtime });
    await server.activate();
    const address = server.serverAddress;
    for (let i = 0; i < 3; i++) {
      const second = new Server(address, EchoHandler, { runtime });
      assertEquals((await assertRejects(() => second.activate(), SocketError)).code, "EADDRINUSE");
      const served = server.serveForever();
      const client = await openDatagramClient(server);
      await client.send("x");
      await client.receive();
      await client.close();
      await server.serverClose();
      await served;
      await server.activate();
      assertEquals(server.serverAddress, address);
    }
    await server.serverClose();
  });

  it("serverClose lets the replies of requests in progress leave, those that nobody awaits too, and handles no others", async () => {
    const release = gate();
    const begun: string[] = [];
    class Handler extends BaseRequestHandler<Datagram> {
      override async handle(): Promise<void> {
        begun.push(text(this.request.data));
        await release.promise;
        void this.request.reply("reply");
        await (this.server as unknown as UDPServer).socket!.send("socket", this.clientAddress!);
      }
      override finish(): void {
        void this.request.reply("finish");
      }
    }
    await serving(Handler, async (server, client) => {
      await client.send("one");
      await until(() => server.activeRequests.size === 1);
      const closing = server.serverClose();
      await client.send("late").catch(() => {});
      release.resolve();
      const answers = [await client.receive(), await client.receive(), await client.receive()].map(({ data }) => text(data));
      assertEquals(answers.sort(), ["finish", "reply", "socket"]);
      await closing;
      assertEquals([server.errors, server.socket, begun], [[], null, ["one"]]);
      assertEquals(server.stats.accepted, 1);
    });
  });

  it("serverClose after handleRequest and shutdown waits for what they have begun", async () => {
    for (const begin of ["handleRequest", "serveForever"] as const) {
      const release = gate();
      const Handler = handler(async (datagram) => {
        await release.promise;
        await datagram.reply("answer");
      });
      const server = new Server(freshAddress(), Handler, { runtime });
      await server.activate();
      const client = await openDatagramClient(server);
      const served = server[begin]();
      await client.send("x");
      await until(() => server.activeRequests.size === 1);
      if (begin === "serveForever") void server.shutdown();
      const closing = server.serverClose();
      release.resolve();
      assertEquals(text((await client.receive()).data), "answer");
      await Promise.all([served, closing, client.close()]);
    }
  });

  it("serverClose waits for shutdownTimeout at most, and with blockOnClose off not at all; a reply later is ECONNABORTED", async () => {
    for (const options of [{ shutdownTimeout: 10 }, { blockOnClose: false }]) {
      const release = gate();
      const outcome = gate<string>();
      const Handler = handler(async (datagram) => {
        await release.promise;
        await Promise.resolve(datagram.reply("late")).then(() => outcome.resolve("sent"), (error) => outcome.resolve(error.code));
      });
      await serving(Handler, async (server, client) => {
        await client.send("x");
        await until(() => server.activeRequests.size === 1);
        await server.serverClose();
        assertEquals([server.socket, server.stats.aborted], [null, options.blockOnClose === false ? 0 : 1]);
        release.resolve();
        assertEquals(await outcome.promise, "ECONNABORTED");
        assertEquals(server.errors, []);
      }, options);
    }
  });

  it("a reply to a peer that is gone fails, if at all, for that reply alone, also when nobody awaits it", async () => {
    const release = gate();
    const ended = gate();
    const Handler = handler(async (datagram) => {
      if (text(datagram.data) === "fine") return datagram.reply("fine");
      await release.promise;
      // Not awaited: no unhandled rejection comes of it.
      void datagram.reply("lost");
      try {
        await datagram.reply("lost");
      } finally {
        ended.resolve();
      }
    });
    await serving(Handler, async (server, client) => {
      const gone = await openDatagramClient(server);
      await gone.send("x");
      await until(() => server.activeRequests.size === 1);
      await gone.close();
      release.resolve();
      await ended.promise;
      await client.send("fine");
      assertEquals(text((await client.receive()).data), "fine");
      // UDP mostly doesn't notice; ICMP may.
      if (transport === "unixgram") assertEquals(server.errors.map((error) => (error as SocketError).code), ["ENOENT"]);
    });
  });

  if (transport === "udp") {
    it("nobody has port 0: EDESTADDRREQ, which costs nothing but the reply", async () => {
      const Handler = handler(async (datagram) => {
        if (text(datagram.data) === "forged") {
          const address = { transport: "udp", hostname: "127.0.0.1", port: 0 } as const;
          return await new Datagram({ data: datagram.data, address, truncated: false }, datagram.socket).reply("lost");
        }
        await datagram.reply("fine");
      });
      await serving(Handler, async (server, client) => {
        await client.send("forged");
        await client.send("x");
        assertEquals(text((await client.receive()).data), "fine");
        await until(() => server.errors.length === 1);
        const { code, message } = server.errors[0] as SocketError;
        assertEquals(code, "EDESTADDRREQ");
        assert(message.includes("port 0"), message);
        assertEquals(server.stats.datagramsSent, 1);
      });
    });
  }

  it("a reply that is too long is EMSGSIZE", async () => {
    const Handler = handler((datagram) => datagram.reply(new Uint8Array(transport === "udp" ? 65_508 : 1 << 20)));
    await serving(Handler, async (server, client) => {
      await client.send("x");
      await until(() => server.errors.length === 1);
      assertEquals((server.errors[0] as SocketError).code, "EMSGSIZE");
    });
  });

  it("what can't be taken in time waits in a bounded queue, and what is dropped is counted", async () => {
    const open = gate();
    await serving(handler(() => open.promise), async (server, client) => {
      const wait = until(() => server.activeRequests.size === 1);
      await client.send("x");
      await wait;
      // More would fill the kernel's queue of a Unix socket, where the sender waits.
      const refused: unknown[] = [];
      for (let i = 0; i < 8; i++) await client.send("x").catch((error) => refused.push(error));
      open.resolve();
      await until(() => server.stats.accepted + server.stats.dropped + refused.length === 9);
      assertEquals(server.stats.accepted >= 5, true);
    }, { requestQueueSize: 4, maxActiveRequests: 1 });
  });

  if (!native) return;

  if (transport === "unixgram") {
    it("a sender without a name has no clientAddress, and reply says that there is nobody to reply to", async () => {
      const seen: unknown[] = [];
      const Handler = handler((datagram) => {
        seen.push(datagram.address);
        return datagram.reply("x");
      });
      await serving(Handler, async (server) => {
        const anonymous = await PerlClient.open((server.serverAddress as { path: string }).path, null);
        await anonymous.send("x");
        await until(() => server.errors.length === 1);
        assertEquals(seen, [null]);
        const { code, message } = server.errors[0] as SocketError;
        assertEquals(code, "EDESTADDRREQ");
        assert(message.includes("nobody to reply to"));
        await anonymous.close();
      });
    });

    it("a peer whose path is no UTF-8 is known by its bytes, and is answered", async () => {
      await serving(EchoHandler, async (server) => {
        const { path } = server.serverAddress as { path: string };
        const folder = mkdtempSync(`${tmpdir()}/sockets-`);
        const names = [`${folder}/p\udcff\udcfe`, `${folder}/é\udce2\udc82`];
        if (runtime.capabilities.abstractNames === true) names.push(`\0sockets-${crypto.randomUUID()}\udc80\0`);
        for (const name of names) {
          const peer = await PerlClient.open(path, name);
          await peer.send("who");
          assertEquals(text((await peer.receive()).data), "who");
          // Ours answers it too, when told the address.
          const socket = await bind("unixgram:");
          await socket.send("hello", { transport, path: name });
          const { data, from } = await peer.receive();
          assertEquals([text(data), from], ["hello", `unixgram:${(socket.address as { path: string }).path}`]);
          await socket.close();
          await peer.close();
        }
        // Deno's file functions don't take the bytes.
        execFileSync("rm", ["-r", folder]);
      });
    });

    it("binds a path that is no UTF-8 where files can have such names, and removes its file", async () => {
      const folder = mkdtempSync(`${tmpdir()}/sockets-`);
      const list = () => readdirSync(folder, { encoding: "buffer" }).map((name) => Buffer.from(name).toString("latin1"));
      const bytes = Buffer.concat([Buffer.from(`${folder}/s`), Buffer.from([0xff])]);
      writeFileSync(bytes, "");
      const possible = list()[0] === "s\xff";
      execFileSync("rm", ["-r", folder]);
      mkdirSync(folder);
      const address = { transport, path: `${folder}/s\udcff` };
      if (possible) {
        for (let i = 0; i < 2; i++) {
          const socket = await bind(address);
          assertEquals(list(), ["s\xff"]);
          assertEquals((await assertRejects(() => bind(address), SocketError)).code, "EADDRINUSE");
          const client = await PerlClient.open(address.path, freshPath());
          await client.send("hello");
          assertEquals(text((await socket.receive())!.data), "hello");
          await client.close();
          await socket.close();
          assertEquals(list(), []);
          // A stale one is replaced.
          const stale = await PerlClient.open(address.path, address.path);
          process.kill(stale.pid, "SIGKILL");
          await stale.exited;
        }
      } else {
        await assertRejects(() => bind(address), UnsupportedError, "UTF-8");
        assertEquals(list(), []);
      }
      await assertRejects(() => bind({ transport, path: `${folder}/\ud800` }), TypeError, "well-formed");
      await assertRejects(() => connect({ transport: "unix", path: address.path }), UnsupportedError, "UTF-8");
      execFileSync("rm", ["-r", folder]);
    });

    it("a peer whose file nobody has open any more is ECONNREFUSED", async () => {
      const release = gate();
      const Handler = handler(async (datagram) => {
        await release.promise;
        await datagram.reply("x");
      });
      await serving(Handler, async (server) => {
        const { path } = server.serverAddress as { path: string };
        const stale = freshPath();
        const peer = await PerlClient.open(path, stale);
        await peer.send("x");
        await until(() => server.activeRequests.size === 1);
        process.kill(peer.pid, "SIGKILL");
        await peer.exited;
        release.resolve();
        await until(() => server.errors.length === 1);
        assertEquals((server.errors[0] as SocketError).code, "ECONNREFUSED");
        rmSync(stale);
      });
    });

    it("a peer that takes nothing costs its own replies alone", async () => {
      const Handler = handler(async (datagram) => {
        const count = text(datagram.data) === "many" ? 500 : 1;
        for (let i = 0; i < count; i++) await datagram.reply("reply");
      });
      await serving(Handler, async (server, client) => {
        const deaf = await PerlClient.open((server.serverAddress as { path: string }).path, freshPath());
        deaf.quiet();
        await deaf.send("many");
        await until(() => server.errors.length === 1);
        assertEquals((server.errors[0] as SocketError).code, "EAGAIN");
        await client.send("one");
        assertEquals(text((await client.receive()).data), "reply");
        await deaf.close();
      });
    });

    it("of ten thousand in one burst a slow handler loses none and sees them in order", async () => {
      let expected = 0;
      let wrong = 0;
      const Handler = handler(async (datagram) => {
        if (new DataView(datagram.data.buffer).getUint32(0) !== expected++) wrong++;
        if (expected % 1000 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      });
      await serving(Handler, async (server) => {
        const sender = await PerlClient.open((server.serverAddress as { path: string }).path, null);
        assertEquals(await sender.burst(10_000), "sent");
        await until(() => server.stats.accepted === 10_000);
        assertEquals([expected, wrong, server.stats.dropped], [10_000, 0, 0]);
        await sender.close();
      });
    });

    it("abstract names, as server and as client", async () => {
      const name = `\0sockets-${crypto.randomUUID()}`;
      await serving(
        EchoHandler,
        async (server, client) => {
          assertEquals(server.serverAddress, { transport: "unixgram", path: name });
          await client.send("from a file");
          assertEquals(text((await client.receive()).data), "from a file");
          const other = await PerlClient.open(name, `${name}-client`);
          await other.send("from a name");
          assertEquals(await other.receive(), { data: new TextEncoder().encode("from a name"), from: `unixgram:${name}` });
          await other.close();
        },
        {},
        { transport: "unixgram", path: name },
      );
    });
    return;
  }

  it("that an earlier datagram could not be delivered costs none that is sent to somebody else", async () => {
    for (const options of [{}, { receiveBufferSize: 65_536 }]) {
      const gone = await UdpClient.open(1, "127.0.0.1");
      const address = parseAddress(gone.address);
      await gone.close();
      const Handler = handler(async (datagram) => {
        await Promise.resolve(datagram.socket.send("lost", address)).catch(() => {});
        await datagram.reply("reply");
      });
      await serving(Handler, async (server, client) => {
        for (let i = 0; i < 50; i++) {
          await client.send("x");
          assertEquals(text((await client.receive()).data), "reply");
        }
        assertEquals(server.errors, []);
      }, options);
    }
  });

  it("an IPv4 socket can't send to an IPv6 address: EAFNOSUPPORT", async () => {
    for (const options of [{}, { receiveBufferSize: 65_536 }]) {
      const socket = await bind("udp://127.0.0.1:0", { runtime, ...options });
      const error = await assertRejects(async () => await socket.send("x", "udp://[::1]:9"), SocketError);
      assertEquals([error.code, error.syscall], ["EAFNOSUPPORT", "send"]);
      assert(error.message.includes("::1 is an IPv6 address"), error.message);
      await socket.close();
    }
  });

  it("IPv6, and both families on one socket", async () => {
    await serving(
      EchoHandler,
      async (_server, client) => {
        await client.send("six");
        assertEquals(text((await client.receive()).data), "six");
      },
      {},
      "udp://[::1]:0",
    );
    const seen: unknown[] = [];
    const Handler = handler((datagram) => {
      seen.push((datagram.address as { hostname: string }).hostname);
      return datagram.reply("both");
    });
    await serving(
      Handler,
      async (server) => {
        for (const host of ["127.0.0.1", "::1"]) {
          const client = await UdpClient.open((server.serverAddress as { port: number }).port, host);
          await client.send("x");
          assertEquals(text((await client.receive()).data), "both");
          await client.close();
        }
        assertEquals(seen, ["127.0.0.1", "::1"]);
      },
      {},
      "udp://[::]:0",
    );
  });

  it("two servers share a port when both allow it, and a multicast group reaches both", async () => {
    const first = new Server("udp://0.0.0.0:0", EchoHandler, { runtime, allowReuseAddress: true });
    await first.activate();
    const { port } = first.serverAddress as { port: number };
    const second = new Server(`udp://0.0.0.0:${port}`, EchoHandler, { runtime, allowReuseAddress: true });
    await second.activate();
    const servers = [first, second];
    const served = servers.map((server) => server.serveForever());
    for (const { socket } of servers) await socket!.joinMulticast("239.1.2.3", "127.0.0.1");
    const client = await UdpClient.open(port, "127.0.0.1");
    client.socket.setMulticastInterface("127.0.0.1");
    await new Promise<void>((resolve) => client.socket.send("all", port, "239.1.2.3", () => resolve()));
    assertEquals([text((await client.receive()).data), text((await client.receive()).data)], ["all", "all"]);
    await first.socket!.leaveMulticast("239.1.2.3", "127.0.0.1");
    for (const group of ["239.1.2.3", "not a group"]) {
      await assertRejects(() => first.socket!.leaveMulticast(group, "127.0.0.1"), SocketError);
    }
    await assertRejects(() => first.socket!.joinMulticast("10.0.0.1", "127.0.0.1"), SocketError);
    await client.close();
    for (const server of servers) await server.serverClose();
    await Promise.all(served);
  });

  it("a broadcast reaches the server, and is sent where it is allowed", async () => {
    await serving(
      EchoHandler,
      async (server) => {
        const { port } = server.serverAddress as { port: number };
        const to = { transport: "udp", hostname: "127.255.255.255", port } as const;
        const allowed = await bind("udp://127.0.0.1:0", { runtime, broadcast: true });
        await allowed.send("all", to);
        assertEquals(text((await allowed.receive())!.data), "all");
        const plain = await bind("udp://127.0.0.1:0", { runtime });
        const outcome = await Promise.resolve(plain.send("all", to)).then(() => "sent", (error) => error.code);
        assertEquals(outcome, runtime.name === "deno" ? "sent" : "EACCES");
        await Promise.all([allowed.close(), plain.close()]);
      },
      {},
      "udp://0.0.0.0:0",
    );
  });

  it("the kernel's buffers can be set", () =>
    serving(EchoHandler, async (_server, client) => {
      await client.send("x");
      assertEquals(text((await client.receive()).data), "x");
    }, { receiveBufferSize: 100_000, sendBufferSize: 50_000 }));

  it("allowReusePort lets servers share a port, where it can be had", async () => {
    const first = new Server("udp://127.0.0.1:0", EchoHandler, { runtime, allowReusePort: true });
    if (runtime.capabilities.reusePort !== true) return void await assertRejects(() => first.activate(), UnsupportedError);
    await first.activate();
    const second = new Server(first.serverAddress, EchoHandler, { runtime, allowReusePort: true });
    await second.activate();
    assertEquals(second.serverAddress, first.serverAddress);
    await first.serverClose();
    await second.serverClose();
  });
}

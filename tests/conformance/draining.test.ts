/** Stopping without losing anything: draining, signals, suspending. */
import { assert, assertEquals } from "@std/assert";
import {
  AsyncTCPServer,
  AsyncUnixStreamServer,
  getRuntime,
  parseAddress,
  StreamRequestHandler,
  TCPServer,
  UnixStreamServer,
} from "@sockets/server";
import { test } from "node:test";
import { type Adapter, adapters, openSocket } from "./adapters.ts";
import { commandFor } from "./children.ts";
import { EchoHandler, gate, handler, serving, until } from "./serving.ts";
import { Program } from "../interop/programs.ts";

for (const adapter of adapters) {
  const { runtime, transport, open } = adapter;
  const name = `${runtime.name} ${transport}`;
  const [Plain, Async] = transport === "tcp" ? [TCPServer, AsyncTCPServer] : [UnixStreamServer, AsyncUnixStreamServer];

  test(`${name}: a suspended server leaves connections waiting, and goes on with those in progress`, () =>
    serving(adapter, Async as typeof TCPServer, EchoHandler, async (server) => {
      const before = await open(server);
      await before.write("1");
      assertEquals(await before.read(1), "1");

      server.suspend();
      server.suspend();
      assert(server.suspended);
      const meanwhile = await open(server);
      await meanwhile.write("2");
      // An echo on the first connection is later than whatever a server that is not suspended would have done.
      for (let turns = 0; turns < 20; turns++) {
        await before.write("x");
        assertEquals(await before.read(1), "x");
      }
      assertEquals(server.stats.accepted, 1);

      server.resume();
      server.resume();
      assert(!server.suspended);
      assertEquals(await meanwhile.read(1), "2");
    }));

  test(`${name}: a server that is suspended before it serves waits for resume()`, async () => {
    const server = new Async(adapter.freshAddress(), EchoHandler, { runtime });
    await server.activate();
    server.suspend();
    const served = server.serveForever();
    const client = await open(server);
    await client.write("hi");
    server.resume();
    assertEquals(await client.read(2), "hi");
    await client.end();
    await server.shutdown();
    await served;
    await server.serverClose();
  });

  test(`${name}: serverClose() lets what a handler has buffered in wfile leave`, async () => {
    const begun = gate();
    const release = gate();
    class Buffering extends StreamRequestHandler {
      override wbufsize = 4096;
      override async handle(): Promise<void> {
        await this.wfile.write("buffered");
        begun.resolve();
        await release.promise;
      }
    }
    await serving(adapter, Async as typeof TCPServer, Buffering, async (server) => {
      const client = await open(server);
      await begun.promise;
      const closing = server.serverClose();
      release.resolve();
      assertEquals(new TextDecoder().decode(await client.readAll()), "buffered");
      await client.end();
      await closing;
      assertEquals(server.errors, []);
    });
  });

  test(`${name}: a suspended server can be shut down and closed`, () =>
    serving(adapter, Async as typeof TCPServer, EchoHandler, async (server) => {
      server.suspend();
      await server.shutdown({ drain: 1000 });
      await server.serverClose();
    }));

  for (const [mode, Server] of Object.entries({ "one at a time": Plain, "concurrently": Async })) {
    test(`${name}: who is taken from the kernel while the server stops listening is served, ${mode}`, () => {
      const begun = gate();
      const end = gate();
      class Stopping extends (Server as typeof TCPServer) {
        protected override async stopListening(): Promise<void> {
          begun.resolve();
          await end.promise;
          await super.stopListening();
        }
      }
      return serving(adapter, Stopping as typeof TCPServer, EchoHandler, async (server) => {
        const closing = server.serverClose({ drain: 60_000 });
        await begun.promise;
        for (const text of ["one", "two", "three"]) {
          const client = await open(server);
          await client.write(text);
          await client.end();
          assertEquals(new TextDecoder().decode(await client.readAll()), text);
        }
        end.resolve();
        await closing;
        assertEquals(server.stats.accepted, 3);
      });
    });
  }

  test(`${name}: a handler hears by drainSignal that the server drains, and its last words arrive`, () => {
    const begun = gate();
    const Waiting = handler(async (connection, { server }) => {
      const { drainSignal } = server;
      assert(!drainSignal.aborted);
      begun.resolve();
      await new Promise((resolve) => drainSignal.addEventListener("abort", resolve));
      await connection.write("bye");
    });
    return serving(adapter, Async as typeof TCPServer, Waiting, async (server) => {
      const client = await open(server);
      await begun.promise;
      const closing = server.serverClose({ drain: 60_000 });
      assertEquals(new TextDecoder().decode(await client.readAll()), "bye");
      await client.end().catch(() => {});
      await closing;
      assertEquals(server.stats.ended.drained, 1);
      // The next time is another one.
      assert(!server.drainSignal.aborted);
    });
  });

  test(`${name}: serverClose({ drain }) handles the connections that wait, and takes no new ones`, () => {
    const go = gate();
    const begun = gate();
    const Greeting = handler(async (connection) => {
      begun.resolve();
      await go.promise;
      await connection.write("hello");
    });
    return serving(adapter, Plain as typeof TCPServer, Greeting, async (server) => {
      const first = await open(server);
      await begun.promise;
      const others = [await open(server), await open(server)];
      const closing = server.serverClose({ drain: 60_000 });
      await until(() => server.draining);
      await refused(adapter, server);
      go.resolve();
      for (const client of [first, ...others]) {
        assertEquals(new TextDecoder().decode(await client.readAll()), "hello");
        await client.end().catch(() => {});
      }
      await closing;
      assertEquals(server.stats.accepted, 3);
    });
  });

  test(`${name}: serverClose({ drain }) waits for connections that are being opened, and no longer than they are`, () =>
    serving(
      adapter,
      Async as typeof TCPServer,
      handler((connection) => Promise.resolve(connection.write("hello"))),
      async (server) => {
        const [served, silent] = [await open(server), await open(server)];
        await served.write("PROXY UNK");
        const closing = server.serverClose({ drain: Infinity });
        await until(() => server.draining);
        await served.write("NOWN\r\n");
        assertEquals(new TextDecoder().decode(await served.readAll()), "hello");
        await served.end().catch(() => {});
        // Nothing else is left to wait for.
        silent.reset();
        await closing;
        assertEquals([server.stats.accepted, server.stats.ended["bad proxy header"]], [1, 1]);
      },
      { proxyProtocol: true, proxyTimeout: Infinity },
    ));

  test(`${name}: with the drain over, those in progress and those that wait are aborted`, () => {
    const begun = gate();
    const Stubborn = handler(async (connection) => {
      begun.resolve();
      await connection.read();
    });
    return serving(adapter, Plain as typeof TCPServer, Stubborn, async (server) => {
      const clients = [await open(server)];
      await begun.promise;
      clients.push(await open(server));
      await server.serverClose({ drain: 10 });
      for (const client of clients) assertEquals((await client.readAll()).length, 0);
    });
  });
}

/** Nobody listens any more. */
async function refused(adapter: Adapter, server: TCPServer): Promise<void> {
  try {
    await adapter.open(server);
  } catch {
    return;
  }
  throw new Error("a server that drains has taken a connection");
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${getRuntime().name}: ${signal} drains the servers of a program, and it ends with status 0`, () =>
    running(async (program, client) => {
      await client.write("polite\n");
      assertEquals(await client.read(6), "ready\n");
      program.kill(signal);
      assertEquals(new TextDecoder().decode(await client.readAll()), "bye\n");
      await client.end().catch(() => {});
      assertEquals(await program.exited, 0, program.stderr);
    }));
}

test(`${getRuntime().name}: a second signal means now, and the program ends with status 0 too`, () =>
  running(async (program, client) => {
    await client.write("stubborn\n");
    assertEquals(await client.read(6), "ready\n");
    program.kill("SIGTERM");
    assertEquals(await program.line(), "draining");
    program.kill("SIGTERM");
    await client.readAll();
    assertEquals(await program.exited, 0, program.stderr);
  }));

test(`${getRuntime().name}: disposing of it leaves the signal to end the program`, () =>
  running(async (program, client) => {
    await client.write("dispose\n");
    assertEquals(await client.read(6), "ready\n");
    program.kill("SIGTERM");
    assertEquals(await program.exited, "SIGTERM", program.stderr);
  }));

async function running(use: (program: Program, client: Awaited<ReturnType<typeof openSocket>>) => Promise<void>): Promise<void> {
  const [binary, ...args] = commandFor(new URL("./programs/draining.ts", import.meta.url));
  const program = new Program(binary!, args);
  try {
    await use(program, await openSocket(parseAddress(await program.line())));
  } finally {
    program.kill("SIGKILL");
    await program.exited;
  }
}

/** What the two ends of a connection to a Unix socket are called: the same on every adapter, and in workers. */
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { type Address, AsyncUnixStreamServer, formatAddress, getRuntime, SocketError } from "@sockets/server";
import { test } from "node:test";
import { adapters, freshPath, openSocket, tlsAdapters } from "./adapters.ts";
import { gate, handler, serving } from "./serving.ts";
import { FEW, type Mode, serving as servingWorkers, STREAM } from "./worker_serving.ts";

const UNNAMED: Address = { transport: "unix", path: "" };

for (const adapter of [...adapters, ...tlsAdapters]) {
  if (adapter.transport !== "unix") continue;
  const it = (what: string, body: () => Promise<void>) => void test(`${adapter.runtime.name} ${adapter.name}: ${what}`, body);

  it("a client without a name has an empty one, and the client knows the server by its path", async () => {
    const seen = gate<unknown[]>();
    const Handler = handler((conn, { clientAddress }) => {
      seen.resolve([conn.remoteAddress, clientAddress, conn.localAddress, formatAddress(conn.remoteAddress)]);
      return conn.closed;
    });
    await serving(adapter, AsyncUnixStreamServer, Handler, async (server) => {
      const { serverAddress } = server;
      const client = await adapter.connect(server);
      assertEquals([client.remoteAddress, client.localAddress], [serverAddress, UNNAMED]);
      const named = `an unnamed peer of ${formatAddress(serverAddress)}`;
      assertEquals(await seen.promise, [UNNAMED, null, serverAddress, named]);
      client.abort();
    }, { shutdownTimeout: 0 });
  });

  it("an error says at which socket the peer was that has no name", async () => {
    const failed = gate<unknown>();
    const Handler = handler(async (conn) => {
      conn.timeout = 1;
      await conn.read().catch(failed.resolve);
    });
    await serving(adapter, AsyncUnixStreamServer, Handler, async (server) => {
      const client = await adapter.connect(server);
      const error = await failed.promise;
      assertInstanceOf(error, SocketError);
      assert(error.message.endsWith(`, an unnamed peer of ${formatAddress(server.serverAddress)}`), error.message);
      assertEquals(error.address, UNNAMED);
      await client.close();
    });
  });

  it("handleError() prints at which socket the peer was", async () => {
    const printed: string[] = [];
    const server = new AsyncUnixStreamServer(
      adapter.freshAddress(),
      handler(() => {
        throw new Error("no");
      }),
      adapter.options,
    );
    await server.activate();
    const runtime = getRuntime();
    const { print } = runtime;
    runtime.print = (text) => {
      printed.push(text);
      return Promise.resolve();
    };
    try {
      const handling = server.handleRequest();
      const client = await adapter.connect(server);
      await handling;
      client.abort();
    } finally {
      runtime.print = print;
      await server.serverClose();
    }
    const text = printed.join("");
    assert(text.includes(`on ${formatAddress(server.serverAddress)}`), text);
  });
}

for (const mode of ["threading", "forking"] as Mode[]) {
  test(`${getRuntime().name} unix ${mode}: a worker's handler knows its peer as the server does`, () =>
    servingWorkers(
      STREAM[mode].unix,
      `unix:${freshPath()}`,
      new URL("handlers/unix_names.ts", import.meta.url),
      FEW[mode],
      async (server) => {
        const client = await openSocket(server.serverAddress);
        const seen = JSON.parse(new TextDecoder().decode(await client.readAll()));
        assertEquals(seen, [UNNAMED, null, server.serverAddress, `an unnamed peer of ${formatAddress(server.serverAddress)}`]);
      },
    ));
}

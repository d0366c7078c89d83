/** The web streams of a connection: how they end, on every adapter. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { AsyncTCPServer, AsyncUnixStreamServer, type Connection, SocketError, type TCPServer } from "@sockets/server";
import { test } from "node:test";
import { adapters, type Client, tlsAdapters } from "./adapters.ts";
import { gate, handler, serving } from "./serving.ts";

const SERVERS = { tcp: AsyncTCPServer, unix: AsyncUnixStreamServer };
/** More than the kernel and the connection take. */
const LARGE = new Uint8Array(16 << 20);

for (const adapter of [...adapters, ...tlsAdapters]) {
  const Server: typeof TCPServer = SERVERS[adapter.transport];
  const it = (what: string, handle: (conn: Connection) => Promise<void>, then: (client: Client) => Promise<void>) =>
    void test(`${adapter.runtime.name} ${adapter.name}: ${what}`, async () => {
      const handled = gate();
      const Handler = handler(async (conn) => {
        try {
          await handle(conn);
          handled.resolve();
        } catch (error) {
          handled.reject(error);
        }
      });
      await serving(adapter, Server, Handler, async (server) => {
        const client = await adapter.open(server);
        await then(client);
        await handled.promise;
        assertEquals(server.errors, []);
      });
    });

  it("a cancelled readable drops what comes, so that the peer isn't kept waiting, and an answer gets through", async (conn) => {
    const reader = conn.readable.getReader();
    assert((await reader.read()).value!.length > 0);
    await reader.cancel(new Error("enough"));
    await conn.write("no more, please");
    await conn.closeWrite();
    await conn.closed;
  }, async (client) => {
    const answer = client.readAll();
    await client.write(LARGE.subarray(0, 4 << 20));
    await client.end();
    assertEquals(new TextDecoder().decode(await answer), "no more, please");
  });

  it("a readable that is cancelled while it waits is done, and every read is refused", async (conn) => {
    conn.timeout = 60_000;
    const reader = conn.readable.getReader();
    const reading = reader.read();
    await reader.cancel();
    assertEquals((await reading).done, true);
    assertEquals((await reader.read()).done, true);
    for (let again = 0; again < 2; again++) {
      const error = await assertRejects(() => conn.read(), SocketError);
      assertEquals(error.code, "ECONNABORTED");
      assert(error.message.includes("readable.cancel()"), error.message);
    }
    await assertRejects(() => conn.forEach(() => {}), SocketError, "readable.cancel()");
    await conn.write("still writing");
  }, async (client) => {
    assertEquals(await client.read(13), "still writing");
  });

  it("a read that waits beside a readable that is cancelled ends too", async (conn) => {
    const { readable } = conn;
    const reading = conn.read();
    await readable.cancel();
    await assertRejects(() => reading, SocketError, "readable.cancel()");
    await conn.write("!");
  }, async (client) => {
    assertEquals(await client.read(1), "!");
  });

  it("a pipe to something that fails ends the reading side, not the connection", async (conn) => {
    const broken = new WritableStream({
      write() {
        throw new Error("the disk is full");
      },
    });
    await assertRejects(() => conn.readable.pipeTo(broken), Error, "the disk is full");
    await conn.write("507");
    await conn.close({ linger: 60_000 });
  }, async (client) => {
    const answer = client.read(3);
    await client.write(LARGE);
    assertEquals(await answer, "507");
    await client.end();
  });

  it("cancelled and ended here, the connection of a peer that never ends its side is closed", async (conn) => {
    await conn.readable.cancel();
    await conn.closeWrite();
    await conn.closed;
    assertEquals(conn.error, null);
  }, async (client) => {
    await client.write("x");
    assertEquals((await client.readAll()).length, 0);
  });

  it("the connection that is closed ends its readable in order", async (conn) => {
    const reading = conn.readable.getReader().read();
    void conn.close();
    assertEquals((await reading).done, true);
  }, async (client) => {
    assertEquals((await client.readAll()).length, 0);
  });

  it("close() lets leave what was written to the writable and not awaited", async (conn) => {
    const writer = conn.writable.getWriter();
    for (let sent = 0; sent < LARGE.length; sent += 1 << 20) void writer.write(LARGE.subarray(sent, sent + (1 << 20)));
    void writer.write(new TextEncoder().encode("end"));
    await conn.close();
    // Nobody is told any more.
    await writer.write(new Uint8Array(1));
  }, async (client) => {
    const all = await client.readAll();
    assertEquals([all.length, new TextDecoder().decode(all.subarray(-3))], [LARGE.length + 3, "end"]);
  });

  it("a peer that is gone fails what pipes to the writable", async (conn) => {
    const endless = new ReadableStream<Uint8Array>({ pull: (controller) => controller.enqueue(LARGE.subarray(0, 65_536)) });
    await assertRejects(() => endless.pipeTo(conn.writable), SocketError);
  }, async (client) => {
    await client.read(1);
    client.reset();
  });
}

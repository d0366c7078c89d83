/** What writes that nobody awaits cost: operations on Deno, and TLS records everywhere. */
import { assert, assertEquals } from "@std/assert";
import { connect as netConnect } from "node:net";
import { test } from "node:test";
import { connect as tlsConnect } from "node:tls";
import { AsyncTCPServer, getRuntime } from "@sockets/server";
import { adapters, portOf, tlsAdapters } from "./adapters.ts";
import { handler, serving, until } from "./serving.ts";

const { name } = getRuntime();

/** Writes 20,000 times 40 bytes to whoever asks. */
const Many = handler(async (conn) => {
  await conn.read();
  const bytes = new Uint8Array(40);
  for (let i = 0; i < 20_000; i++) void conn.write(bytes);
});
const SIZE = 800_000;

interface DenoConn {
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}
const { Deno } = globalThis as { Deno?: { connect(options: { port: number }): Promise<DenoConn> } };

if (Deno !== undefined) {
  void test(`${name}: 20,000 writes that nobody awaits leave in a few operations`, () =>
    serving(adapters[0]!, AsyncTCPServer, Many, async (server) => {
      const conn = await Deno.connect({ port: portOf(server) });
      const prototype = Object.getPrototypeOf(conn) as DenoConn;
      let owner = prototype;
      while (!Object.hasOwn(owner, "write")) owner = Object.getPrototypeOf(owner);
      const { write } = owner;
      let [operations, taken] = [0, 0];
      owner.write = async function (bytes) {
        operations++;
        const size = await write.call(this, bytes);
        taken += size;
        return size;
      };
      const client = netConnect(portOf(server), "127.0.0.1");
      try {
        let received = 0;
        client.on("data", (chunk: Uint8Array) => received += chunk.length);
        client.write("x");
        await until(() => received === SIZE);
        assertEquals(taken, SIZE);
        // One for each 256 KiB, and some for what the kernel takes in part.
        assert(operations <= 20, `${operations} operations`);
      } finally {
        owner.write = write;
        client.destroy();
        conn.close();
      }
    }));
}

void test(`${name} tls: short writes that nobody awaits share records`, () =>
  serving(tlsAdapters[0]!, AsyncTCPServer, Many, async (server) => {
    const below = netConnect(portOf(server), "127.0.0.1");
    const client = tlsConnect({ socket: below, rejectUnauthorized: false });
    let received = 0;
    client.on("data", (chunk: Uint8Array) => received += chunk.length);
    client.write("x");
    await until(() => received === SIZE);
    // A record of TLS 1.3 has 22 bytes beside what it carries, and the handshake takes some thousand.
    assert(below.bytesRead < SIZE * 1.05, `${below.bytesRead} bytes for ${SIZE}`);
    client.destroy();
  }));

/** What ends a connection once its handshake is done: bytes that are no TLS, records that nobody with the key has made, alerts. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  connect,
  type Connection,
  type EndReason,
  getRuntime,
  type RequestHandlerClass,
  SocketError,
  type TCPServer,
} from "@sockets/server";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { createServer as createTlsServer, type SecureVersion, type TLSSocket } from "node:tls";
import { authority } from "./certificates.ts";
import { gate, handler, until } from "./serving.ts";
import { withMiddle } from "./tls_middle.ts";
import { local, open, plain, plainServing, serving } from "./tls_serving.ts";
import { FEW, STREAM } from "./worker_serving.ts";

const { name } = getRuntime();
const it = (what: string, body: () => Promise<void>) =>
  void test(`${name} tls, after the handshake: ${what}`, { timeout: 20_000 }, body);

const hex = (text: string, ...more: Uint8Array[]) => new Uint8Array(Buffer.concat([Buffer.from(text, "hex"), ...more]));
const filled = (size: number) => new Uint8Array(size).fill(0x5a);

/** What no peer sends whose handshake is done. */
const STRANGE: readonly (readonly [string, Uint8Array])[] = [
  ["data that nobody with the key has encrypted", hex("1703030040", filled(64))],
  ["plain text", new TextEncoder().encode("GET / HTTP/1.0\r\n\r\n")],
  ["an alert in the clear", hex("15030300020228")],
  ["an alert that nobody with the key has encrypted", hex("1503030020", filled(32))],
  ["a handshake message in the clear", hex("160303000400000000")],
  ["a record of a kind that there is not", hex("6303030010", filled(16))],
  ["a record that is longer than they may be", hex("1703034900", filled(0x4900))],
];

/** Sees a connection end: what its reader, its writer and whoever else asks are told. */
async function fate(conn: Connection): Promise<SocketError> {
  const { signal } = conn;
  const error = await assertRejects(async () => {
    while (await conn.read() !== null);
    throw new Error("the end of the stream");
  }, SocketError);
  assertEquals(error.code, "EPROTO");
  assert(/^read EPROTO: TLS failed: \S/.test(error.message), error.message);
  await conn.closed;
  assertEquals(conn.error, error);
  assertEquals(conn.endReason, "reset");
  assertEquals(signal.reason, error);
  assertEquals(await assertRejects(async () => await conn.write("x"), SocketError), error);
  return error;
}

/** Answers once, and then sees its connection end. */
const witness = (begin?: (conn: Connection) => Promise<void>): RequestHandlerClass =>
  handler(async (conn) => {
    await begin?.(conn);
    assertEquals(await text(conn), "good");
    await conn.write("fine");
    throw await fate(conn);
  });
/** What a handler and its client say before they begin TLS. */
const beginTls = async (conn: Connection): Promise<void> => {
  await conn.read();
  await conn.write("go");
  await conn.startTls(local());
};
const text = async (conn: Connection): Promise<string> => new TextDecoder().decode((await conn.read())!);
const only = (version: SecureVersion) => ({ minVersion: version, maxVersion: version });
const VERSIONS = ["TLSv1.2", "TLSv1.3"] as const;

/** A client whose handshake is done, and to whom the server has answered. */
async function greeted(port: number, version: SecureVersion, inTheClear: boolean): Promise<TLSSocket> {
  const socket = inTheClear ? await plain(port) : null;
  if (socket !== null) await new Promise((resolve) => socket.once("data", resolve).write("start"));
  const client = await open(port, { ...only(version), ...(socket === null ? {} : { socket }) });
  client.on("error", () => {});
  await new Promise((resolve) => client.once("data", resolve).write("good"));
  return client;
}

// First, as it counts descriptors.
it("a writer whose peer doesn't read is told too, and its socket doesn't wait for the peer", () => {
  const descriptors = () => readdirSync("/proc/self/fd").length;
  const told = gate<SocketError>();
  const Handler = handler(async (conn) => {
    const reading = assertRejects(() => conn.read(), SocketError);
    const chunk = new Uint8Array(1 << 20);
    const error = await assertRejects(async () => {
      for (let i = 0; i < 256; i++) await conn.write(chunk);
    }, SocketError);
    assertEquals(await reading, error);
    told.resolve(error);
  });
  return serving(local(), Handler, (server) =>
    withMiddle(server.port, async (middle) => {
      const client = await open(middle.port);
      client.on("error", () => {}).pause();
      // The handler is at it, and held up.
      await until(() => [...server.activeRequests.keys()].some((request) => (request as Connection).bytesWritten > 1 << 20));
      const before = descriptors();
      middle.toServer(STRANGE[0]![1]);
      assertEquals((await told.promise).code, "EPROTO");
      await until(() => server.activeRequests.size === 0);
      await until(() => descriptors() < before);
      assertEquals(server.errors, []);
    }));
});

for (const version of VERSIONS) {
  for (const inTheClear of [false, true]) {
    const how = `${version}${inTheClear ? ", begun by startTls()" : ""}`;
    const serve: typeof plainServing = inTheClear
      ? (_Handler, use) => plainServing(witness(beginTls), use)
      : (_Handler, use) => serving(local(), witness(), (server) => use(server));

    for (const [what, bytes] of STRANGE) {
      it(`a server that is sent ${what} ends the connection, ${how}`, () =>
        serve(witness(), (server) =>
          withMiddle(server.port, async (middle) => {
            await greeted(middle.port, version, inTheClear);
            middle.toServer(bytes);
            await middle.serverGone;
            await until(() => server.errors.length === 1 && server.activeRequests.size === 0);
            assertInstanceOf(server.errors[0], SocketError, String(server.errors[0]));
            assertEquals([server.errors[0].code, server.stats.ended.reset], ["EPROTO", 1]);
          })));
    }

    for (const [what, bytes] of STRANGE) {
      it(`a client that is sent ${what} ends the connection, ${how}`, () =>
        peer(version, inTheClear, (port) =>
          withMiddle(port, async (middle) => {
            const client = await connect(`tcp://localhost:${middle.port}`, inTheClear ? {} : { tls: trust() });
            if (inTheClear) {
              await client.write("start");
              assertEquals(await text(client), "go");
              await client.startTls(trust());
            }
            assertEquals(client.tls!.protocol, version);
            await client.write("good");
            assertEquals(await text(client), "fine");
            middle.toClient(bytes);
            await fate(client);
            await middle.clientGone;
          })));
    }
  }

  it(`a record that is changed on its way, or comes twice, ends the connection for both, ${version}`, async () => {
    const changed = (record: Uint8Array) => record.map((byte, i) => i === record.length - 1 ? byte ^ 1 : byte);
    const twice = (record: Uint8Array) => new Uint8Array([...record, ...record]);
    for (const damage of [changed, twice]) {
      await serving({ ...local(), minVersion: version }, witness(), (server) =>
        withMiddle(server.port, async (middle) => {
          const client = await greeted(middle.port, version, false);
          const alert = gate<Error & { code?: string }>();
          client.on("error", alert.resolve);
          middle.fromClient = damage;
          client.write("x");
          await until(() => server.errors.length === 1);
          assertEquals((server.errors[0] as SocketError).code, "EPROTO");
          // It comes as an alert, which names what the record was found to be.
          assert(/bad.?record.?mac|decrypt/i.test((await alert.promise).message), (await alert.promise).message);
        }));
    }
  });
}

it("an alert of the peer's ends the connection with its name, for servers and clients", async () => {
  // Each of two ends that are ours finds what the other has sent damaged, and says so.
  for (const direction of ["fromClient", "fromServer"] as const) {
    const seen = gate<SocketError>();
    const Handler = handler(async (conn) => {
      await conn.write((await conn.read())!);
      if (direction === "fromServer") await conn.write((await conn.read())!);
      seen.resolve(await fate(conn));
    });
    await serving(local(), Handler, (server) =>
      withMiddle(server.port, async (middle) => {
        const client = await connect(`tls://localhost:${middle.port}`, { tls: trust() });
        await client.write("good");
        assertEquals(await text(client), "good");
        middle[direction] = (record) => record.map((byte, i) => i === record.length - 1 ? byte ^ 1 : byte);
        await client.write("x");
        const [atClient, atServer] = await Promise.all([fate(client), seen.promise]);
        const told = direction === "fromClient" ? atClient : atServer;
        assert(/bad.?record.?mac|decrypt/i.test(told.message), told.message);
      }));
  }
});

it("what was received before is read first, whatever follows it", () => {
  const begun = gate();
  const read: string[] = [];
  const Handler = handler(async (conn) => {
    await begun.promise;
    await conn.closed;
    const error = await assertRejects(async () => {
      for await (const chunk of conn) read.push(new TextDecoder().decode(chunk));
    }, SocketError);
    assertEquals(error.code, "EPROTO");
    assertEquals(conn.error, error);
  });
  return serving(local(), Handler, (server) =>
    withMiddle(server.port, async (middle) => {
      const client = await open(middle.port);
      client.on("error", () => {});
      client.write("good");
      await until(() => [...server.activeRequests.keys()].some((request) => (request as Connection).bytesRead === 4));
      middle.toServer(STRANGE[0]![1]);
      begun.resolve();
      await middle.serverGone;
      await until(() => server.activeRequests.size === 0);
      assertEquals([read.join(""), server.errors], ["good", []]);
    }));
});

for (const mode of ["threading", "forking"] as const) {
  const Server = STREAM[mode].tcp as unknown as typeof TCPServer;
  const module = (name: string) => new URL(`./handlers/tls.ts#${name}`, import.meta.url) as unknown as RequestHandlerClass;
  const cutOff = (server: TCPServer & { port: number; errors: unknown[] }, inTheClear: boolean, reason: EndReason) =>
    withMiddle(server.port, async (middle) => {
      await greeted(middle.port, "TLSv1.3", inTheClear);
      middle.toServer(STRANGE[0]![1]);
      await middle.serverGone;
      await until(() => server.errors.length === 1 && server.activeRequests.size === 0);
      assertInstanceOf(server.errors[0], SocketError, String(server.errors[0]));
      assert(/^read EPROTO: TLS failed: \S/.test(server.errors[0].message), server.errors[0].message);
      assertEquals([server.errors[0].code, server.stats.ended[reason]], ["EPROTO", 1]);
    });

  it(`the handler in a worker is told, ${mode}`, () =>
    serving(local(), module("EchoHandler"), (server) => cutOff(server, false, "reset"), Server, FEW[mode] as object));

  it(`the handler in a worker that has begun TLS itself is told, ${mode}`, () =>
    plainServing(
      module("UpgradingHandler"),
      (server) => cutOff(server, true, "handler error"),
      Server,
      { data: local(), ...FEW[mode] as object },
    ));
}

const trust = () => ({ ca: authority().cert, servername: "localhost" });

/** A server with the runtime's own `node:tls` that answers once, and before that begins TLS when it is asked in the clear. */
async function peer(version: SecureVersion, inTheClear: boolean, use: (port: number) => Promise<void>): Promise<void> {
  const { cert, key } = local();
  const pair = { cert: readFileSync(cert, "utf8"), key: readFileSync(key, "utf8") };
  const secured = createTlsServer({ ...pair, ...only(version) }, (socket) => {
    socket.on("error", () => {}).on("data", () => socket.write("fine"));
  });
  secured.on("tlsClientError", () => {});
  const cleartext = createServer((socket) => {
    socket.on("error", () => {}).once("data", () => {
      socket.write("go");
      secured.emit("connection", socket);
    });
  });
  const server = inTheClear ? cleartext : secured;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await use((server.address() as { port: number }).port);
  } finally {
    server.close();
  }
}

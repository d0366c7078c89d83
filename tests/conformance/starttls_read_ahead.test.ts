/** startTls() behind a request that the client doesn't wait for the answer to: what was read ahead is the handshake, or nothing. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  AsyncTCPServer,
  connect,
  type Connection,
  getRuntime,
  type RequestHandlerClass,
  SocketError,
  type StartTlsOptions,
  StreamReader,
  type TCPServer,
  type TCPServerOptions,
} from "@sockets/server";
import { test } from "node:test";
import { openSocket } from "./adapters.ts";
import { authority } from "./certificates.ts";
import { REQUEST } from "./handlers/tls.ts";
import { gate, handler, until } from "./serving.ts";
import { type Middle, withMiddle } from "./tls_middle.ts";
import { local, open, plainServing } from "./tls_serving.ts";
import { FEW, STREAM } from "./worker_serving.ts";

const { name } = getRuntime();
const it = (what: string, body: () => Promise<void>) =>
  void test(`${name} read ahead of TLS: ${what}`, { timeout: 20_000 }, body);

const HANDSHAKE: StartTlsOptions = { readAhead: "handshake" };
const bytes = (text: string) => new TextEncoder().encode(text);
const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

/** A client that sends its request and the handshake behind it in one segment, and echoes over TLS then. */
async function requests(server: TCPServer, middle: Middle, split = Infinity): Promise<void> {
  middle.fromClient = (hello) => {
    middle.fromClient = (more) => more;
    if (hello.length <= split) return join(bytes(REQUEST), hello);
    // The rest comes when this has been received.
    const size = REQUEST.length + split;
    const received = () => [...server.activeRequests.keys()].some((request) => (request as Connection).bytesRead >= size);
    void until(received).then(() => middle.toServer(hello.subarray(split)));
    return join(bytes(REQUEST), hello.subarray(0, split));
  };
  const client = await open(middle.port);
  client.on("error", () => {});
  const echoed = await new Promise((resolve) => client.once("data", (chunk) => resolve(String(chunk))).write("hello"));
  assertEquals(echoed, "hello");
  const closed = new Promise((resolve) => client.once("close", resolve));
  client.end();
  await closed;
}

/** Echoes once TLS has begun. */
async function echo(conn: Connection): Promise<void> {
  for await (const chunk of conn) await conn.write(chunk);
}

const places: Record<string, (conn: Connection) => Promise<void>> = {
  "a reader": async (conn) => void await new StreamReader(conn).readExactly(REQUEST.length),
  "what readInto() had no room for": async (conn) => void await conn.readInto(new Uint8Array(REQUEST.length)),
  "a reader, on a connection that is watched and has a timeout": async (conn) => {
    conn.timeout = 10_000;
    assertEquals(conn.signal.aborted, false);
    await new StreamReader(conn).readExactly(REQUEST.length);
  },
  "a reader, behind one that has nothing": async (conn) => {
    const first = new StreamReader(conn);
    await first.readExactly(1);
    const rest = first.takeBuffered();
    const second = new StreamReader({
      read: () => Promise.resolve(rest),
      attachReader: (reader) => conn.attachReader(reader),
    });
    await second.readExactly(REQUEST.length - 1);
  },
};

for (const [place, read] of Object.entries(places)) {
  for (const [part, split] of [["all", Infinity], ["a byte", 1], ["the header", 5], ["half", 100]] as const) {
    it(`the handshake is taken from ${place}, ${part} of it`, () =>
      plainServing(
        handler(async (conn) => {
          await read(conn);
          await conn.startTls(local(), HANDSHAKE);
          await echo(conn);
        }),
        (server) =>
          withMiddle(server.port, async (middle) => {
            await requests(server, middle, split);
            await until(() => server.activeRequests.size === 0);
            assertEquals(server.errors, []);
          }),
      ));
  }
}

it("without anything read ahead it is as without the option", () =>
  plainServing(
    handler(async (conn) => {
      await conn.write("go");
      await conn.startTls(local(), HANDSHAKE);
      await echo(conn);
    }),
    async (server) => {
      const client = await connect(`tcp://localhost:${server.port}`);
      await client.read();
      await client.startTls({ ca: authority().cert });
      await client.write("hello");
      assertEquals(new TextDecoder().decode((await client.read())!), "hello");
      await client.close();
    },
  ));

// What is no handshake.

/** What comes behind the request, and how often the handler has got past `startTls()`. */
async function refusal(sent: (hello: Uint8Array) => Uint8Array, how?: StartTlsOptions): Promise<SocketError> {
  let refused!: SocketError;
  const got: Uint8Array[] = [];
  const Handler = handler(async (conn) => {
    const reader = new StreamReader(conn);
    await reader.readExactly(REQUEST.length);
    try {
      await conn.startTls(local(), how);
    } finally {
      // Taken for the handshake, nothing of it is left for anybody, whatever came of it.
      if (reader.buffered > 0 && how?.readAhead === "handshake") got.push(reader.takeBuffered());
    }
    for await (const chunk of conn) got.push(chunk);
  });
  await plainServing(Handler, async (server) => {
    const hello = await clientHello();
    const client = await openSocket(server.serverAddress);
    await client.write(join(bytes(REQUEST), sent(hello)));
    await client.readAll();
    await client.end().catch(() => {});
    await until(() => server.errors.length === 1 && server.activeRequests.size === 0);
    assertInstanceOf(server.errors[0], SocketError, String(server.errors[0]));
    refused = server.errors[0];
  });
  assertEquals([refused.code, got], ["EPROTO", []], refused.message);
  return refused;
}

/** What a client begins its handshake with. */
function clientHello(): Promise<Uint8Array> {
  const hello = gate<Uint8Array>();
  return plainServing(handler(async (conn) => hello.resolve((await conn.read())!)), async (server) => {
    const client = await connect(`tcp://localhost:${server.port}`);
    await assertRejects(() => client.startTls({ ca: authority().cert }), SocketError);
  }).then(() => hello.promise);
}

it("by default a handshake that was read ahead is refused too (CVE-2011-0411)", async () => {
  for (const how of [undefined, {}, { readAhead: "refuse" }, { readAhead: undefined }] as StartTlsOptions[]) {
    const { message } = await refusal((hello) => hello, how);
    assert(/\d+ bytes were received in the clear after the request for TLS, tcp:/.test(message), message);
  }
});

const injected: Record<string, (hello: Uint8Array) => Uint8Array> = {
  "plain text": () => bytes("MAIL FROM:<mallory>\r\n"),
  "a byte of plain text": () => bytes("M"),
  "plain text before the handshake": (hello) => join(bytes("RSET\r\n"), hello),
  "plain text behind the handshake": (hello) => join(hello, bytes("MAIL FROM:<mallory>\r\n")),
  "plain text in the midst of the handshake": (hello) =>
    join(hello.subarray(0, 60), bytes("MAIL FROM:<mallory>\r\n".repeat(400))),
  "a record of the handshake with nothing that is one": () =>
    join(new Uint8Array([22, 3, 1, 0, 40]), new Uint8Array(40).fill(65)),
  "a record of data": (hello) => join(new Uint8Array([23]), hello.subarray(1)),
};
for (const [what, sent] of Object.entries(injected)) {
  it(`with the option ${what} is refused all the same, and reaches nobody`, async () => {
    await refusal(sent, HANDSHAKE);
  });
}

it("what the option can't be, and who can't have it", () =>
  plainServing(
    handler(async (conn) => {
      for (const how of [{ readAhead: "all" }, { readahead: "handshake" }, { readAhead: true }, null]) {
        await assertRejects(() => conn.startTls(local(), how as never), TypeError, "startTls()");
      }
      const [first, second] = [new StreamReader(conn), new StreamReader(conn)];
      await first.readExactly(1);
      await conn.write("go");
      await second.readExactly(1);
      await assertRejects(() => conn.startTls(local(), HANDSHAKE), TypeError, "several readers");
      // All stays as it was.
      assertEquals([String(first.takeBuffered()), String(second.takeBuffered())], [String(bytes("b")), String(bytes("d"))]);
      await conn.write("done");
    }),
    async (server) => {
      const client = await connect(server.serverAddress);
      await assertRejects(
        () => client.startTls({ ca: authority().cert, servername: "localhost" }, HANDSHAKE),
        TypeError,
        "answers",
      );
      await client.write("ab");
      await client.read();
      await client.write("cd");
      assertEquals(new TextDecoder().decode((await client.read())!), "done");
      await client.close();
      await until(() => server.activeRequests.size === 0);
      assertEquals(server.errors, []);
    },
  ));

// Threads and processes.

for (const mode of ["async", "threading", "forking"] as const) {
  it(`a handler begins TLS behind a request, and refuses what is no handshake, ${mode}`, async () => {
    const module = new URL("./handlers/tls.ts#RequestingHandler", import.meta.url);
    const Handler = mode === "async" ? (await import("./handlers/tls.ts")).RequestingHandler : module;
    const Server = (mode === "async" ? AsyncTCPServer : STREAM[mode].tcp) as unknown as typeof TCPServer;
    const serve = (how: StartTlsOptions | undefined, use: Parameters<typeof plainServing>[1]) =>
      plainServing(
        Handler as unknown as RequestHandlerClass,
        use,
        Server,
        { data: { tls: local(), how }, ...(mode === "async" ? {} : FEW[mode]) } as TCPServerOptions,
      );
    await serve(HANDSHAKE, async (server) => {
      for (const split of [Infinity, 5, 100]) await withMiddle(server.port, (middle) => requests(server, middle, split));
      assertEquals(server.errors, []);
      const mallory = await openSocket(server.serverAddress);
      await mallory.write(`${REQUEST}MAIL FROM:<mallory>\r\n`);
      assertEquals(new TextDecoder().decode(await mallory.readAll()), "");
      await until(() => server.errors.length === 1);
      assertEquals((server.errors[0] as SocketError).code, "EPROTO");
    });
    await serve(undefined, (server) =>
      withMiddle(server.port, async (middle) => {
        await assertRejects(() => requests(server, middle), Error, "");
        await until(() => server.errors.length === 1);
        assertEquals((server.errors[0] as SocketError).code, "EPROTO");
      }));
  });
}

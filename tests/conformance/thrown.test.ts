/** What handlers throw, whatever it is, reaches `handleError()`, harms nobody else, and arrives from workers as what it was. */
import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import {
  AsyncTCPServer,
  getRuntime,
  IncompleteReadError,
  LimitOverrunError,
  Replicas,
  SocketError,
  type TCPServer,
  UnsupportedError,
} from "@sockets/server";
import { test } from "node:test";
import { reportOf } from "../../src/error_report.ts";
import { isShortage } from "../../src/shortage_log.ts";
import { toInspectable } from "../../src/thrown.ts";
import { type Client, openSocket } from "./adapters.ts";
import Throwing, { KNOWN, LONG, ODD, ThrowsTwice } from "./handlers/thrown.ts";
import { until } from "./serving.ts";
import { STREAM } from "./worker_serving.ts";

const runtime = getRuntime();
const module = (name: string) => new URL(`./handlers/thrown.ts#${name}`, import.meta.url);

const SERVERS = {
  async: (name: string) => new AsyncTCPServer("tcp://127.0.0.1:0", name === "default" ? Throwing : ThrowsTwice),
  threading: (name: string) => new STREAM.threading.tcp("tcp://127.0.0.1:0", module(name), { maxThreads: 1 }),
  forking: (name: string) =>
    new STREAM.forking.tcp("tcp://127.0.0.1:0", module(name), { maxChildren: 2, requestsPerChild: Infinity }),
};

/** Serves while `use` runs; `throws` has a client make the handler throw and gives what `handleError` was called with. */
async function serving(
  mode: keyof typeof SERVERS,
  use: (server: TCPServer, throws: (command: string) => Promise<{ error: unknown }>) => Promise<void>,
  name = "default",
): Promise<void> {
  const server = SERVERS[mode](name);
  const errors: unknown[] = [];
  server.handleError = (_request: unknown, _clientAddress: unknown, error: unknown) => void errors.push(error);
  await server.activate();
  const served = server.serveForever();
  let ended: unknown = null;
  served.catch((error) => ended = error ?? "nothing");
  try {
    await use(server, async (command) => {
      const client = await openSocket(server.serverAddress);
      await client.write(command);
      await client.readAll();
      await client.end().catch(() => {});
      await until(() => errors.length > 0 || ended !== null);
      assertEquals(ended, null, "serveForever() has rejected");
      assertEquals(errors.length, 1, command);
      // Not the error itself: it may be a promise.
      return { error: errors.pop() };
    });
  } finally {
    await server.serverClose({ drain: 0 });
    await served.catch(() => {});
  }
}

async function pings(client: Client): Promise<void> {
  await client.write("ping");
  assertEquals(await client.read(4), "ping");
}

for (const mode of ["async", "threading", "forking"] as const) {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp ${mode}: ${name}`, body);

  it("whatever is thrown goes to handleError, and the neighbour and the next client are served", () =>
    serving(mode, async (server, throws) => {
      const neighbour = await openSocket(server.serverAddress);
      await pings(neighbour);
      for (const what of Object.keys(ODD)) {
        const { error } = await throws(what);
        // A worker's is an error always, and short.
        if (mode !== "async") {
          assertInstanceOf(error, Error, what);
          assert(`${error.name}${error.message}${error.stack}`.length < 64_000, `${what}: ${error.message.length} characters`);
        }
        // Asking for these must not throw.
        void [(error as Error | null)?.name, (error as Error | null)?.message, error instanceof SocketError];
        await pings(neighbour);
      }
      await neighbour.end();
    }));

  it("finish() may throw such a thing as well", () =>
    serving(mode, async (_server, throws) => {
      const { error } = await throws("without a prototype");
      assertInstanceOf(error, AggregateError);
      assertMatch(error.message, /^a handler failed, and so did its finish\(\): /);
    }, "ThrowsTwice"));

  if (mode === "async") continue;

  it("an error that is cut keeps where it came from, and says how long it was", () =>
    serving(mode, async (_server, throws) => {
      const error = (await throws("control characters")).error as Error;
      assertMatch(error.message, new RegExp(`^\\x01{1000}[^]*cut: ${LONG} characters`));
      assertMatch(error.stack!, /handlers\/thrown\.ts/);
    }));

  it("errors arrive as what they are", () =>
    serving(mode, async (_server, throws) => {
      const thrown = async (what: string) => (await throws(what)).error;
      const partial = await thrown("partial");
      assertInstanceOf(partial, IncompleteReadError);
      assertEquals([partial.code, partial.syscall, new TextDecoder().decode(partial.partial)], ["ENODATA", "read", "abc"]);
      assertEquals(partial.message, await messageOf("partial"));
      const limit = await thrown("limit");
      assertInstanceOf(limit, LimitOverrunError);
      assertEquals([limit.code, limit.limit, limit.message], ["EMSGSIZE", 10, await messageOf("limit")]);
      const much = await thrown("much partial");
      assertInstanceOf(much, IncompleteReadError);
      assert(much.partial.length === 300_000 && much.partial.every((byte) => byte === 7));
      assertInstanceOf(await thrown("unsupported"), UnsupportedError);
      assertInstanceOf(await thrown("type"), TypeError);
      assertInstanceOf(await thrown("range"), RangeError);
      const socket = await thrown("socket");
      assertInstanceOf(socket, SocketError);
      assertEquals([socket.code, socket.syscall, socket.address], ["ETIMEDOUT", "read", {
        transport: "tcp",
        hostname: "127.0.0.1",
        port: 7,
      }]);
      const { message, cause } = await thrown("caused") as Error;
      assertEquals(message, "outer");
      assertInstanceOf(cause, LimitOverrunError);
      assertEquals(cause.limit, 5);
      const aggregate = await thrown("aggregate");
      assertInstanceOf(aggregate, AggregateError);
      assertInstanceOf(aggregate.errors[0], TypeError);
      assertEquals(aggregate.errors[1], "two");
      const named = await thrown("named");
      assertInstanceOf(named, SocketError);
      assertEquals([named.name, named.code], ["Mine", "EPIPE"]);
      assertEquals((await thrown("abort") as Error).name, "AbortError");
      const system = await thrown("system") as NodeJS.ErrnoException;
      assertEquals([system.code, system.errno, system.syscall, system.path], ["ENOENT", -2, "open", "/nowhere"]);
    }));
}

test("the report of whatever was thrown is a text, and not a long one", () => {
  const client = { transport: "tcp", hostname: "127.0.0.1", port: 7 } as const;
  for (const [what, make] of Object.entries(ODD)) {
    const thrown = toInspectable(make());
    assertEquals(isShortage(thrown), false, what);
    const report = reportOf(client, null, client, thrown);
    assert(typeof report === "string" && report.length < 64_000, what);
  }
});

/** The message that an error has where it is thrown. */
async function messageOf(what: string): Promise<string> {
  return (await assertRejects(async () => await KNOWN[what]!(), Error)).message;
}

for (const kind of ["process", "thread"] as const) {
  test(`${runtime.name} tcp replicas, ${kind}: what can't be sent as it is ends activate() all the same`, async () => {
    if (runtime.capabilities.reusePort !== true) return console.log(`skipped: ${runtime.capabilities.reusePort}`);
    for (const [name, message] of [["long", /^y{1000}[^]*cut: /], ["odd", /^a handler threw/], ["notAServer", /got /]] as const) {
      const replicas = new Replicas("tcp://127.0.0.1:0", module(name), { count: 1, kind });
      assertMatch((await assertRejects(() => replicas.activate(), Error)).message, message);
      await replicas.serverClose();
    }
  });
}

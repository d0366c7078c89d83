/** What `connect()` and its siblings do with their options, and with a peer that doesn't answer. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  AsyncTCPServer,
  bind,
  connect,
  getRuntime,
  type RawConnection,
  Replicas,
  type Runtime,
  serve,
  SocketError,
  TCPServer,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { type ChildProcess, spawn } from "node:child_process";
import { connect as netConnect, createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { authority } from "./certificates.ts";
import { commandFor } from "./children.ts";
import { EchoHandler, gate, until } from "./serving.ts";

const runtime = getRuntime();
const { name } = runtime;

/** Calls `use` with the port of a listener that answers nobody. */
async function silent(use: (port: number) => Promise<void>): Promise<void> {
  const program = fileURLToPath(new URL("programs/silent_listener.pl", import.meta.url));
  const child: ChildProcess = spawn("perl", [program], { stdio: ["pipe", "pipe", "inherit"] });
  const gone = new Promise((resolve) => child.once("exit", resolve));
  try {
    const { value } = await createInterface(child.stdout!)[Symbol.asyncIterator]().next();
    await use(Number(value));
  } finally {
    child.stdin!.end();
    await gone;
  }
}

/** Calls `use` with a listener that is not ours, and what it accepts. */
async function listening(use: (port: number, accepted: Socket[]) => Promise<void>): Promise<void> {
  const accepted: Socket[] = [];
  const server: Server = createServer((socket) => {
    socket.on("error", () => {});
    accepted.push(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use((server.address() as { port: number }).port, accepted);
  } finally {
    for (const socket of accepted) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

test(`${name}: connect() gives up after its timeout`, () =>
  silent(async (port) => {
    const error = await assertRejects(() => connect(`tcp://127.0.0.1:${port}`, { timeout: 100 }), SocketError);
    assertEquals([error.code, error.syscall], ["ETIMEDOUT", "connect"]);
    assert(error.message.includes("100 ms") && error.message.includes(`tcp://127.0.0.1:${port}`), error.message);
  }));

test(`${name}: connect() has a timeout by default`, () =>
  silent(async (port) => {
    const error = await assertRejects(() => connect(`tcp://127.0.0.1:${port}`), SocketError);
    assertEquals([error.code, error.message.includes("5000 ms")], ["ETIMEDOUT", true]);
  }));

test(`${name}: a timeout that is given covers a TLS handshake too`, () =>
  listening(async (port) => {
    const options = { timeout: 200, tls: { handshakeTimeout: Infinity } };
    const error = await assertRejects(() => connect(`tls://127.0.0.1:${port}`, options), SocketError);
    assertEquals([error.code, error.syscall], ["ETIMEDOUT", "handshake"]);
  }));

test(`${name}: connect() gives up when its signal fires, with the signal's reason`, () =>
  silent(async (port) => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const connecting = connect(`tcp://127.0.0.1:${port}`, { timeout: 0, signal: controller.signal });
    const rejected = assertRejects(() => connecting, Error);
    controller.abort(reason);
    assertEquals(await rejected, reason);
  }));

for (const way of ["timeout", "signal"]) {
  test(`${name}: a connect that was given up by its ${way} doesn't keep the program running`, () =>
    silent(async (port) => {
      const [binary, ...args] = commandFor(new URL("programs/given_up.ts", import.meta.url));
      const child = spawn(binary!, [...args, String(port), way], { stdio: ["ignore", "pipe", "inherit"] });
      const lines: string[] = [];
      createInterface(child.stdout).on("line", (line) => lines.push(line));
      assertEquals(await new Promise((resolve) => child.once("close", resolve)), 0);
      assertEquals(lines, [way === "timeout" ? "ETIMEDOUT" : "TimeoutError", "ended"]);
    }));
}

test(`${name}: a signal that has fired already connects to nobody`, () =>
  listening(async (port, accepted) => {
    const reason = new Error("never mind");
    const address = `tcp://127.0.0.1:${port}`;
    assertEquals(await assertRejects(() => connect(address, { signal: AbortSignal.abort(reason) }), Error), reason);
    // One that comes later is the first.
    const conn = await connect(address);
    await until(() => accepted.length > 0);
    assertEquals(accepted.length, 1);
    await conn.close();
  }));

for (const given of ["timeout", "signal"]) {
  test(`${name}: a connection that comes after connect() was given up by its ${given} is aborted`, async () => {
    const late = gate<RawConnection>();
    const raw = { aborted: 0, abort: () => void raw.aborted++ };
    // A runtime that can't give up.
    const slow: Runtime = { ...memory, capabilities: memory.capabilities, connect: () => late.promise };
    const options = given === "timeout" ? { timeout: 1 } : { signal: AbortSignal.timeout(1) };
    await assertRejects(() => connect("tcp://127.0.0.1:1", { runtime: slow, ...options }), Error);
    late.resolve(raw as unknown as RawConnection);
    await late.promise;
    await Promise.resolve();
    assertEquals(raw.aborted, 1);
  });
}

test(`${name}: a signal that fires during the TLS handshake ends it, and the connection`, () =>
  listening(async (port, accepted) => {
    const controller = new AbortController();
    const tls = { ca: authority().cert, servername: "localhost", handshakeTimeout: 0 };
    const connecting = connect(`tcp://127.0.0.1:${port}`, { tls, signal: controller.signal });
    const rejected = assertRejects(() => connecting, Error);
    await until(() => accepted.length > 0);
    const closed = new Promise((resolve) => accepted[0]!.once("close", resolve));
    accepted[0]!.resume();
    await new Promise((resolve) => accepted[0]!.once("data", resolve));
    const reason = new Error("enough");
    controller.abort(reason);
    assertEquals(await rejected, reason);
    await closed;
  }));

test(`${name}: a signal means nothing to a connection that is there`, () =>
  listening(async (port, accepted) => {
    const controller = new AbortController();
    const conn = await connect(`tcp://127.0.0.1:${port}`, { signal: controller.signal, timeout: 1000 });
    await until(() => accepted.length > 0);
    controller.abort();
    accepted[0]!.write("still here");
    assertEquals(new TextDecoder().decode((await conn.read())!), "still here");
    await conn.close();
  }));

test(`${name}: a connected client's socket goes on in both directions, half-closed, without node:net`, () =>
  listening(async (port, accepted) => {
    const conn = await connect(`tcp://127.0.0.1:${port}`);
    await until(() => accepted.length > 0);
    accepted[0]!.end("first");
    assertEquals(new TextDecoder().decode((await conn.read())!), "first");
    assertEquals(await conn.read(), null);
    const received: Uint8Array[] = [];
    accepted[0]!.on("data", (chunk) => received.push(chunk as Uint8Array));
    const ended = new Promise((resolve) => accepted[0]!.once("end", resolve));
    await conn.write("second");
    await conn.closeWrite();
    await ended;
    assertEquals(new TextDecoder().decode(Buffer.concat(received)), "second");
    await conn.close();
  }));

/** What takes options, and a wrong one; none of them may bind or connect anything. */
const wrong: [what: string, call: () => Promise<unknown>, message: string][] = [
  ["connect(): an unknown option", () => connect("tcp://127.0.0.1:1", { timeOut: 5 } as object), "did you mean timeout?"],
  ["connect(): no option at all", () => connect("tcp://127.0.0.1:1", { retries: 5 } as object), "there are runtime, noDelay"],
  ["connect(): a number", () => connect("tcp://127.0.0.1:1", 5000 as unknown as object), "must be an object, got 5000"],
  ["connect(): null", () => connect("tcp://127.0.0.1:1", null as unknown as object), "must be an object, got null"],
  ["connect(): a timeout", () => connect("tcp://127.0.0.1:1", { timeout: -1 }), "timeout must be a number of milliseconds"],
  [
    "connect(): a controller",
    () => connect("tcp://127.0.0.1:1", { signal: new AbortController() as unknown as AbortSignal }),
    "pass the signal of the AbortController",
  ],
  ["bind(): an unknown option", () => bind("udp://127.0.0.1:0", { maxPacketsize: 5 } as object), "did you mean maxPacketSize?"],
  ["bind(): the address again", () => bind("udp://127.0.0.1:0", { address: 5 } as object), "unknown option of bind(): address"],
  ["bind(): text", () => bind("udp://127.0.0.1:0", "x" as unknown as object), 'must be an object, got "x"'],
  [
    "serve(): a signal",
    () => serve("tcp://127.0.0.1:0", () => {}, { signal: {} as unknown as AbortSignal }),
    "signal of serve() must be an AbortSignal",
  ],
];
for (const [what, call, message] of wrong) {
  test(`${name}: ${what} is refused with an error that helps`, async () => {
    const error = await assertRejects(call, Error);
    assert(error instanceof TypeError || error instanceof RangeError, String(error));
    assert(error.message.includes(message), error.message);
  });
}

for (const Server of [TCPServer, AsyncTCPServer]) {
  test(`${name} ${Server.name}: serveForever() refuses unknown options and a wrong signal, binds nothing, and serves afterwards`, async () => {
    const server = new Server("tcp://127.0.0.1:0", EchoHandler);
    for (
      const [options, message] of [
        [{ sginal: AbortSignal.abort() }, "did you mean signal?"],
        [{ signal: new AbortController() }, "pass the signal of the AbortController"],
        [{ signal: null }, "must be an AbortSignal, got null"],
      ] as const
    ) {
      const error = await assertRejects(() => server.serveForever(options as object), TypeError);
      assert(error.message.includes(message), error.message);
      assertEquals("port" in server.serverAddress && server.serverAddress.port, 0);
    }
    const controller = new AbortController();
    const serving = server.serveForever({ signal: controller.signal });
    await until(() => "port" in server.serverAddress && server.serverAddress.port !== 0);
    const socket = netConnect((server.serverAddress as { port: number }).port, "127.0.0.1");
    const answer = new Promise((resolve) => socket.once("data", resolve));
    socket.end("x");
    await answer;
    controller.abort();
    await serving;
    await server.serverClose();
  });
}

test(`${name}: replicas refuse the same`, async () => {
  const replicas = new Replicas("tcp://127.0.0.1:0", new URL("handlers/replica.ts", import.meta.url));
  await assertRejects(() => replicas.serveForever({ sginal: 1 } as object), TypeError, "did you mean signal?");
  await assertRejects(() => replicas.serveForever({ signal: {} as AbortSignal }), TypeError, "must be an AbortSignal");
});

for (const from of [runtime, memory]) {
  test(`${from.name}: an option of bind() that is undefined is the default`, async () => {
    const [one, other] = await Promise.all([
      bind("udp://127.0.0.1:0", { runtime: from, maxPacketSize: undefined, requestQueueSize: undefined, broadcast: undefined }),
      bind("udp://127.0.0.1:0", { runtime: from }),
    ]);
    await other.send(new Uint8Array(9000), one.address);
    const datagram = await one.receive();
    assertEquals([datagram?.data.length, datagram?.truncated], [9000, false]);
    await Promise.all([one.close(), other.close()]);
  });
}

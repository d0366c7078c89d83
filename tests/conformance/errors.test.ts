/** What goes wrong when a server binds or a client connects: the same class and code on every runtime, and no descriptor leaked. */
import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import {
  AsyncTCPServer,
  connect,
  getRuntime,
  type InetAddress,
  parseAddress,
  serve,
  SocketError,
  TCPServer,
  UnsupportedError,
} from "@sockets/server";
import { connectTo, memory } from "@sockets/server/testing";
import { existsSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { openSocket, portOf } from "./adapters.ts";
import { runModule } from "./children.ts";
import { EchoHandler, handler } from "./serving.ts";

const runtime = getRuntime();
const it = (name: string, body: () => Promise<void>, skip?: string | false) =>
  void test(`${runtime.name}: ${name}${skip ? ` [skipped: ${skip}]` : ""}`, { skip: Boolean(skip) }, body);

async function failure(address: string, options = {}): Promise<SocketError> {
  return await assertRejects(() => new TCPServer(address, EchoHandler, options).activate(), SocketError);
}

for (const [name, used] of [[runtime.name, runtime], ["memory", memory]] as const) {
  test(`${name}: an address in use is EADDRINUSE, a port that nobody listens on ECONNREFUSED`, async () => {
    const server = new TCPServer("tcp://127.0.0.1:0", EchoHandler, { runtime: used });
    await server.activate();
    const inUse = await assertRejects(
      () => new TCPServer(server.serverAddress, EchoHandler, { runtime: used }).activate(),
      SocketError,
    );
    assertEquals([inUse.code, inUse.syscall, inUse.address], ["EADDRINUSE", "listen", server.serverAddress]);
    await server.serverClose();
    const refused = await assertRejects(() => connectTo(server), SocketError);
    assertEquals([refused.code, refused.syscall, refused.address], ["ECONNREFUSED", "connect", server.serverAddress]);
  });
}

it("an address of another machine is EADDRNOTAVAIL", async () => {
  assertEquals((await failure("tcp://192.0.2.1:0")).code, "EADDRNOTAVAIL");
});

it("a host name that nobody has is ENOTFOUND, for servers and clients, in every family", async () => {
  assertEquals((await failure("tcp://nobody.invalid:0")).code, "ENOTFOUND");
  assertEquals((await failure("tcp://nobody.invalid:0", { addressFamily: "IPv4" })).code, "ENOTFOUND");
  const error = await assertRejects(() => connect("tcp://nobody.invalid:80"), SocketError);
  assertEquals(error.code, "ENOTFOUND");
});

it("a peer that is reset while it connects gets ECONNRESET, on connect or on its first read", async () => {
  const server = await serve("tcp://127.0.0.1:0", (conn) => conn.abort());
  const outcome = await connect(server.serverAddress).then((conn) => conn.read()).catch((error) => error);
  if (runtime.capabilities.reset) assertInstanceOf(outcome, SocketError);
  assertEquals(outcome?.code ?? null, runtime.capabilities.reset ? "ECONNRESET" : null);
  await server.serverClose();
});

const privileged = "a privileged port without the right to it is EACCES";
const noSetpriv = existsSync("/usr/bin/setpriv") && process.getuid?.() === 0 ? false : "needs root and setpriv(1)";
it(privileged, async () => {
  const { stdout } = await runModule("bind_privileged.ts", (command) => [
    "/usr/bin/setpriv",
    "--bounding-set=-net_bind_service",
    "--inh-caps=-net_bind_service",
    ...command,
  ]);
  assertEquals(stdout.trim(), "SocketError EACCES listen");
}, noSetpriv);

it("a process out of descriptors gets EMFILE, and goes on when some are free again", async () => {
  const { stdout } = await runModule("descriptors.ts", (command) => ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", ...command]);
  assertEquals(stdout.trim().split("\n"), ["listen EMFILE", "connect EMFILE", "served again"]);
});

it("bad input is a TypeError or RangeError before anything is bound", async () => {
  for (const port of [-1, 65536, 1.5, NaN]) {
    assertThrows(() => new TCPServer({ transport: "tcp", hostname: "127.0.0.1", port }, EchoHandler), RangeError, String(port));
    assertThrows(() => parseAddress(`tcp://127.0.0.1:${port}`), RangeError, String(port));
  }
  for (
    const address of ["", "127.0.0.1:80", "tcp://", "tcp://:80", "http://127.0.0.1:80", "tcp://127.0.0.1:80/x", "tcp://::1:80"]
  ) {
    assert(assertThrows(() => new TCPServer(address, EchoHandler), Error).constructor !== Error, address);
  }
  assertThrows(() => new TCPServer({ transport: "tcp", hostname: "", port: 0 }, EchoHandler), TypeError, "hostname");
  assertThrows(() => new TCPServer("udp://127.0.0.1:0", EchoHandler), TypeError, "TCPServer serves tcp");
  assertThrows(() => new AsyncTCPServer("unix:/tmp/x", EchoHandler), TypeError, "AsyncTCPServer serves tcp");
  for (const bad of [undefined, null, {}, () => {}, class {}, "Handler"]) {
    assertThrows(() => new TCPServer("tcp://127.0.0.1:0", bad as never), TypeError, "RequestHandlerClass");
  }
  await assertRejects(() => serve("tcp://127.0.0.1:0", null as never), TypeError, "handler");
  await assertRejects(() => connect("udp://127.0.0.1:1"), TypeError, "tcp");
  for (
    const [options, Class] of [
      [{ requestQueueSize: 0 }, RangeError],
      [{ requestQueueSize: 1.5 }, RangeError],
      [{ timeout: -1 }, RangeError],
      [{ timeout: "5" }, RangeError],
      [{ shutdownTimeout: NaN }, RangeError],
      [{ keepAlive: 5 }, RangeError],
      [{ addressFamily: "IPX" }, TypeError],
      [{ addressFamily: "IPv6" }, TypeError],
      [{ allowReuseAddress: false }, UnsupportedError],
      [{ noSuchOption: 1 }, TypeError],
    ] as const
  ) {
    const server = new TCPServer("tcp://127.0.0.1:0", EchoHandler, options as never);
    await assertRejects(() => server.activate(), Class);
    assertEquals(portOf(server), 0);
  }
});

const noProc = existsSync("/proc/self/fd") ? false : "needs /proc";
it("a thousand failed binds leak no descriptor", async () => {
  const server = new TCPServer("tcp://127.0.0.1:0", EchoHandler);
  await server.activate();
  const descriptors = () => readdirSync("/proc/self/fd").length;
  await failure(`tcp://127.0.0.1:${portOf(server)}`);
  const before = descriptors();
  for (let i = 0; i < 1000; i++) await failure(`tcp://127.0.0.1:${portOf(server)}`);
  assert(descriptors() <= before + 2, `${before} descriptors before, ${descriptors()} after`);
  await server.serverClose();
}, noProc);

for (const [host, peer, peerSeen] of [["::1", "::1", "::1"], ["::", "127.0.0.1", "127.0.0.1"], ["::", "::1", "::1"]] as const) {
  it(`a server on [${host}] serves a client from ${peer}`, async () => {
    const server = await serve(`tcp://[${host}]:0`, (conn) => conn.write(JSON.stringify(conn.remoteAddress)));
    const client = await openSocket({ ...server.serverAddress, hostname: peer } as InetAddress);
    const seen = JSON.parse(new TextDecoder().decode(await client.readAll()));
    assertEquals([seen.hostname, seen.port], [peerSeen, client.port]);
    await client.end();
    await server.serverClose();
  });
}

it("ipv6Only leaves the IPv4 port free, or says that it can't", async () => {
  const server = new TCPServer("tcp://[::]:0", EchoHandler, { ipv6Only: true });
  if (runtime.capabilities.ipv6Only !== true) {
    await assertRejects(() => server.activate(), UnsupportedError, "ipv6Only");
    return;
  }
  await server.activate();
  const other = new TCPServer(`tcp://0.0.0.0:${portOf(server)}`, EchoHandler);
  await other.activate();
  await other.serverClose();
  await server.serverClose();
});

it("allowReusePort shares a port, or says what would make it work", async () => {
  const server = new TCPServer("tcp://127.0.0.1:0", EchoHandler, { allowReusePort: true });
  if (runtime.capabilities.reusePort !== true) {
    await assertRejects(() => server.activate(), UnsupportedError, "--unstable-net");
    return;
  }
  await server.activate();
  const other = new TCPServer(server.serverAddress, EchoHandler, { allowReusePort: true });
  await other.activate();
  await other.serverClose();
  await server.serverClose();
});

it("keepAlive takes a delay, or says that it can't; noDelay and keepAlive can be switched on a connection", async () => {
  const server = new AsyncTCPServer(
    "tcp://127.0.0.1:0",
    handler(async (conn) => {
      conn.setNoDelay(false);
      conn.setNoDelay();
      conn.setKeepAlive();
      conn.setKeepAlive(false);
      await conn.write("ok");
    }),
    { keepAlive: 60_000, noDelay: false },
  );
  if (runtime.capabilities.keepAliveDelay !== true) {
    await assertRejects(() => server.activate(), UnsupportedError, "keepAlive");
    return;
  }
  await server.activate();
  const served = server.serveForever();
  const client = await connectTo(server);
  assertEquals(new TextDecoder().decode(await client.read() ?? undefined), "ok");
  await client.close();
  await server.serverClose();
  await served;
});

it("a host name and its family: localhost over IPv4 is 127.0.0.1", async () => {
  const server = new TCPServer("tcp://localhost:0", EchoHandler, { addressFamily: "IPv4" });
  await server.activate();
  assertEquals("hostname" in server.serverAddress && server.serverAddress.hostname, "127.0.0.1");
  await server.serverClose();
});

/** What becomes of a Unix socket's file, on stream and datagram servers. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  BaseRequestHandler,
  bind,
  connect,
  getRuntime,
  SocketError,
  type TCPServer,
  UnixDatagramServer,
  UnixStreamServer,
  type UnixStreamServerOptions,
} from "@sockets/server";
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { freshPath } from "./adapters.ts";
import { PerlClient } from "./datagram_clients.ts";

const runtime = getRuntime();

for (const transport of ["unix", "unixgram"] as const) {
  if (transport === "unix" || runtime.capabilities.unixDatagram === true) cases(transport);
}

function cases(transport: "unix" | "unixgram"): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport} files: ${name}`, body);
  const make = (path: string, options: UnixStreamServerOptions = {}) => {
    const Server = (transport === "unix" ? UnixStreamServer : UnixDatagramServer) as unknown as typeof UnixStreamServer;
    return new Server({ transport, path }, BaseRequestHandler, options);
  };
  const code = async (server: TCPServer) => (await assertRejects(() => server.activate(), SocketError)).code;

  /** Leaves a file behind as a killed server does. */
  async function leaveStale(path: string): Promise<void> {
    const owner = await PerlClient.open(path, path);
    process.kill(owner.pid, "SIGKILL");
    await owner.exited;
    assert(lstatSync(path).isSocket());
  }

  it("the file has the permissions of `mode`, 0o600 by default, and is gone after serverClose", async () => {
    for (const [mode, expected] of [[undefined, 0o600], [0o660, 0o660], [0o666, 0o666]] as const) {
      const path = freshPath();
      const before = process.umask();
      const server = make(path, { mode });
      await server.activate();
      const { mode: found } = lstatSync(path);
      assertEquals(found & 0o777, expected);
      assertEquals(process.umask(), before);
      await server.serverClose();
      assert(!existsSync(path));
    }
  });

  it("a stale file is replaced, unless allowReuseAddress is off", async () => {
    const path = freshPath();
    await leaveStale(path);
    assertEquals(await code(make(path, { allowReuseAddress: false })), "EADDRINUSE");
    const server = make(path);
    await server.activate();
    await server.serverClose();
    assert(!existsSync(path));
  });

  it("a live one is EADDRINUSE, whatever its kind, and stays alive", async () => {
    const path = freshPath();
    const foreign = await PerlClient.open(path, path);
    assertEquals(await code(make(path)), "EADDRINUSE");
    assert(lstatSync(path).isSocket());
    await foreign.close();
    const server = make(path);
    await server.activate();
    for (const other of [make(path), make(path)]) assertEquals(await code(other), "EADDRINUSE");
    if (transport === "unix") await (await connect({ transport, path })).close();
    await server.serverClose();
  });

  it("a stream socket is alive for a datagram server too", async () => {
    const path = freshPath();
    const stream = new UnixStreamServer({ transport: "unix", path }, BaseRequestHandler);
    await stream.activate();
    assertEquals(await code(make(path)), "EADDRINUSE");
    await stream.serverClose();
  });

  it("an ordinary file and a directory are EADDRINUSE and are not touched", async () => {
    const file = freshPath();
    writeFileSync(file, "precious");
    const directory = freshPath();
    mkdirSync(directory);
    for (const path of [file, directory]) assertEquals(await code(make(path)), "EADDRINUSE");
    assertEquals(readFileSync(file, "utf8"), "precious");
    rmSync(file);
    rmSync(directory, { recursive: true });
  });

  it("a directory that doesn't exist is ENOENT", async () => {
    assertEquals(await code(make(`${freshPath()}/socket`)), "ENOENT");
  });

  it("a path of the longest that the system allows works; a longer one is ENAMETOOLONG before bind", async () => {
    const longest = runtime.capabilities.socketPathLength;
    const directory = mkdtempSync(join(tmpdir(), "s-"));
    const path = `${directory}/`.padEnd(longest, "x");
    const server = make(path);
    await server.activate();
    assert(lstatSync(path).isSocket());
    await server.serverClose();
    // Counted in bytes, not in characters.
    for (const long of [`${path}x`, `${directory}/`.padEnd(longest - 1, "x") + "é"]) {
      assertEquals(await code(make(long)), "ENAMETOOLONG");
    }
    const to = { transport, path: `${path}x` };
    const error = await assertRejects(() => transport === "unix" ? connect(to) : bind(to), SocketError);
    assertEquals(error.code, "ENAMETOOLONG");
    rmSync(directory, { recursive: true });
  });

  it("a NUL inside of a path is a TypeError, and a bad mode a RangeError", async () => {
    await assertRejects(() => make("/tmp/a\0b").activate(), TypeError);
    for (const mode of [-1, 0o1000, 1.5, NaN]) await assertRejects(() => make(freshPath(), { mode }).activate(), RangeError);
  });

  if (transport === "unix") {
    it("abstract names have no file", async () => {
      const path = `\0sockets-${crypto.randomUUID()}`;
      const server = make(path);
      await server.activate();
      assertEquals(server.serverAddress, { transport, path });
      assertEquals(await code(make(path)), "EADDRINUSE");
      await (await connect({ transport, path })).close();
      await server.serverClose();
      assertEquals((await assertRejects(() => connect({ transport, path }), SocketError)).code, "ECONNREFUSED");
    });

    it("connecting to what isn't there is ENOENT, to a stale file ECONNREFUSED", async () => {
      const path = freshPath();
      assertEquals((await assertRejects(() => connect({ transport, path }), SocketError)).code, "ENOENT");
      await leaveStale(path);
      assertEquals((await assertRejects(() => connect({ transport, path }), SocketError)).code, "ECONNREFUSED");
      rmSync(path);
    });
  }
}

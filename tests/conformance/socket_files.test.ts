/** What becomes of a Unix socket's file, on stream and datagram servers. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
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
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { setMode } from "../../runtimes/shared/file_mode.ts";
import { Program } from "../interop/programs.ts";
import { freshPath } from "./adapters.ts";
import { commandFor } from "./children.ts";
import { PerlClient } from "./datagram_clients.ts";

const runtime = getRuntime();

for (const transport of ["unix", "unixgram"] as const) {
  if (transport === "unix" || runtime.capabilities.unixDatagram === true) cases(transport);
}

function cases(transport: "unix" | "unixgram"): void {
  const it = (name: string, body: () => void | Promise<void>) => void test(`${runtime.name} ${transport} files: ${name}`, body);
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

  /** Leaves files behind in a new directory, as many killed servers do. */
  function leaveStaleFiles(count: number): { directory: string; paths: string[] } {
    const directory = mkdtempSync(join(tmpdir(), "sockets-"));
    const paths = Array.from({ length: count }, (_, i) => join(directory, `s${i}`));
    const program = "use Socket; for (@ARGV) { socket(my $s, AF_UNIX, " +
      (transport === "unix" ? "SOCK_STREAM" : "SOCK_DGRAM") + ", 0); bind($s, pack_sockaddr_un($_)) or die $! }";
    execFileSync("perl", ["-e", program, ...paths]);
    return { directory, paths };
  }

  function launchServer(directory?: string): Program {
    const [binary, ...args] = commandFor(new URL("programs/unix_server.ts", import.meta.url));
    return new Program(binary!, args, directory);
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

  it("in a worker thread too", async () => {
    for (const mode of [0o600, 0o666]) {
      const path = freshPath();
      const worker = new Worker(new URL("handlers/unix_worker.ts", import.meta.url), { workerData: { transport, path, mode } });
      const exited = once(worker, "exit");
      const [found] = await once(worker, "message");
      assertEquals(found, mode);
      await exited;
      assert(!existsSync(path));
    }
  });

  it("there is nothing beside the file, neither before serverClose nor after", async () => {
    const { directory, paths: [path] } = leaveStaleFiles(1);
    for (const left of [["s0"], []]) {
      assertEquals(readdirSync(directory), left);
      const server = make(path!);
      await server.activate();
      assertEquals(readdirSync(directory), ["s0"]);
      assertEquals(server.serverAddress, { transport, path: path! });
      await server.serverClose();
      assertEquals(readdirSync(directory), []);
    }
    rmSync(directory, { recursive: true });
  });

  it("serverClose leaves alone what has taken the file's place: another server's, an ordinary file, a directory, a link", async () => {
    const path = freshPath();
    const served = async () => {
      const server = make(path);
      await server.activate();
      return server;
    };
    let old = await served();
    rmSync(path);
    const other = await served();
    const { ino } = lstatSync(path);
    await old.serverClose();
    assertEquals(lstatSync(path).ino, ino);
    assertEquals(await code(make(path)), "EADDRINUSE");
    // One that was moved away is not looked for.
    renameSync(path, `${path}-moved`);
    writeFileSync(path, "precious");
    await other.serverClose();
    assertEquals(readFileSync(path, "utf8"), "precious");
    assert(lstatSync(`${path}-moved`).isSocket());
    rmSync(`${path}-moved`);
    for (const take of [() => mkdirSync(path), () => symlinkSync("nowhere", path)]) {
      rmSync(path);
      old = await served();
      rmSync(path);
      take();
      await old.serverClose();
      assert(!lstatSync(path).isSocket());
      if (lstatSync(path).isDirectory()) rmSync(path, { recursive: true });
      else rmSync(path);
      writeFileSync(path, "");
    }
    rmSync(path);
  });

  it("a program that ends without serverClose leaves no file behind", async () => {
    const path = freshPath();
    const program = launchServer();
    assertEquals(await program.line(), "ready");
    program.send(`activate ${transport} ${path} ${0o600}\n`);
    assertEquals(await program.line(), "bound");
    program.send("exit\n");
    assertEquals(await program.exited, 0);
    assert(!existsSync(path));
  });

  it("the file of a relative path is removed from any directory", async () => {
    const directory = mkdtempSync(join(tmpdir(), "sockets-"));
    const program = launchServer(directory);
    assertEquals(await program.line(), "ready");
    program.send(`activate ${transport} relative ${0o600}\n`);
    assertEquals(await program.line(), "bound");
    assertEquals(readdirSync(directory), ["relative"]);
    program.send("leave\nclose\nexit\n");
    assertEquals(await program.line(), "closed");
    assertEquals(await program.exited, 0);
    assertEquals(readdirSync(directory), []);
    rmSync(directory, { recursive: true });
  });

  it("mode is never set through a link, nor on another's file", () => {
    const path = freshPath();
    const victim = freshPath();
    writeFileSync(victim, "", { mode: 0o600 });
    symlinkSync(victim, path);
    assertThrows(() => setMode(path, 0o666, { transport, path }), SocketError, "replaced");
    assertThrows(() => setMode(victim, 0o666, { transport, path }), SocketError, "replaced");
    assertEquals(lstatSync(victim).mode & 0o777, 0o600);
    for (const file of [path, victim]) rmSync(file);
  });

  it("of ten that start at once over a stale file exactly one wins, fifty times", async () => {
    const { directory, paths } = leaveStaleFiles(50);
    for (const path of paths) {
      const servers = Array.from({ length: 10 }, () => make(path));
      const results = await Promise.all(servers.map((server) => server.activate().then(() => "bound", ({ code }) => code)));
      assertEquals(results.toSorted(), [...Array(9).fill("EADDRINUSE"), "bound"]);
      const winner = servers[results.indexOf("bound")]!;
      assertEquals(await code(make(path)), "EADDRINUSE");
      await winner.serverClose();
    }
    assertEquals(readdirSync(directory), []);
    rmSync(directory, { recursive: true });
  });

  it("of six processes that start at once over a stale file exactly one wins, fifty times", async () => {
    const { directory, paths } = leaveStaleFiles(50);
    const programs = Array.from({ length: 6 }, () => launchServer());
    for (const program of programs) assertEquals(await program.line(), "ready");
    for (const path of paths) {
      for (const program of programs) program.send(`activate ${transport} ${path} ${0o600}\n`);
      const results = await Promise.all(programs.map(async (program) => (await program.line()).split(" ")[0]!));
      assertEquals(results.toSorted(), [...Array(5).fill("EADDRINUSE"), "bound"]);
      const winner = programs[results.indexOf("bound")]!;
      winner.send("close\n");
      assertEquals(await winner.line(), "closed");
    }
    for (const program of programs) program.send("exit\n");
    for (const program of programs) assertEquals(await program.exited, 0);
    assertEquals(readdirSync(directory), []);
    rmSync(directory, { recursive: true });
  });

  it("a path that leaves no room for another beside it is served the same way", async () => {
    const parent = mkdtempSync(join(tmpdir(), "s-"));
    const directory = `${parent}/`.padEnd(runtime.capabilities.socketPathLength - 2, "x");
    mkdirSync(directory);
    const path = `${directory}/s`;
    for (const mode of [0o600, 0o666]) {
      await leaveStale(path);
      const servers = Array.from({ length: 10 }, () => make(path, { mode }));
      const results = await Promise.all(servers.map((server) => server.activate().then(() => "bound", ({ code }) => code)));
      assertEquals(results.toSorted(), [...Array(9).fill("EADDRINUSE"), "bound"]);
      assertEquals(lstatSync(path).mode & 0o777, mode);
      assertEquals(readdirSync(directory), ["s"]);
      const winner = servers[results.indexOf("bound")]!;
      // What has taken the file's place stays, as another server's that listens.
      rmSync(path);
      const other = make(path);
      await other.activate();
      const { ino } = lstatSync(path);
      await winner.serverClose();
      assertEquals(lstatSync(path).ino, ino);
      assertEquals(await code(make(path)), "EADDRINUSE");
      await other.serverClose();
      assertEquals(readdirSync(directory), []);
    }
    rmSync(parent, { recursive: true });
  });

  it("a lock that a killed server has left behind is broken", async () => {
    const { directory, paths: [path] } = leaveStaleFiles(1);
    mkdirSync(`${directory}/.s0.lock/0badcafe`, { recursive: true });
    renameSync(path!, `${directory}/.s0.lock/0badcafe/stale-socket.0badcafe`);
    execFileSync("perl", [
      "-e",
      "use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0); bind($s, pack_sockaddr_un($ARGV[0])) or die",
      path!,
    ]);
    const server = make(path!);
    await server.activate();
    assertEquals(readdirSync(directory), ["s0"]);
    await server.serverClose();
    rmSync(directory, { recursive: true });
  });

  it("a server that listens doesn't notice those that look whether it does", async () => {
    const path = freshPath();
    let connections = 0;
    const foreign = createServer((socket) => {
      connections++;
      socket.on("error", () => {});
    });
    foreign.listen(path);
    await once(foreign, "listening");
    for (let i = 0; i < 5; i++) assertEquals(await code(make(path)), "EADDRINUSE");
    // Connections come in order: what the servers had made would have come before this one.
    const seen = once(foreign, "connection");
    const client = await connect({ transport: "unix", path });
    await seen;
    assertEquals(connections, 1);
    await client.close();
    foreign.close();
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

/** What replicas promise, in processes and in threads. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  connect,
  type InetAddress,
  Replicas,
  type ReplicasOptions,
  SocketError,
  TCPServer,
  UDPServer,
  UnsupportedError,
  type WorkerKind,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { test } from "node:test";
import { freshPath, openSocket } from "./adapters.ts";
import { UdpClient } from "./datagram_clients.ts";
import { ask, gone, idsOf, leave, open, openAll, Quiet, runtime, service, serving, settled, text } from "./replicating.ts";
import { EchoHandler, until } from "./serving.ts";
import { local, open as openTls } from "./tls_serving.ts";

for (const kind of ["process", "thread"] as const) {
  cases(kind);
  if (runtime.capabilities.reusePortUdp === true) datagramCases(kind);
}

function cases(kind: WorkerKind): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp replicas, ${kind}: ${name}`, body);

  it("all of them answer on one address", () =>
    serving({ kind, count: 3 }, async (replicas) => {
      const clients = await openAll(replicas);
      assertEquals(new Set(clients.keys()), idsOf(replicas) as Set<number>);
      for (const client of clients.values()) assertEquals(await ask(client, "hello"), "hello");
      assertEquals(replicas.members.map(({ index, kind, state, restarts, pause }) => ({ index, kind, state, restarts, pause })), [
        { index: 0, kind, state: "running", restarts: 0, pause: null },
        { index: 1, kind, state: "running", restarts: 0, pause: null },
        { index: 2, kind, state: "running", restarts: 0, pause: null },
      ]);
    }));

  it("the servers know their address and data, and are what the module makes", async () => {
    await serving({ kind, data: { greeting: "hello" } }, async (replicas) => {
      for (const client of (await openAll(replicas)).values()) {
        assertEquals(JSON.parse(await ask(client, "facts")), {
          serverAddress: replicas.serverAddress,
          data: { greeting: "hello" },
        });
      }
    });
    await serving({ kind, data: "theirs" }, async (replicas) => {
      for (const client of (await openAll(replicas)).values()) {
        assertEquals(JSON.parse(await ask(client, "facts")).data, "mine");
      }
    }, { name: "mine" });
  });

  it("each speaks TLS, with the certificate that its module gives it", () =>
    serving({ kind, data: local() }, async (replicas) => {
      const { port } = replicas.serverAddress as InetAddress;
      for (const ids = new Set<string>(); ids.size < 2;) {
        const client = await openTls(port);
        client.end("hello");
        let received = "";
        for await (const chunk of client) received += chunk;
        const [id, echoed] = received.split("\n");
        assertEquals(echoed, "hello");
        ids.add(id!);
      }
    }, { address: "tls://127.0.0.1:0", name: "secured" }));

  it("stats are sums, and stay when the replicas are closed", async () => {
    const replicas = new Quiet("tcp://127.0.0.1:0", service(), { kind, count: 2 });
    await replicas.activate();
    const served = replicas.serveForever();
    let connections = 0;
    for (const ids = new Set<number>(); ids.size < 2; connections++) {
      const { client, id } = await open(replicas);
      ids.add(id);
      assertEquals(await ask(client, "throw"), "");
    }
    const { client } = await open(replicas);
    const { accepted, active, errors } = await replicas.stats();
    assertEquals([accepted, active, errors], [connections + 1, 1, connections]);
    await leave(client);
    await replicas.serverClose();
    await served;
    const after = await replicas.stats();
    assertEquals([after.accepted, after.active, after.errors], [connections + 1, 0, connections]);
  });

  it("drain waits for the requests of all, and aborts those that take too long", async () => {
    await serving({ kind }, async (replicas) => {
      const clients = [...(await openAll(replicas)).values()];
      for (const client of clients) {
        await client.write("wait");
        assertEquals(await client.read(7), "waiting");
      }
      const down = replicas.shutdown({ drain: 60_000 });
      for (const client of clients) {
        await client.write("go");
        assertEquals(text(await client.readAll()), "over");
        await client.end();
      }
      await down;
      assertEquals((await replicas.stats()).aborted, 0);
      const served = replicas.serveForever();
      const stubborn = await openAll(replicas);
      await replicas.shutdown({ drain: 10 });
      await served;
      for (const client of stubborn.values()) assertEquals(text(await client.readAll()), "");
      assertEquals((await replicas.stats()).aborted, 2);
      assertEquals(replicas.errors, []);
    });
  });

  it("a signal stops them; what comes then waits for the next serveForever()", async () => {
    const replicas = new Quiet("tcp://127.0.0.1:0", service(), { kind, count: 2 });
    const abort = new AbortController();
    await replicas.activate();
    const served = replicas.serveForever({ signal: abort.signal });
    await assertRejects(() => replicas.serveForever(), Error, "already");
    await leave((await open(replicas)).client);
    abort.abort();
    await served;
    const waiting = await openSocket(replicas.serverAddress);
    // One that comes before it makes serveForever() return at once, and only once.
    await replicas.shutdown();
    await replicas.serveForever();
    const again = replicas.serveForever();
    assert((await waiting.read(1)).length > 0);
    await leave(waiting);
    for (const client of (await openAll(replicas)).values()) await leave(client);
    await replicas.serverClose();
    await again;
    await assertRejects(() => connect(replicas.serverAddress), SocketError, "ECONNREFUSED");
    // On the same port.
    const address = replicas.serverAddress;
    await replicas.activate();
    assertEquals(replicas.serverAddress, address);
    await replicas.serverClose();
  });

  it("a port that somebody has is EADDRINUSE, even if it could be shared, unless that is wanted", async () => {
    await serving({ kind }, async (replicas) => {
      const second = new Quiet(replicas.serverAddress as never, service(), { kind, count: 1 });
      const error = await assertRejects(() => second.activate(), SocketError);
      assertEquals(error.code, "EADDRINUSE");
      assertEquals(second.members.length, 0);
      const shared = new Quiet(replicas.serverAddress, service(), { kind, count: 1, allowReusePort: true });
      await shared.activate();
      await shared.serverClose();
      const fresh = new TCPServer("tcp://127.0.0.1:0", EchoHandler);
      await fresh.activate();
      const third = new Quiet(fresh.serverAddress, service(), { kind, count: 1, allowReusePort: true });
      assertEquals(((await assertRejects(() => third.activate(), Error)) as SocketError).code, "EADDRINUSE");
      await fresh.serverClose();
    });
  });

  it("a server whose handlers run in threads of its own", () =>
    serving({ kind }, async (replicas) => {
      const clients = await Promise.all(Array.from({ length: 8 }, () => openSocket(replicas.serverAddress)));
      for (const client of clients) assertEquals(await ask(client, "hello"), "hello");
    }, { name: "threading" }));

  it("closed while they start, none is left", async () => {
    const replicas = new Quiet("tcp://127.0.0.1:0", service("slow"), { kind, count: 2 });
    const failed = assertRejects(() => replicas.activate(), Error, "closed while");
    await until(() => replicas.members[0]?.state === "starting");
    const { id } = replicas.members[0]!;
    await replicas.serverClose();
    await failed;
    if (kind === "process") await until(() => gone(id!));
    assertEquals(replicas.errors, []);
  });

  if (kind === "thread") {
    it("threads share what is passed to them", async () => {
      const data = new SharedArrayBuffer(4);
      await serving({ kind, data }, async (replicas) => {
        for (const client of (await openAll(replicas)).values()) assertEquals(await ask(client, "count"), "counted");
      });
      assertEquals(new Int32Array(data)[0], 2);
    });
  }
}

function datagramCases(kind: WorkerKind): void {
  test(`${runtime.name} udp replicas, ${kind}: all of them answer, and one that dies is started again`, () =>
    serving({ kind }, async (replicas) => {
      const { port } = replicas.serverAddress as { port: number };
      // The kernel goes by the sender's port. What was on its way to one that dies is lost.
      const answerOf = async (message: string) => {
        const client = await UdpClient.open(port, "127.0.0.1");
        await client.send(message);
        const { data } = await client.receive();
        await client.close();
        return Number(text(data));
      };
      const all = async () => {
        const ids = new Set<number | null>();
        while (ids.size < 2) ids.add(await answerOf("who"));
        return ids;
      };
      assertEquals(await all(), idsOf(replicas));
      const killer = await UdpClient.open(port, "127.0.0.1");
      await killer.send("exit");
      await killer.close();
      await until(() => replicas.errors.length === 1);
      await settled(replicas);
      assertEquals(await all(), idsOf(replicas));
    }, { address: "udp://127.0.0.1:0", name: "datagrams" }));

  test(`${runtime.name} udp replicas, ${kind}: a port that somebody has is EADDRINUSE`, async () => {
    const server = new UDPServer("udp://127.0.0.1:0", EchoHandler as never);
    await server.activate();
    const replicas = new Quiet(server.serverAddress, service("datagrams"), { kind });
    assertEquals((await assertRejects(() => replicas.activate(), SocketError)).code, "EADDRINUSE");
    await server.serverClose();
  });
}

test(`${runtime.name} replicas: what can't share its address is an UnsupportedError that says what to use`, async () => {
  const unsupported = async (address: string, options: ReplicasOptions, message: string) => {
    const replicas = new Replicas(address, service(), options);
    await assertRejects(() => replicas.activate(), UnsupportedError, message);
    assertEquals(replicas.members.length, 0);
    await replicas.serverClose();
  };
  await unsupported(`unix:${freshPath()}`, {}, "ThreadingUnixStreamServer");
  await unsupported(`unixgram:${freshPath()}`, {}, "ForkingUnixDatagramServer");
  await unsupported("tcp://127.0.0.1:0", { runtime: memory }, "on memory here");
  await unsupported("udp://127.0.0.1:0", { runtime: memory }, "on memory here");
  if (runtime.capabilities.reusePortUdp !== true) await unsupported("udp://127.0.0.1:0", {}, runtime.capabilities.reusePortUdp);
});

test(`${runtime.name} replicas: bad arguments are errors before anything is started`, async () => {
  const made = (module: unknown) => new Replicas("tcp://127.0.0.1:0", module as URL);
  assertThrows(() => made(() => {}), TypeError, "a function");
  assertThrows(() => made("./service.ts"), TypeError, "./service.ts");
  assertThrows(() => new Replicas("tcp://127.0.0.1", service()), TypeError);
  assertThrows(() => new Replicas("tcp://127.0.0.1:0", service(), null as never), TypeError, "options");
  const bad: [Record<string, unknown>, typeof TypeError | typeof RangeError, string][] = [
    [{ count: 0 }, RangeError, "count"],
    [{ count: 1.5 }, RangeError, "count"],
    [{ count: Infinity }, RangeError, "count"],
    [{ kind: "fork" }, TypeError, "fork"],
    [{ restartPause: -1 }, RangeError, "restartPause"],
    [{ restartPause: 2, maxRestartPause: 1 }, RangeError, "maxRestartPause"],
    [{ maxRestartPause: Infinity }, RangeError, "maxRestartPause"],
    [{ startAttempts: 0 }, RangeError, "startAttempts"],
    [{ shutdownTimeout: NaN }, RangeError, "shutdownTimeout"],
    [{ replicas: 4 }, TypeError, "unknown option: replicas"],
  ];
  for (const [options, Class, message] of bad) {
    const replicas = new Replicas("tcp://127.0.0.1:0", service(), options);
    await assertRejects(() => replicas.activate(), Class as typeof TypeError, message);
    await replicas.serverClose();
  }
  const replicas = made(service());
  await assertRejects(() => replicas.shutdown({ drain: -1 }), RangeError, "drain");
  await replicas.serverClose();
  await replicas.serverClose();
});

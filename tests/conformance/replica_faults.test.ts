/** What goes wrong in replicas, in processes and in threads, and what becomes of the others. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { connect, type Replica, SocketError, SystemExit, TCPServer, type WorkerKind } from "@sockets/server";
import { spawn } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { type Client, freshPath } from "./adapters.ts";
import { commandFor } from "./children.ts";
import { ask, gone, leave, open, openAll, Quiet, restarts, runtime, service, serving, settled, text } from "./replicating.ts";
import { EchoHandler, until } from "./serving.ts";

for (const kind of ["process", "thread"] as const) faults(kind);

function faults(kind: WorkerKind): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp replicas, ${kind}: ${name}`, body);

  it("one that dies takes its own connections with it and is started again", () =>
    serving({ kind }, async (replicas) => {
      const faults = [["exit", /exit status 7/], ["die", kind === "thread" ? /died as told/ : /exit status/]] as const;
      for (const [i, [fault, cause]] of faults.entries()) {
        const [[id, victim], [otherId, other]] = [...await openAll(replicas)] as [[number, Client], [number, Client]];
        assertEquals(await ask(victim, fault), "");
        await until(() => replicas.errors.length === i + 1);
        assert(cause.test(replicas.errors[i]!.message), String(replicas.errors[i]));
        await other.write("still here");
        assertEquals(await other.read(10), "still here");
        await settled(replicas);
        const after = await openAll(replicas);
        assert(after.has(otherId));
        if (kind === "process") assert(!after.has(id));
        assertEquals(restarts(replicas), i + 1);
        for (const client of [...after.values(), other]) await leave(client);
      }
    }));

  it("what one that died had counted stays counted, and totals only grow", () =>
    serving({ kind }, async (replicas) => {
      let least = await replicas.stats();
      const grown = async () => {
        const stats = await replicas.stats();
        for (const name of ["accepted", "errors", "bytesRead", "bytesWritten"] as const) {
          assert(stats[name] >= least[name], `${name} went from ${least[name]} to ${stats[name]}`);
        }
        assert(stats.requestTime.count >= least.requestTime.count);
        const ended = Object.values(stats.ended).reduce((sum, count) => sum + count, 0);
        assertEquals(ended, stats.accepted - stats.active + stats.refused);
        return least = stats;
      };
      for (let round = 0; round < 3; round++) {
        const clients = await openAll(replicas);
        for (let i = 0; i < 5; i++) await ask((await open(replicas)).client, "throw");
        const before = await grown();
        assert(before.accepted >= clients.size + 5 && before.active >= 2);
        const [[id, victim], [, other]] = [...clients] as [[number, Client], [number, Client]];
        // A process goes without a word.
        if (kind === "process") process.kill(id, "SIGKILL");
        else assertEquals(await ask(victim, "exit"), "");
        await until(() => restarts(replicas) === round + 1);
        assert((await grown()).accepted >= before.accepted);
        await settled(replicas);
        assert((await grown()).accepted >= before.accepted);
        await leave(other);
      }
      await replicas.shutdown({ drain: 0 });
      await grown();
      await replicas.serverClose();
      assertEquals((await grown()).active, 0);
      await replicas.activate();
      const served = replicas.serveForever();
      served.catch(() => {});
      await grown();
    }));

  it("one that dies without having been asked has told of itself", () =>
    serving({ kind, count: 1 }, async (replicas) => {
      for (let i = 0; i < 5; i++) await ask((await open(replicas)).client, "hello");
      const { client } = await open(replicas);
      // Every second it does.
      await new Promise((resolve) => setTimeout(resolve, 2500));
      await ask(client, "exit");
      await until(() => restarts(replicas) === 1);
      assert((await replicas.stats()).accepted >= 6);
    }));

  it("the pauses before it is started again grow", () =>
    serving({ kind, count: 1 }, async (replicas) => {
      for (let i = 0; i < 4; i++) {
        const { client } = await open(replicas);
        await ask(client, "exit");
        await until(() => replicas.errors.length === i + 1);
        await settled(replicas);
      }
      assertEquals(replicas.pauses, [1, 2, 4, 8]);
      assertEquals(replicas.members[0]!.restarts, 4);
    }));

  it("while one pauses, the others serve and the port is taken", () =>
    serving({ kind, restartPause: 20_000 }, async (replicas) => {
      const [victim, other] = (await openAll(replicas)).values() as unknown as [Client, Client];
      await ask(victim, "exit");
      await until(() => replicas.members.some(({ state }) => state === "pausing"));
      const paused = replicas.members.find(({ state }) => state === "pausing")!;
      assertEquals([paused.id, paused.pause], [null, 20_000]);
      const error = await assertRejects(() => new TCPServer(replicas.serverAddress, EchoHandler).activate(), SocketError);
      assertEquals(error.code, "EADDRINUSE");
      for (let i = 0; i < 10; i++) assertEquals(await ask((await open(replicas)).client, "hello"), "hello");
      await leave(other);
    }));

  it("SystemExit, shutdown() of a handler's own server, and what handleError throws, end them all", async () => {
    class Strict extends Quiet {
      override handleError(_replica: Replica, error: unknown): void {
        throw new Error("not with me", { cause: error });
      }
    }
    const replicas = new Strict("tcp://127.0.0.1:0", service(), { kind, count: 2 });
    const afterTelling = async (command: string) => {
      await replicas.activate();
      const served = replicas.serveForever();
      served.catch(() => {});
      await ask((await open(replicas)).client, command);
      return await served;
    };
    try {
      assertEquals((await assertRejects(() => afterTelling("system exit"), SystemExit)).exitCode, 3);
      // They can go on, all of them.
      await afterTelling("shutdown");
      const served = replicas.serveForever();
      for (const client of (await openAll(replicas)).values()) await leave(client);
      await replicas.shutdown();
      await served;
      await assertRejects(() => afterTelling("exit"), Error, "not with me");
    } finally {
      await replicas.serverClose();
    }
  });

  it("what is wrong with the module shows in activate, once, and none is left", async () => {
    const bad: [string, RegExp][] = [
      ["./handlers/missing.ts", /missing\.ts/],
      ["./handlers/syntax_error.txt", /./],
      ["./handlers/replica.ts#notAFunction", /must export a function that makes a server as notAFunction, got 42/],
      ["./handlers/replica.ts#nothing", /must return one, got undefined/],
      ["./handlers/replica.ts#stillborn", /exit status 9/],
    ];
    for (const [module, message] of bad) {
      const replicas = new Quiet("tcp://127.0.0.1:0", new URL(module, import.meta.url), {
        kind,
        count: module.endsWith("stillborn") ? 2 : 1,
      });
      const error = await assertRejects(() => replicas.activate(), Error);
      assert(message.test(error.message), `${module}: ${error}`);
      assertEquals([replicas.members.length, replicas.errors.length], [0, 0]);
      assertEquals((replicas.serverAddress as { port: number }).port, 0);
      await replicas.serverClose();
    }
  });

  it("it gives up when none can be started any more, and not before", async () => {
    const path = freshPath();
    const replicas = new Quiet("tcp://127.0.0.1:0", service("fragile"), { kind, count: 2, data: path, startAttempts: 3 });
    await replicas.activate();
    const served = replicas.serveForever();
    served.catch(() => {});
    const clients = await openAll(replicas);
    writeFileSync(path, "");
    try {
      const [first, second] = [...clients.values()] as [Client, Client];
      await ask(first, "exit");
      // As long as one of the two runs, the other is tried again and again.
      await until(() => replicas.errors.length >= 6);
      await second.write("still here");
      assertEquals(await second.read(10), "still here");
      rmSync(path);
      await settled(replicas);
      await leave(second);
      writeFileSync(path, "");
      for (const client of (await openAll(replicas)).values()) await ask(client, "exit");
      const error = await assertRejects(() => served, Error);
      assertEquals(error.message, "fragile, and broken");
      assert(replicas.members.every(({ state }) => state !== "running" && state !== "pausing"));
    } finally {
      rmSync(path, { force: true });
      await replicas.serverClose();
    }
  });

  it("one that computes without end is ended when the others have stopped", () => {
    const stop = new Int32Array(new SharedArrayBuffer(4));
    return serving(kind === "thread" ? { kind, data: { stop: stop.buffer } } : { kind }, async (replicas) => {
      const [busy, idle] = (await openAll(replicas)).values() as unknown as [Client, Client];
      await busy.write("compute");
      assertEquals(await busy.read(9), "computing");
      await leave(idle);
      await replicas.shutdown({ drain: 0 });
      await until(() => replicas.errors.length === 1);
      assert(/did not answer/.test(replicas.errors[0]!.message), String(replicas.errors[0]));
      assertEquals(replicas.pauses, [null]);
      assertEquals(new Set(replicas.members.map(({ state }) => state)), new Set(["running", "stopped"]));
      if (kind === "thread") return busy.reset();
      await busy.readAll();
      // And the next serveForever() starts another in its place.
      const served = replicas.serveForever();
      await settled(replicas);
      for (const client of (await openAll(replicas)).values()) await leave(client);
      await replicas.shutdown();
      await served;
    }).finally(() => Atomics.store(stop, 0, 1));
  });
}

test(`${runtime.name} tcp replicas, process: kill -9 of one while clients talk harms its connections alone`, () =>
  serving({ count: 3 }, async (replicas) => {
    const { id: victim } = replicas.members[1]!;
    let talking = 0;
    let over = false;
    const talk = async () => {
      const { client, id } = await open(replicas);
      const message = new Uint8Array(10_000).map((_, i) => i * id);
      let sent = 0;
      for (;;) {
        await client.write(message).catch(() => {});
        const answer = await client.read(1);
        if (answer === "") break;
        let size = answer.length;
        while (size < text(message).length) {
          const more = await client.read(1);
          if (more === "") break;
          size += more.length;
        }
        if (size < text(message).length) break;
        if (sent++ === 0) talking++;
        if (over) {
          await client.end();
          assertEquals(text(await client.readAll()), "");
          return { id, survived: true };
        }
      }
      return { id, survived: false };
    };
    const talks = Array.from({ length: 24 }, talk);
    await until(() => talking === 24);
    process.kill(victim!, "SIGKILL");
    await until(() => replicas.errors.length === 1);
    assert(/SIGKILL/.test(replicas.errors[0]!.message), String(replicas.errors[0]));
    await settled(replicas);
    over = true;
    for (const { id, survived } of await Promise.all(talks)) assertEquals(survived, id !== victim);
    for (const client of (await openAll(replicas)).values()) await leave(client);
  }));

test(`${runtime.name} tcp replicas, process: none outlives its supervisor, and what was bound is free`, async () => {
  const [binary, ...args] = commandFor(new URL("./programs/replicas.ts", import.meta.url));
  const parent = spawn(binary!, args, { stdio: ["ignore", "pipe", "inherit"] });
  const line = await new Promise<string>((resolve) => createInterface(parent.stdout!).once("line", resolve));
  const { listening, ids } = JSON.parse(line) as { listening: string; ids: number[] };
  const clients = await Promise.all(Array.from({ length: 10 }, () => connect(listening)));
  for (const client of clients) await client.read();
  const exited = new Promise((resolve) => parent.once("exit", resolve));
  process.kill(parent.pid!, "SIGKILL");
  await exited;
  await until(() => ids.every(gone));
  for (const client of clients) {
    await client.read().catch(() => null);
    await client.close();
  }
  const server = new TCPServer(listening, EchoHandler);
  await server.activate();
  await server.serverClose();
});

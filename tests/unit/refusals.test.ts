/** How soon a connection that is refused is aborted, by a clock that the test moves, and what that is good for. */
import { assert, assertEquals } from "@std/assert";
import { AsyncTCPServer, BaseRequestHandler, getRuntime } from "@sockets/server";
import { test } from "node:test";
import { Refusals } from "../../src/refusals.ts";
import type { Listener, RawConnection } from "../../src/runtime.ts";
import { certificate } from "../conformance/certificates.ts";
import { FakeClock } from "./fake_clock.ts";

/** Refusals by a fake clock, and a way to refuse a number of connections. */
function refusing() {
  const clock = new FakeClock();
  const refusals = new Refusals(clock);
  const state = { aborted: 0 };
  const connection = { abort: () => void state.aborted++ } as unknown as RawConnection;
  const refuse = (count: number) => {
    for (let i = 0; i < count; i++) refusals.refuse(connection);
  };
  return { clock, refusals, state, refuse };
}

test("refusals: a connection is aborted at once, and so is each that comes when nobody floods the server", () => {
  const { clock, refusals, state, refuse } = refusing();
  for (let i = 1; i <= 100; i++) {
    refuse(1);
    assertEquals([state.aborted, refusals.size], [i, 0]);
    clock.pass(1);
  }
  clock.pass(1);
  assertEquals(clock.calls.size, 0, "a timer runs that nobody needs");
});

test("refusals: of many at once the first are aborted at once, and the others two in a millisecond", () => {
  const { clock, refusals, state, refuse } = refusing();
  refuse(100);
  assertEquals(state.aborted, 2);
  for (let ms = 1; ms < 50; ms++) {
    clock.pass(1);
    assertEquals([state.aborted, refusals.size], [2 + 2 * ms, 98 - 2 * ms]);
  }
  clock.pass(1);
  assertEquals([clock.calls.size, state.aborted], [0, 100]);
});

test("refusals: as many as 128 wait, and with these there is room when 16 have been aborted", async () => {
  const { clock, refusals, state, refuse } = refusing();
  refuse(130);
  assertEquals([refusals.full, state.aborted], [true, 2]);
  let room = false;
  const waiting = refusals.room().then(() => room = true);
  await Promise.resolve();
  assertEquals(room, false);
  clock.pass(1);
  await waiting;
  assertEquals([refusals.full, state.aborted], [false, 18]);
  await refusals.room();
  refuse(16);
  // Where one comes all the same, the first makes way.
  refuse(5);
  assertEquals([refusals.size, state.aborted], [128, 23]);
});

test("refusals: when the server is closed they are all aborted, and whoever waits for room goes on", async () => {
  const { clock, refusals, state, refuse } = refusing();
  refuse(130);
  const waiting = refusals.room();
  refusals.clear();
  await waiting;
  assertEquals([refusals.size, state.aborted], [0, 130]);
  clock.pass(10);
  refuse(4);
  assertEquals(state.aborted, 132, "the pace is the same afterwards");
});

for (const name of ["plain", "with TLS"]) {
  test(`refusals: a flood that never lets its server wait leaves others their turn, ${name}`, async () => {
    const runtime = getRuntime();
    const address = { transport: "tcp", hostname: "127.0.0.1", port: 1 } as const;
    const FLOOD = 10_000;
    let taken = 0;
    let aborted = 0;
    let interrupt = () => {};
    const listener: Listener = {
      address,
      refused: 0,
      queued: 0,
      accept: (as) => {
        if (taken === FLOOD) return new Promise((resolve) => interrupt = () => resolve(as(null)));
        taken++;
        const raw = { remoteAddress: { ...address, hostname: "127.0.0.2" }, abort: () => void aborted++ };
        return as(raw as unknown as RawConnection);
      },
      interrupt: () => interrupt(),
      stop: () => Promise.resolve(),
      close: () => Promise.resolve(),
      unref() {},
      ref() {},
    };
    const server = new AsyncTCPServer(address, BaseRequestHandler, {
      runtime: Object.create(runtime, { listen: { value: () => Promise.resolve(listener) } }),
      deny: ["127.0.0.2"],
      tls: name === "plain" ? null : certificate("localhost"),
    });
    await server.activate();
    const serving = server.serveForever();
    await new Promise((resolve) => setTimeout(resolve, 0));
    assert(taken > 0 && taken < FLOOD, `${taken} were taken before a timer had its turn`);
    while (aborted < 500) await new Promise((resolve) => setTimeout(resolve, 1));
    await server.serverClose();
    await serving;
    assertEquals([aborted, server.stats.ended.denied], [taken, taken]);
  });
}

/** When a connection has to end, by a clock that the test moves and a connection that it plays. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import type { Connection } from "../../src/connection.ts";
import { ConnectionWatch, type WatchedLimits, Watcher } from "../../src/connection_watch.ts";
import type { RawConnection } from "../../src/runtime.ts";
import { TimerWheel } from "../../src/timer_wheel.ts";
import { FakeClock } from "./fake_clock.ts";

const OFF: WatchedLimits = {
  idleTimeout: Infinity,
  requestTimeout: Infinity,
  writeTimeout: Infinity,
  minReadRate: 0,
  readRateWindow: 5000,
  readRateGrace: 5000,
  maxBackpressure: Infinity,
  maxTotalBackpressure: Infinity,
};

/** What a watch sees of a connection. */
class Played {
  bytesRead = 0;
  bytesWritten = 0;
  unsent = 0;
  reading = true;
  readEnded = false;
  ended: string | null = null;
  endedAt = 0;
  watch: ConnectionWatch;

  constructor(watcher: Watcher) {
    this.watch = new ConnectionWatch(watcher, this as unknown as RawConnection);
    this.watch.begin(this as unknown as Connection);
  }

  /** The handler writes, and the system takes nothing. */
  write(size: number): void {
    this.unsent += size;
    this.watch.wrote(size);
  }

  /** The peer takes some of it. */
  take(size: number): void {
    this.unsent -= size;
    this.bytesWritten += size;
  }
}

function watcher(limits: Partial<WatchedLimits>) {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const watcher = new Watcher({ ...OFF, ...limits }, wheel, (connection, reason) => {
    const played = connection as unknown as Played;
    assertEquals(played.ended, null, "ended twice");
    played.ended = reason;
    played.endedAt = clock.now();
  });
  return { clock, wheel, open: () => new Played(watcher) };
}

test("watch: without limits there is no timer", () => {
  const { clock, wheel, open } = watcher({});
  open();
  assertEquals([wheel.size, clock.calls.size], [0, 0]);
});

test("watch: a silent connection is idle after idleTimeout, not before, and not much later", () => {
  for (const idleTimeout of [1, 40, 1000, 300_000]) {
    const { clock, wheel, open } = watcher({ idleTimeout });
    const connection = open();
    const began = clock.now();
    clock.pass(idleTimeout - 1);
    assertEquals(connection.ended, null);
    clock.pass(idleTimeout + 10);
    assertEquals(connection.ended, "idle");
    assert(connection.endedAt - began <= idleTimeout * 1.3 + 10, `${idleTimeout}: after ${connection.endedAt - began}`);
    assertEquals([wheel.size, clock.calls.size], [0, 0]);
  }
});

test("watch: a byte in either direction within idleTimeout keeps it alive", () => {
  const { clock, open } = watcher({ idleTimeout: 1000 });
  const [reads, writes, silent] = [open(), open(), open()];
  for (let i = 0; i < 50; i++) {
    clock.pass(900);
    reads.bytesRead++;
    writes.bytesWritten++;
  }
  assertEquals([reads.ended, writes.ended, silent.ended], [null, null, "idle"]);
  clock.pass(3000);
  assertEquals([reads.ended, writes.ended], ["idle", "idle"]);
});

test("watch: time in which the program is held up is held against nobody, but for requestTimeout", () => {
  const limits = { idleTimeout: 1000, writeTimeout: 1000, minReadRate: 10, readRateWindow: 1000, readRateGrace: 0 };
  for (const requestTimeout of [Infinity, 5000]) {
    const { clock, open } = watcher({ ...limits, requestTimeout });
    const [quiet, slow, sends] = [open(), open(), open()];
    slow.write(100);
    sends.bytesRead++;
    clock.pass(400);
    clock.stall(60_000);
    const ends = [quiet, slow, sends].map(({ ended }) => ended);
    assertEquals(ends, Array(3).fill(requestTimeout === Infinity ? null : "deadline"));
    if (requestTimeout !== Infinity) continue;
    sends.bytesRead += 100;
    quiet.bytesRead++;
    slow.take(1);
    clock.pass(500);
    assertEquals([quiet, slow, sends].map(({ ended }) => ended), [null, null, null]);
    clock.pass(3000);
    assertEquals([quiet.ended, slow.ended], ["idle", "write timeout"]);
  }
});

test("watch: requestTimeout is for all of it, however busy", () => {
  const { clock, open } = watcher({ idleTimeout: 1000, requestTimeout: 10_000 });
  const connection = open();
  const began = clock.now();
  for (let i = 0; i < 200; i++) {
    clock.pass(100);
    connection.bytesRead += 1000;
  }
  assertEquals(connection.ended, "deadline");
  const after = connection.endedAt - began;
  assert(after >= 9999 && after <= 10_400, `after ${after}`);
});

test("watch: a peer that takes nothing for writeTimeout, from when something waits for it", () => {
  const { clock, open } = watcher({ writeTimeout: 1000 });
  const connection = open();
  clock.pass(10_000);
  connection.write(5);
  const began = clock.now();
  clock.pass(999);
  assertEquals(connection.ended, null);
  clock.pass(1000);
  assertEquals(connection.ended, "write timeout");
  assert(connection.endedAt - began <= 1600, `after ${connection.endedAt - began}`);
});

test("watch: a peer that takes a little now and then is left alone, whatever the handler writes meanwhile", () => {
  const { clock, open } = watcher({ writeTimeout: 1000 });
  const [slow, stuck] = [open(), open()];
  for (const connection of [slow, stuck]) connection.write(1_000_000);
  for (let i = 0; i < 50; i++) {
    clock.pass(900);
    slow.take(1);
    // That more waits is no sign of life.
    if (stuck.ended === null) stuck.write(1);
  }
  assertEquals([slow.ended, stuck.ended], [null, "write timeout"]);
  slow.take(slow.unsent);
  clock.pass(100_000);
  assertEquals(slow.ended, null, "nothing waits for it");
});

test("watch: a trickle is too slow, also with pauses; silence, speed and a busy handler are not", () => {
  const { clock, open } = watcher({ minReadRate: 100, readRateWindow: 5000, readRateGrace: 2000 });
  const [trickle, pauses, silent, fast, busy, whole] = [open(), open(), open(), open(), open(), open()];
  busy.reading = false;
  // One request of few bytes, and a handler that works on it.
  whole.bytesRead = 50;
  whole.reading = false;
  for (let ms = 0; ms < 60_000; ms += 100) {
    clock.pass(100);
    if (ms % 1000 === 0) trickle.bytesRead += 10;
    if (ms % 15_000 === 9000) pauses.bytesRead += 10;
    fast.bytesRead += 11;
    busy.bytesRead += 1;
  }
  assertEquals([trickle.ended, pauses.ended], ["too slow", "too slow"]);
  assertEquals([silent.ended, fast.ended, busy.ended, whole.ended], [null, null, null, null]);
});

test("watch: no byte that arrives in the grace period is held against a peer", () => {
  const { clock, open } = watcher({ minReadRate: 100, readRateWindow: 1000, readRateGrace: 10_000 });
  const connection = open();
  for (let ms = 0; ms < 9000; ms += 100) {
    clock.pass(100);
    connection.bytesRead++;
  }
  clock.pass(60_000);
  assertEquals(connection.ended, null);
  connection.bytesRead++;
  clock.pass(3000);
  assertEquals(connection.ended, "too slow");
});

test("watch: whose handler runs in a worker is not judged by how it reads here", () => {
  const { clock, open } = watcher({ minReadRate: 100, readRateWindow: 1000, readRateGrace: 0 });
  const connection = open();
  connection.watch.relayed();
  for (let ms = 0; ms < 10_000; ms += 100) {
    clock.pass(100);
    connection.bytesRead++;
  }
  assertEquals(connection.ended, null);
});

test("watch: maxBackpressure is what waits when the handler writes more; one large write is no matter", () => {
  const { open } = watcher({ maxBackpressure: 1000 });
  const connection = open();
  connection.write(1_000_000);
  connection.take(999_000);
  connection.write(500);
  assertEquals(connection.ended, null);
  connection.take(500);
  connection.write(1_000_000);
  assertEquals(connection.ended, null);
  connection.write(0);
  assertEquals(connection.ended, "backpressure");
});

test("watch: maxTotalBackpressure ends the connection that most waits for, and only as many as it must", () => {
  const { open } = watcher({ maxTotalBackpressure: 1000 });
  const connections = [100, 600, 200, 50].map((size) => {
    const connection = open();
    connection.write(size);
    connection.write(0);
    return connection;
  });
  const ended = () => connections.map(({ ended }) => ended);
  assertEquals(ended(), [null, null, null, null]);
  connections[0]!.write(20);
  connections[0]!.write(40);
  connections[0]!.write(0);
  assertEquals(ended(), [null, "backpressure", null, null]);
  connections[2]!.write(700);
  connections[2]!.write(0);
  assertEquals(ended(), [null, "backpressure", "backpressure", null]);
});

test("watch: what a peer has caught up on unseen doesn't count in the total", () => {
  const { open } = watcher({ maxTotalBackpressure: 1000 });
  const [quick, slow] = [open(), open()];
  quick.write(900);
  quick.write(0);
  quick.take(900);
  slow.write(900);
  slow.write(0);
  assertEquals([quick.ended, slow.ended], [null, null]);
});

test("watch: one that is gone is not looked at, nor is one that was lost before it began", () => {
  const { clock, wheel, open } = watcher({ idleTimeout: 1000, maxTotalBackpressure: 1000 });
  const connection = open();
  connection.write(900);
  connection.write(0);
  connection.watch.ended();
  assertEquals([wheel.size, clock.calls.size], [0, 0]);
  // It doesn't count any more either.
  const other = open();
  other.write(900);
  other.write(0);
  assertEquals(other.ended, null);
  other.watch.ended();
  other.watch.begin(other as unknown as Connection);
  clock.pass(10_000);
  assertEquals([connection.ended, other.ended, wheel.size], [null, null, 0]);
});

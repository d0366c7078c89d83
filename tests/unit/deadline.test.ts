/** When a deadline fires and when it doesn't. No upper bounds: a busy machine is late. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { checkTimeout, Deadline } from "../../src/deadline.ts";

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** How long it takes a deadline to fire that is started by `start`. */
function fires(start: (expire: () => void) => void): Promise<number> {
  return new Promise((resolve) => {
    const began = performance.now();
    start(() => resolve(performance.now() - began));
  });
}

/** Less than a millisecond early is in time: that is as exact as timers are. */
function assertNotBefore(elapsed: number, ms: number): void {
  assert(elapsed > ms - 1, `fired after ${elapsed} ms, before its ${ms}`);
}

test("deadline: it fires, once, and not before its time", async () => {
  for (const ms of [0, 1, 20, 50.5]) {
    const deadline = new Deadline();
    let count = 0;
    const elapsed = await fires((expire) =>
      deadline.start(ms, () => {
        count++;
        expire();
      })
    );
    assertNotBefore(elapsed, ms);
    await sleep(ms + 10);
    assertEquals(count, 1);
  }
});

test("deadline: it never fires before start() returns", async () => {
  const deadline = new Deadline();
  let started = false;
  let early = false;
  await fires((expire) => {
    deadline.start(0, () => {
      early = !started;
      expire();
    });
    started = true;
  });
  assertEquals(early, false);
});

test("deadline: a stopped one doesn't fire", async () => {
  const deadline = new Deadline();
  let fired = false;
  deadline.start(5, () => fired = true);
  deadline.stop();
  await sleep(40);
  assertEquals(fired, false);
});

test("deadline: a cleared one doesn't fire", async () => {
  const deadline = new Deadline();
  let fired = false;
  deadline.start(5, () => fired = true);
  deadline.clear();
  await sleep(40);
  assertEquals(fired, false);
});

test("deadline: one that is cleared holds no timer", () => {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const live = new Set<unknown>();
  globalThis.setTimeout = ((...args: Parameters<typeof set>) => {
    const timer = set(...args);
    live.add(timer);
    return timer;
  }) as typeof set;
  globalThis.clearTimeout = ((timer: Parameters<typeof clear>[0]) => {
    live.delete(timer);
    clear(timer);
  }) as typeof clear;
  try {
    const deadline = new Deadline();
    deadline.clear();
    for (let i = 0; i < 1000; i++) {
      deadline.start(60_000, () => {});
      deadline.stop();
    }
    assertEquals(live.size, 1, "an operation costs a timer");
    deadline.start(30_000, () => {});
    assertEquals(live.size, 1, "the longer timer was left behind");
    deadline.clear();
    assertEquals(live.size, 0);
    deadline.clear();
  } finally {
    globalThis.setTimeout = set;
    globalThis.clearTimeout = clear;
  }
});

test("deadline: restarted for longer it fires at the later time, with the later callback", async () => {
  const deadline = new Deadline();
  let first = false;
  deadline.start(10, () => first = true);
  const elapsed = await fires((expire) => deadline.start(60, expire));
  assertNotBefore(elapsed, 60);
  assertEquals(first, false);
});

test("deadline: restarted for a few milliseconds longer it is not early by those", async () => {
  const deadline = new Deadline();
  deadline.start(20, () => {});
  for (const until = performance.now() + 4; performance.now() < until;);
  assertNotBefore(await fires((expire) => deadline.start(20, expire)), 20);
});

test("deadline: a stopped one lets its timer run out and sets no other", async () => {
  const set = globalThis.setTimeout;
  const deadline = new Deadline();
  let timers = 0;
  globalThis.setTimeout = ((...args: Parameters<typeof set>) => {
    timers++;
    return set(...args);
  }) as typeof set;
  try {
    deadline.start(5, () => {});
    deadline.stop();
    await new Promise((resolve) => set(resolve, 40));
  } finally {
    globalThis.setTimeout = set;
  }
  assertEquals(timers, 1);
});

test("deadline: stopped and started again it counts from the second start", async () => {
  const deadline = new Deadline();
  let first = false;
  deadline.start(40, () => first = true);
  await sleep(20);
  deadline.stop();
  const elapsed = await fires((expire) => deadline.start(40, expire));
  assertNotBefore(elapsed, 40);
  assertEquals(first, false);
});

test("deadline: restarted for shorter it does not wait for the longer time", async () => {
  const deadline = new Deadline();
  let long = false;
  // A timer that was left alone would fire only in an hour.
  deadline.start(3_600_000, () => long = true);
  assertNotBefore(await fires((expire) => deadline.start(20, expire)), 20);
  deadline.start(3_600_000, () => long = true);
  deadline.stop();
  assertNotBefore(await fires((expire) => deadline.start(20, expire)), 20);
  assertEquals(long, false);
  deadline.clear();
});

test("deadline: it can be started again after it fired, stopped or was cleared", async () => {
  const deadline = new Deadline();
  assertNotBefore(await fires((expire) => deadline.start(5, expire)), 5);
  assertNotBefore(await fires((expire) => deadline.start(5, expire)), 5);
  deadline.start(5, () => {});
  deadline.clear();
  assertNotBefore(await fires((expire) => deadline.start(10, expire)), 10);
  deadline.start(5, () => {});
  deadline.stop();
  await sleep(20);
  assertNotBefore(await fires((expire) => deadline.start(10, expire)), 10);
});

test("deadline: it can be started from its own callback", async () => {
  const deadline = new Deadline();
  const elapsed = await fires((expire) => deadline.start(10, () => deadline.start(20, expire)));
  assertNotBefore(elapsed, 29);
});

test("deadline: a number of milliseconds is checked before it reaches a timer", () => {
  for (const ms of [0, 0.5, 1, 2 ** 31 - 1, Infinity]) checkTimeout("timeout", ms);
  for (const ms of [-1, -0.5, NaN, -Infinity, 2 ** 31, Number.MAX_VALUE, "5", null, undefined]) {
    const error = assertThrows(() => checkTimeout("timeout", ms as number), RangeError, "timeout must be");
    assert(error.message.endsWith(`got ${ms}`), error.message);
  }
});

/** When a wheel's timers are due, by a clock that the test moves. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { Timer, TimerWheel } from "../../src/timer_wheel.ts";
import { FakeClock } from "./fake_clock.ts";
import { generator } from "./generator.ts";

class Alarm extends Timer {
  rang: number[] = [];
  #ring: (now: number) => void;

  constructor(clock: FakeClock, then: () => void = () => {}) {
    super();
    this.#ring = () => {
      this.rang.push(clock.now());
      then();
    };
  }

  override expire(now: number): void {
    this.#ring(now);
  }
}

/** How late it may be, beyond what is left of a millisecond. */
const late = (ms: number) => Math.max(1, ms / 32) + 1;

test("wheel: a timer is never early and at most a 32nd late, from a millisecond to 24 days", () => {
  for (const ms of [0, 0.3, 1, 2, 31, 32, 33, 63.5, 64, 100, 1000, 4095, 4096, 4097, 60_000, 300_000, 3_600_000, 2 ** 31 - 1]) {
    const clock = new FakeClock();
    const wheel = new TimerWheel(clock);
    clock.pass(12_345.678);
    const alarm = new Alarm(clock);
    const began = clock.now();
    wheel.start(alarm, ms);
    assertEquals(alarm.rang, []);
    clock.pass(ms * 2 + 10);
    assertEquals(alarm.rang.length, 1, `${ms}`);
    const after = alarm.rang[0]! - began;
    assert(after > ms - 1 && after <= ms + late(ms), `${ms} ms took ${after}`);
    assertEquals([wheel.size, clock.calls.size], [0, 0]);
  }
});

test("wheel: a timer that is stopped doesn't ring, and the last one takes the runtime's timer with it", () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const [one, other] = [new Alarm(clock), new Alarm(clock)];
  wheel.start(one, 100);
  wheel.start(other, 5000);
  assertEquals([wheel.size, clock.calls.size], [2, 1]);
  wheel.stop(one);
  wheel.stop(one);
  assertEquals([wheel.size, clock.calls.size], [1, 1]);
  wheel.stop(other);
  assertEquals([wheel.size, clock.calls.size], [0, 0]);
  clock.pass(10_000);
  assertEquals([one.rang, other.rang], [[], []]);
});

test("wheel: a timer that is started again counts from then, whether for longer or for shorter", () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const alarm = new Alarm(clock);
  for (const [first, wait, second] of [[100, 50, 100], [100, 99, 1000], [10_000, 10, 20], [3_600_000, 1, 5]] as const) {
    alarm.rang = [];
    wheel.start(alarm, first);
    clock.pass(wait);
    const began = clock.now();
    wheel.start(alarm, second);
    assertEquals(wheel.size, 1);
    clock.pass(first + second * 2 + 10);
    assertEquals(alarm.rang.length, 1);
    const after = alarm.rang[0]! - began;
    assert(after > second - 1 && after <= second + late(second), `${second} ms took ${after}`);
  }
});

test("wheel: started again and again for the same time, it sets the runtime's timer once", () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const alarm = new Alarm(clock);
  let sets = 0;
  const { set } = clock;
  clock.set = (callback, ms) => {
    sets++;
    return set.call(clock, callback, ms);
  };
  for (let i = 0; i < 100; i++) {
    wheel.start(alarm, 1000);
    clock.pass(1);
  }
  assertEquals(sets, 1);
  clock.pass(2000);
  assertEquals(alarm.rang.length, 1);
});

test("wheel: a timer may be started and stopped while others ring", () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const stopped = new Alarm(clock);
  const again: Alarm = new Alarm(clock, () => {
    wheel.stop(stopped);
    if (again.rang.length < 3) wheel.start(again, 10);
  });
  wheel.start(again, 10);
  // In the same slot, behind it.
  wheel.start(stopped, 10);
  clock.pass(100);
  assertEquals([again.rang.length, stopped.rang.length], [3, 0]);
  assertEquals([wheel.size, clock.calls.size], [0, 0]);
});

test("wheel: a timer that starts itself again for no time at all leaves room for others", () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const again: Alarm = new Alarm(clock, () => wheel.start(again, 0.5));
  wheel.start(again, 1);
  clock.pass(100);
  assert(again.rang.length > 10 && again.rang.length <= 101, `${again.rang.length}`);
});

test("wheel: timers that are due at about the same time share a wake-up", () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const wakes = new Set<number>();
  const alarms = Array.from({ length: 1000 }, () => new Alarm(clock, () => void wakes.add(clock.now())));
  for (const alarm of alarms) {
    wheel.start(alarm, 60_000);
    clock.pass(1);
  }
  clock.pass(100_000);
  assertEquals(alarms.filter(({ rang }) => rang.length === 1).length, 1000);
  assert(wakes.size <= 3, `${wakes.size} wake-ups`);
});

test("wheel: ten thousand timers of random lengths, started, stopped and started again at random", () => {
  const random = generator(42);
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const due = new Map<Alarm, { at: number; ms: number }>();
  const check: string[] = [];
  const alarms = Array.from({ length: 10_000 }, () => {
    const alarm: Alarm = new Alarm(clock, () => {
      const { at, ms } = due.get(alarm)!;
      due.delete(alarm);
      if (clock.now() <= at - 1 || clock.now() > at + late(ms)) check.push(`due ${at}, for ${ms}, rang ${clock.now()}`);
    });
    return alarm;
  });
  for (let i = 0; i < 50_000; i++) {
    const alarm = alarms[Math.floor(random() * alarms.length)]!;
    if (random() < 0.3) {
      wheel.stop(alarm);
      due.delete(alarm);
    } else {
      const ms = 2 ** (random() * 20);
      wheel.start(alarm, ms);
      due.set(alarm, { at: clock.now() + ms, ms });
    }
    assertEquals(wheel.size, due.size);
    if (i % 16 === 0) clock.pass(random() * 20);
  }
  clock.pass(2 ** 21);
  assertEquals([check, due.size, wheel.size, clock.calls.size], [[], 0, 0, 0]);
});

test("wheel: when a timer takes longer than the next one has, that is due at once: no delay is negative", () => {
  const clock = new FakeClock();
  const delays: number[] = [];
  const wheel = new TimerWheel({
    now: () => clock.now(),
    clear: (handle) => clock.clear(handle),
    set(callback, ms) {
      delays.push(ms);
      return clock.set(callback, ms);
    },
    afterPoll: (callback) => clock.afterPoll(callback),
  });
  const slow = new Alarm(clock, () => clock.stall(50));
  const next = new Alarm(clock);
  wheel.start(slow, 10);
  wheel.start(next, 30);
  clock.pass(100);
  assertEquals([slow.rang.length, next.rang.length], [1, 1]);
  assert(delays.every((ms) => ms >= 0), `${delays}`);
});

import { afterPoll, setIdleTimer } from "./runtime.ts";

/** What a {@linkcode TimerWheel} runs by; a test brings one of its own. */
export interface Clock {
  /** Milliseconds since some moment; it never goes back. */
  now(): number;
  /** Calls back once, in about `ms` milliseconds. */
  set(callback: () => void, ms: number): unknown;
  /** Takes a call back that has not come yet. */
  clear(handle: unknown): void;
  /** Calls back once what the system has for the program has been delivered to it. */
  afterPoll(callback: () => void): void;
}

/** The system's clock. Whoever waits for one of its calls keeps the program running. */
export const clock: Clock = {
  now: () => performance.now(),
  set: (callback, ms) => setTimeout(callback, ms),
  clear: (handle) => clearTimeout(handle as ReturnType<typeof setTimeout>),
  afterPoll,
};

/** The same for what must not keep a program running that has nothing else to do. */
export const idleClock: Clock = { ...clock, set: setIdleTimer };

/** Something that a {@linkcode TimerWheel} does when its time has come. */
export abstract class Timer {
  /** When it is due, by the wheel's clock: a whole number, as the engines keep any other in an object of its own. */
  at = 0;
  /** When the wheel looks at it, and with which others, while it runs; the wheel's own. */
  looked = 0;
  slot: Set<Timer> | null = null;

  /** Milliseconds that the wheel calls too late at `now`, beyond what it rounds up by. */
  protected late(now: number): number {
    return now - Math.max(this.at, this.looked);
  }

  /**
   * Called when it is due; it may be started again here. It must not throw.
   *
   * @param now The time by the wheel's clock, in whole milliseconds, and what may be left of one.
   */
  abstract expire(now: number): void;
}

/** With a timer that the wheel calls later than this, the program has been held up: it was busy, or stopped. */
export const HELD_UP_MS = 20;
/** A timer may be late by so small a part of the time that it was started for. */
const FINENESS = 32;
/** Less than this early counts as in time, as the timers of the runtimes are no more exact. */
const EARLY = 1;
/** The longest delay that the runtimes' timers take; a longer one would fire at once. */
export const LONGEST = 2 ** 31 - 1;

/**
 * Any number of timers on one timer of the runtime. Times are rounded up to few slots, the longer the coarser, as the timer wheel of
 * Linux does it: starting and stopping cost the same however many there are, and those that are due at about the same time share
 * a wake-up. A timer that is started again for later stays where it is until its slot comes up, so that costs no more than storing a
 * number.
 */
export class TimerWheel {
  #clock: Clock;
  #slots = new Map<number, Set<Timer>>();
  #running = 0;
  #wakeAt = Infinity;
  #handle: unknown;

  /** @param by The clock to run by. */
  constructor(by: Clock) {
    this.#clock = by;
  }

  /** The time by the wheel's clock. */
  get now(): number {
    return this.#clock.now();
  }

  /** Calls back once what the system has for the program has been delivered to it: before a timer's verdict on what has not come. */
  afterPoll(callback: () => void): void {
    this.#clock.afterPoll(callback);
  }

  /** How many timers are running. */
  get size(): number {
    return this.#running;
  }

  /**
   * Starts a timer, or starts it anew.
   *
   * @param timer The timer.
   * @param ms Milliseconds until it is due; it is never early, and late by up to a 32nd of that.
   */
  start(timer: Timer, ms: number): void {
    timer.at = Math.ceil(this.now + ms);
    if (timer.slot !== null && timer.looked <= timer.at + Math.max(1, ms / FINENESS)) return;
    this.stop(timer);
    this.#put(timer, ms);
    if (timer.looked < this.#wakeAt) this.#wake(timer.looked);
  }

  /** Stops a timer. */
  stop(timer: Timer): void {
    if (timer.slot === null) return;
    this.#take(timer);
    if (this.#running === 0) this.#rest();
  }

  #put(timer: Timer, ms: number): void {
    // A power of two, so that the slots of the different steps fall together.
    const step = ms < FINENESS ? 1 : 2 ** Math.floor(Math.log2(ms / FINENESS));
    const time = Math.ceil(timer.at / step) * step;
    let slot = this.#slots.get(time);
    if (slot === undefined) this.#slots.set(time, slot = new Set());
    slot.add(timer);
    timer.slot = slot;
    timer.looked = time;
    this.#running++;
  }

  #take(timer: Timer): void {
    timer.slot!.delete(timer);
    timer.slot = null;
    this.#running--;
  }

  #turn = (): void => {
    this.#wakeAt = Infinity;
    const now = Math.floor(this.now) + EARLY;
    // All of them first: what is started meanwhile is for later, however soon it is due.
    const due = [...this.#slots].filter(([time]) => time <= now);
    for (const [time] of due) this.#slots.delete(time);
    for (const [, slot] of due) {
      for (const timer of slot) {
        this.#take(timer);
        if (timer.at > now) this.#put(timer, timer.at - now);
        else timer.expire(now);
      }
    }
    let next = Infinity;
    for (const time of this.#slots.keys()) next = Math.min(next, time);
    if (next < this.#wakeAt) this.#wake(next);
  };

  #wake(time: number): void {
    this.#clock.clear(this.#handle);
    this.#wakeAt = time;
    // What is due already, as after timers that took long, is due now: Node warns of a negative delay.
    this.#handle = this.#clock.set(this.#turn, Math.min(LONGEST, Math.max(0, Math.ceil(time - this.now))));
  }

  /** Without timers, nothing is left that would keep the program running. */
  #rest(): void {
    this.#clock.clear(this.#handle);
    this.#slots.clear();
    this.#wakeAt = Infinity;
  }
}

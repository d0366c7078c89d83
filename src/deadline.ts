import { clock, LONGEST, Timer, TimerWheel } from "./timer_wheel.ts";

/** Keeps the program running: on a connection in memory, nothing else does while somebody waits. */
const wheel = new TimerWheel(clock);

/** A timeout that is set anew for every operation; one `Deadline` covers the operations of one kind on one connection. */
export class Deadline extends Timer {
  #expire: (() => void) | null = null;

  /** Calls `expire` in `ms` milliseconds unless {@linkcode Deadline.stop} is called before. */
  start(ms: number, expire: () => void): void {
    this.#expire = expire;
    wheel.start(this, ms);
  }

  /** The operation is over. The wheel still looks at it once, so that the next operation costs it nothing. */
  stop(): void {
    this.#expire = null;
  }

  /** There will be no other operation. */
  clear(): void {
    this.#expire = null;
    wheel.stop(this);
  }

  /** The wheel's call. */
  override expire(): void {
    const expire = this.#expire;
    this.#expire = null;
    expire?.();
  }
}

/**
 * Checks a number of milliseconds before it reaches a timer.
 *
 * @throws {RangeError} When it is none; 0 and `Infinity` are for the caller to give a meaning.
 */
export function checkTimeout(name: string, ms: number): void {
  if (typeof ms !== "number" || !(ms >= 0) || (ms > LONGEST && ms !== Infinity)) {
    throw new RangeError(
      `${name} must be a number of milliseconds from 0 to ${LONGEST} (24 days), or Infinity, got ${String(ms)}`,
    );
  }
}

import { afterPoll } from "./runtime.ts";
import { clock, HELD_UP_MS, idleClock, LONGEST, Timer, TimerWheel } from "./timer_wheel.ts";

/** Keeps the program running: on a connection in memory, nothing else does while somebody waits. */
const wheel = new TimerWheel(clock);
/** For what was told not to keep the program running. */
const idleWheel = new TimerWheel(idleClock);

/**
 * A timeout that is set anew for every operation; one `Deadline` covers the operations of one kind on one connection.
 *
 * A program that was held up finds its timers due before it has looked at what came meanwhile. So a deadline that is due first lets that be
 * delivered, and expires only if the operation goes on after it.
 */
export class Deadline extends Timer {
  #expire: (() => void) | null = null;
  #wheel = wheel;
  #afterArrivals: (callback: () => void) => void;
  #steps: boolean;
  /** Whether it was extended: once, so that a machine that is always busy doesn't put it off for ever. */
  #extended = false;

  /**
   * @param steps Whether the operation takes several steps of the peer's, as a handshake does: then the time in which the program was held
   * up is not the peer's, and is added to the deadline.
   * @param afterArrivals Calls back once what has arrived for the operation has been delivered.
   */
  constructor(steps = false, afterArrivals: (callback: () => void) => void = afterPoll) {
    super();
    this.#steps = steps;
    this.#afterArrivals = afterArrivals;
  }

  /** Calls `expire` in `ms` milliseconds unless {@linkcode Deadline.stop} is called before. */
  start(ms: number, expire: () => void): void {
    this.#expire = expire;
    this.#extended = false;
    this.#wheel.start(this, ms);
  }

  /** The operation is over. The wheel still looks at it once, so that the next operation costs it nothing. */
  stop(): void {
    this.#expire = null;
  }

  /** There will be no other operation. */
  clear(): void {
    this.#expire = null;
    this.#wheel.stop(this);
  }

  /** Whether it keeps the program running; it does from the beginning. */
  keepAlive(on: boolean): void {
    const from = this.#wheel;
    const to = this.#wheel = on ? wheel : idleWheel;
    if (from === to || this.slot === null) return;
    from.stop(this);
    if (this.#expire !== null) to.start(this, Math.max(0, this.at - to.now));
  }

  /** The wheel's call. */
  override expire(now: number): void {
    const expire = this.#expire;
    if (expire === null) return;
    const late = this.late(now);
    this.#afterArrivals(() => {
      // Over, or another operation's.
      if (this.#expire !== expire) return;
      if (this.#steps && !this.#extended && late > HELD_UP_MS) {
        this.#extended = true;
        return this.#wheel.start(this, late);
      }
      this.#expire = null;
      expire();
    });
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

/**
 * A timeout that is set anew for every operation at the cost of one clock reading: the timer underneath is left running and,
 * when it fires early, armed again for what remains. One `Deadline` covers the operations of one kind on one connection.
 */
export class Deadline {
  #expire: (() => void) | null = null;
  #at = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #firesAt = 0;

  /** Calls `expire` in `ms` milliseconds unless {@linkcode Deadline.stop} is called before. */
  start(ms: number, expire: () => void): void {
    this.#expire = expire;
    this.#at = performance.now() + ms;
    if (this.#timer !== undefined && this.#firesAt > this.#at) this.clear(expire);
    if (this.#timer === undefined) this.#arm(ms);
  }

  /** The operation is over. */
  stop(): void {
    this.#expire = null;
  }

  /** Lets go of the timer too. */
  clear(expire: (() => void) | null = null): void {
    this.#expire = expire;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(ms: number): void {
    this.#firesAt = performance.now() + ms;
    this.#timer = setTimeout(() => this.#fired(), ms);
  }

  #fired(): void {
    this.#timer = undefined;
    const expire = this.#expire;
    if (expire === null) return;
    // Timers may fire up to a millisecond early.
    const left = this.#at - performance.now();
    if (left >= 1) return this.#arm(left);
    this.#expire = null;
    expire();
  }
}

/** The longest delay that setTimeout takes; a longer one would fire at once. */
export const LONGEST = 2 ** 31 - 1;

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

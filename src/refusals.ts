import type { RawConnection } from "./runtime.ts";
import { type Clock, clock } from "./timer_wheel.ts";

/** So many are aborted in a millisecond, */
const PACE = 2;
/** and so many when no more may wait for that, */
const RUSH = 16;
/** as each has a descriptor. */
const MOST = 128;

/**
 * Aborts the connections that are refused. Who floods a server comes again when its connection is gone: if each were aborted at once, it
 * could come so often that nobody else had a turn of the event loop. So only the first go at once, and the others at a pace.
 */
export class Refusals {
  #clock: Clock;
  #waiting: RawConnection[] = [];
  /** How many may go at once. */
  #left = PACE;
  #timer: unknown = null;
  #room: PromiseWithResolvers<void> | null = null;

  /** @param by Paces them. */
  constructor(by: Clock = clock) {
    this.#clock = by;
  }

  /** How many wait. */
  get size(): number {
    return this.#waiting.length;
  }

  /** Aborts a connection, soon. */
  refuse(raw: RawConnection): void {
    if (this.full) this.#abort(1);
    this.#waiting.push(raw);
    this.#abortSome();
  }

  /** Whether as many wait as may. */
  get full(): boolean {
    return this.#waiting.length >= MOST;
  }

  /** Resolves when it is not full. */
  async room(): Promise<void> {
    if (this.full) await (this.#room ??= Promise.withResolvers()).promise;
  }

  /** Aborts those that wait. */
  clear(): void {
    this.#abort(MOST);
  }

  #abort(count: number): void {
    for (const raw of this.#waiting.splice(0, count)) raw.abort();
    if (this.full) return;
    this.#room?.resolve();
    this.#room = null;
  }

  #abortSome(): void {
    const count = Math.min(this.#left, this.#waiting.length);
    this.#left -= count;
    this.#abort(count);
    if (this.#left < PACE) this.#timer ??= this.#clock.set(this.#tick, 1);
  }

  #tick = (): void => {
    this.#timer = null;
    this.#left = this.full ? RUSH : PACE;
    this.#abortSome();
  };
}

import { idleClock } from "../timer_wheel.ts";

/** When a worker counts as stuck, and what happens then. Milliseconds; `Infinity` for never. */
export interface Patience {
  /** How long a worker has to answer after one of its requests was ended. The server's field may change meanwhile. */
  readonly grace: () => number;
  /** How long a request may last in all. */
  readonly requestTimeout: () => number;
  /** Whether the worker has one request at a time: then nobody else is harmed, and the handler has to be done, too. */
  readonly exclusive: boolean;
  /** Called once, when the worker is stuck. */
  readonly stuck: (error: Error) => void;
  /** Called when a worker that had been asked has answered. */
  readonly answered: () => void;
}

/** After a timer that comes so many milliseconds late, the worker gets as many more: its answer may have been held up as well. */
const HELD_UP_MS = 100;

/**
 * So many times the grace is what a worker gets that doesn't answer while it has requests which are not over, as one of these may be
 * computing; and a handler to be done, in a worker that answers.
 */
const LENIENT = 10;

interface Overdue {
  /** Why the request has ended. */
  readonly why: string;
  readonly since: number;
}

/**
 * Notices that a worker computes without end: once the connection of a request is gone and its handler is not done, the worker is asked
 * now and then whether its event loop turns. While no request is overdue it does nothing.
 */
export class WorkerWatch {
  #patience: Patience;
  #ask: () => void;
  /** How many requests the worker has. */
  #active: () => number;
  #overdue = new Map<number, Overdue>();
  /** Waiting for a request to become overdue. */
  #pending = new Map<number, unknown>();
  #timer: unknown;
  /** When the worker was asked what it has not answered; `null` when it has. */
  #askedAt: number | null = null;
  #over = false;

  /**
   * @param patience When the worker counts as stuck.
   * @param ask Sends it something to answer.
   * @param active How many requests it has.
   */
  constructor(patience: Patience, ask: () => void, active: () => number) {
    this.#patience = patience;
    this.#ask = ask;
    this.#active = active;
  }

  /** Whether the worker was asked and has not answered yet: it should get no further request. */
  get waits(): boolean {
    return this.#askedAt !== null;
  }

  /** A request becomes overdue in so many milliseconds, unless its handler is done by then. */
  expect(channel: number, inMs: number, why: string): void {
    if (this.#over || inMs === Infinity || this.#patience.grace() === Infinity) return;
    if (inMs > 0) {
      idleClock.clear(this.#pending.get(channel));
      this.#pending.set(channel, idleClock.set(() => this.expect(channel, 0, why), inMs));
      return;
    }
    this.done(channel);
    this.#overdue.set(channel, { why, since: performance.now() });
    if (this.#overdue.size === 1) this.#next();
  }

  /** A request's handler is done. */
  done(channel: number): void {
    const timer = this.#pending.get(channel);
    if (timer !== undefined) {
      idleClock.clear(timer);
      this.#pending.delete(channel);
    }
    this.#overdue.delete(channel);
    if (this.#overdue.size === 0) idleClock.clear(this.#timer);
  }

  /** The worker has answered. */
  answered(): void {
    this.#askedAt = null;
    this.#patience.answered();
  }

  /** The worker is gone. */
  stop(): void {
    this.#over = true;
    this.#askedAt = null;
    idleClock.clear(this.#timer);
    for (const timer of this.#pending.values()) idleClock.clear(timer);
    this.#pending.clear();
    this.#overdue.clear();
  }

  /** Asks the worker, and looks for the answer after the grace. */
  #next(): void {
    idleClock.clear(this.#timer);
    if (this.#askedAt === null) {
      this.#askedAt = performance.now();
      this.#ask();
    }
    const grace = this.#patience.grace();
    const due = performance.now() + grace;
    this.#timer = idleClock.set(() => {
      const late = performance.now() - due > HELD_UP_MS;
      if (late) this.#timer = idleClock.set(() => this.#look(grace), HELD_UP_MS);
      else this.#look(grace);
    }, grace);
  }

  #look(grace: number): void {
    if (this.#overdue.size === 0) return;
    const what = this.#verdict(grace);
    if (what === null) return this.#next();
    const [{ why }] = this.#overdue.values() as unknown as [Overdue];
    this.stop();
    this.#patience.stuck(new Error(`${what} after a request of its was over (${why}); see workerGrace`));
  }

  /** What the worker has failed to do; `null` while it has time. */
  #verdict(grace: number): string | null {
    const now = performance.now();
    // A timer may come a millisecond early.
    const passed = (since: number, ms: number) => now - since >= ms - 2;
    if (this.#askedAt !== null) {
      const ms = this.#patience.exclusive || this.#overdue.size === this.#active() ? grace : LENIENT * grace;
      return passed(this.#askedAt, ms) ? `it did not answer within ${ms} ms, as when a handler computes without end,` : null;
    }
    const ms = LENIENT * grace;
    const unfinished = this.#patience.exclusive && [...this.#overdue.values()].some(({ since }) => passed(since, ms));
    return unfinished ? `its handler was not done within ${ms} ms` : null;
  }
}

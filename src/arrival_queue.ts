import type { SocketError } from "./errors.ts";

/** What has been made of an arrival that is dealt with already: who waits for it goes on waiting for the next. */
export const HANDLED = Symbol("handled");

/**
 * Connections or datagrams on their way from an adapter to whoever takes them. Where the runtime takes them from the kernel on its own,
 * this is the queue that they wait in, as bounded as the kernel's.
 */
export class ArrivalQueue<T> {
  /** Those that were turned away because the queue was full. */
  overflowed = 0;
  #limit: number;
  #discard: (item: T) => void;
  #queue: T[] = [];
  /** What is made of the next one for who waits, and how it gets there; `null` when nobody does. */
  #as: ((item: T | null) => unknown) | null = null;
  #resolve!: (value: unknown) => void;
  #reject!: (error: unknown) => void;
  // Made once: it is needed for every datagram.
  #wait = (resolve: (value: unknown) => void, reject: (error: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };
  #error: SocketError | null = null;
  #closed = false;

  /**
   * @param limit How many may wait.
   * @param discard Gets rid of one that nobody will take.
   */
  constructor(limit: number, discard: (item: T) => void = () => {}) {
    this.#limit = limit;
    this.#discard = discard;
  }

  /** How many wait. */
  get length(): number {
    return this.#queue.length;
  }

  /** Whether the next one would be turned away. */
  get full(): boolean {
    return this.#as === null && (this.#closed || this.#queue.length >= this.#limit);
  }

  /** Whether somebody waits. */
  get waiting(): boolean {
    return this.#as !== null;
  }

  /** Brings one; false when it has to wait or was turned away. */
  offer(item: T): boolean {
    if (this.#as !== null) {
      this.#give(item);
      return true;
    }
    if (this.full) {
      if (!this.#closed) this.overflowed++;
      this.#discard(item);
    } else {
      this.#queue.push(item);
    }
    return false;
  }

  /** Reports that taking from the kernel failed. */
  fail(error: SocketError): void {
    if (this.#as !== null) {
      this.#as = null;
      this.#reject(error);
    } else if (!this.#closed) {
      this.#error = error;
    }
  }

  /**
   * What `as` makes of the next one, without a promise when it is there already; of `null` when the wait was interrupted or the queue
   * closed. Not the caller's `then()`: for a datagram, a promise more or less is noticed.
   */
  take<U>(as: (item: T | null) => U): U | Promise<U> {
    const error = this.#error;
    if (error !== null) {
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#queue.length > 0) return as(this.#queue.shift()!);
    if (this.#closed) return as(null);
    if (this.#as !== null) {
      return Promise.reject(new TypeError("somebody is waiting here already; await that before the next"));
    }
    this.#as = as;
    return new Promise(this.#wait) as Promise<U>;
  }

  /** Ends the wait. */
  interrupt(): void {
    if (this.#as !== null) this.#give(null);
  }

  /** Ends the wait and gets rid of those that nobody took. */
  close(): void {
    this.#closed = true;
    this.interrupt();
    for (const item of this.#queue) this.#discard(item);
    this.#queue = [];
  }

  #give(item: T | null): void {
    const as = this.#as!;
    this.#as = null;
    try {
      let made = as(item);
      // What came in the midst of it.
      while (made === HANDLED && this.#queue.length > 0) made = as(this.#queue.shift()!);
      // A promise for each datagram would cost more than all else that is done with it here.
      if (made === HANDLED && !this.#closed) this.#as = as;
      else this.#resolve(made);
    } catch (error) {
      this.#reject(error);
    }
  }
}

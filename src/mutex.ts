// A ticket lock: who comes takes the next number, and numbers are served in turn.
const NEXT = 0;
const SERVING = 1;

/**
 * A lock that threads share, in shared memory. Whoever waits for it waits in a promise, so that no event loop stands still, and gets it
 * in the order of asking.
 *
 * A thread that dies while it holds the lock keeps it for ever: hold it for a few steps that can't fail, and never while computing.
 *
 * @example
 * ```ts
 * import { Mutex } from "@sockets/server";
 *
 * const mutex = new Mutex();
 * // A server passes it on as `data: { mutex: mutex.buffer }`; a handler has `new Mutex(this.server.data.mutex)`.
 * const lock = await mutex.lock();
 * try {
 *   // What must not happen twice at once.
 * } finally {
 *   lock.unlock();
 * }
 * ```
 */
export class Mutex {
  /** The shared memory, 8 bytes: whoever makes a `Mutex` of it has the same lock. */
  readonly buffer: SharedArrayBuffer;
  #words: Int32Array;

  /**
   * Makes a lock, or another handle of one.
   *
   * @param buffer The `buffer` of another; a new one by default.
   * @throws {TypeError} When it is no `SharedArrayBuffer` of 8 bytes.
   */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(8)) {
    if (!(buffer instanceof SharedArrayBuffer) || buffer.byteLength !== 8) {
      throw new TypeError(`buffer must be a SharedArrayBuffer of 8 bytes, got ${String(buffer)}`);
    }
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /**
   * Waits for the lock.
   *
   * @returns The lock that is held: `unlock()` it, or declare it with `using`.
   */
  async lock(): Promise<Lock> {
    const words = this.#words;
    const ticket = Atomics.add(words, NEXT, 1);
    for (;;) {
      const serving = Atomics.load(words, SERVING);
      if (serving === ticket) return new Lock(words);
      const waited = Atomics.waitAsync(words, SERVING, serving);
      if (waited.async) await waited.value;
    }
  }
}

/** A {@linkcode Mutex} that is held. */
export class Lock implements Disposable {
  #words: Int32Array | null;

  /**
   * Made by `Mutex.lock()`.
   *
   * @param words The lock's memory.
   */
  constructor(words: Int32Array) {
    this.#words = words;
  }

  /** Lets the next one have it. Does nothing the second time. */
  unlock(): void {
    const words = this.#words;
    this.#words = null;
    if (words === null) return;
    Atomics.add(words, SERVING, 1);
    Atomics.notify(words, SERVING);
  }

  /** The same as {@linkcode Lock.unlock}, for `using`. */
  [Symbol.dispose](): void {
    this.unlock();
  }
}

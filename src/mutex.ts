import { checkTimeout } from "./deadline.ts";
import { SocketError } from "./errors.ts";
import { isAlive, ownToken, registryId, UNKNOWN } from "./thread_life.ts";

/*
 * Who comes takes the next ticket, and tickets are served in turn. Each ticket has a record, `ticket % TICKETS`, which says whose it is, so
 * that a ticket whose thread has died can be passed over. Every step is one compare-and-exchange, and whoever comes next completes what a
 * thread that died between two steps has left, so that no moment of dying leaves the lock unusable.
 */

// Words at the start of the memory.
/** The next ticket. */
const NEXT = 0;
/** The ticket that is served. */
const SERVING = 1;
/** By what memory the threads know who is alive, see `registryId()`. */
const REGISTRY = 2;
/** 1 when an owner has died and nobody has been told. */
const ABANDONED = 3;
const HEADER_BYTES = 64;
/** Tickets that can be out at once. */
const TICKETS = 1024;
const MASK = TICKETS - 1;
const BYTES = HEADER_BYTES + TICKETS * BigInt64Array.BYTES_PER_ELEMENT;

/** Set in a record once its ticket is served; below it is the thread's token. 0 is the owner of a ticket that nobody has taken. */
const GRANTED = 2 ** 31;
/** Milliseconds after which one that waits looks whether those before it are alive. */
const CHECK_MS = 100;

/** How to wait for a {@linkcode Mutex}. */
export interface LockOptions {
  /** Milliseconds to wait at most: `Infinity` by default. 0 takes the lock only if it is free. */
  timeout?: number;
  /** Ends the waiting when it fires. */
  signal?: AbortSignal;
}

/**
 * A lock that threads share, in shared memory. Waiting for it is a promise, so that no event loop stands still, and keeps the program
 * running. Up to 1024 that wait get it in the order of asking, whichever threads they are in; those beyond in any order, after them.
 *
 * A thread that ends while it holds the lock, or waits for it, is passed over within a tenth of a second, where a server of this package
 * or `Replicas` has started it; of other threads nobody knows. The next owner is told by `abandoned`. A handler that ends without
 * unlocking keeps the lock as long as its thread lives, so unlock in `finally`, or declare the lock with `using`. Waiting for a lock that
 * the same handler holds waits for ever, unless it has a `timeout`.
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
  /** The shared memory, 8256 bytes: each `Mutex` that is made of it is the same lock. */
  readonly buffer: SharedArrayBuffer;
  #words: Int32Array<SharedArrayBuffer>;
  #records: BigInt64Array<SharedArrayBuffer>;
  /** This thread's token; `UNKNOWN` where the threads don't know of each other. */
  #token: number;

  /**
   * Makes a lock, or another handle of one.
   *
   * @param buffer The `buffer` of another; a new one by default.
   * @throws {TypeError} When it is not the `buffer` of a `Mutex`.
   */
  constructor(buffer: SharedArrayBuffer = makeBuffer()) {
    if (!(buffer instanceof SharedArrayBuffer) || buffer.byteLength !== BYTES || new Int32Array(buffer)[REGISTRY] === 0) {
      throw new TypeError(`buffer must be the buffer of a Mutex, got ${Object.prototype.toString.call(buffer)}`);
    }
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#records = new BigInt64Array(buffer, HEADER_BYTES);
    this.#token = this.#words[REGISTRY] === registryId() ? ownToken() : UNKNOWN;
  }

  /**
   * Waits for the lock.
   *
   * @param options `timeout`: milliseconds to wait at most. `signal`: ends the waiting.
   * @returns The lock that is held: `unlock()` it, or declare it with `using`.
   * @throws {SocketError} As the promise's rejection: `ETIMEDOUT` when it was not free in time.
   * @throws {RangeError} As the promise's rejection, when `timeout` is no number of milliseconds.
   * @throws {unknown} As the promise's rejection: the signal's reason when it fires.
   */
  async lock(options: LockOptions = {}): Promise<Lock> {
    const { timeout = Infinity, signal } = options;
    checkTimeout("timeout", timeout);
    signal?.throwIfAborted();
    const ticket = this.#takeTicket();
    if (ticket !== null && this.#isGranted(ticket)) return this.#granted(ticket);
    return await this.#wait(ticket, timeout, signal);
  }

  async #wait(ticket: number | null, timeout: number, signal: AbortSignal | undefined): Promise<Lock> {
    let late = timeout === 0;
    let resume = () => {};
    const wake = () => {
      if (ticket === null) resume();
      else Atomics.notify(this.#records, ticket & MASK);
    };
    // Beside what it looks at, a timer keeps the program running, which waiting for shared memory doesn't.
    const check = setInterval(() => {
      this.#serve();
      // A thread may have died before it could notify this one.
      wake();
    }, CHECK_MS);
    const timer = timeout === 0 || timeout === Infinity ? undefined : setTimeout(() => {
      late = true;
      wake();
    }, timeout);
    signal?.addEventListener("abort", wake);
    try {
      for (;;) {
        ticket ??= this.#takeTicket();
        if (ticket !== null && this.#isGranted(ticket)) return this.#granted(ticket);
        if (late || signal?.aborted) {
          // Or it has just been granted.
          if (ticket !== null && !this.#giveBack(ticket)) continue;
          if (signal?.aborted) throw signal.reason;
          throw new SocketError("ETIMEDOUT", { syscall: "lock" }, `the mutex was not free within ${timeout} ms`);
        }
        if (ticket === null) {
          // Until the next look: as many wait before it as have tickets.
          await new Promise<void>((resolve) => resume = resolve);
          continue;
        }
        const waited = Atomics.waitAsync(this.#records, ticket & MASK, pack(ticket, this.#token));
        if (waited.async) await waited.value;
        else if (!this.#isGranted(ticket)) throw new Error("lock(): this thread counts as ended");
      }
    } finally {
      clearInterval(check);
      clearTimeout(timer);
      signal?.removeEventListener("abort", wake);
    }
  }

  /** Takes the next ticket and serves whoever is next; `null` when as many are out as can be. */
  #takeTicket(): number | null {
    const words = this.#words;
    for (let served = false;;) {
      const next = Atomics.load(words, NEXT) >>> 0;
      const record = Atomics.load(this.#records, next & MASK);
      const ahead = ticketOf(record) - next | 0;
      if (ahead < 0) {
        // The dead have tickets, too.
        if (served) return null;
        served = true;
        this.#serve();
      } else if (ahead === 0 && ownerOf(record) === 0) {
        if (!this.#replace(record, pack(next, this.#token))) continue;
        Atomics.compareExchange(words, NEXT, next | 0, next + 1 | 0);
        this.#serve();
        return next;
      } else {
        // Somebody has taken this one, and not counted it yet.
        Atomics.compareExchange(words, NEXT, next | 0, next + 1 | 0);
      }
    }
  }

  /** Grants the lock to the next one who is alive, unless somebody has it. Any thread may call this at any time. */
  #serve(): void {
    const words = this.#words;
    for (;;) {
      const serving = Atomics.load(words, SERVING) >>> 0;
      const record = Atomics.load(this.#records, serving & MASK);
      const ahead = ticketOf(record) - serving | 0;
      if (ahead > 0) {
        // It was given back.
        Atomics.compareExchange(words, SERVING, serving | 0, serving + 1 | 0);
        continue;
      }
      const owner = ownerOf(record);
      // Nobody has taken the ticket; or SERVING has changed since it was read.
      if (ahead < 0 || owner === 0) return;
      if (!this.#isAlive(owner)) {
        // Before the next one is told. Should somebody else have noticed it first, one is told of nothing.
        if (owner >= GRANTED) Atomics.store(words, ABANDONED, 1);
        this.#replace(record, pack(serving + TICKETS, 0));
        continue;
      }
      if (owner >= GRANTED) return;
      if (!this.#replace(record, pack(serving, owner + GRANTED))) continue;
      Atomics.notify(this.#records, serving & MASK);
      return;
    }
  }

  #isAlive(owner: number): boolean {
    return this.#words[REGISTRY] !== registryId() || isAlive(owner % GRANTED);
  }

  #isGranted(ticket: number): boolean {
    return Atomics.load(this.#records, ticket & MASK) === pack(ticket, this.#token + GRANTED);
  }

  #granted(ticket: number): Lock {
    const abandoned = Atomics.exchange(this.#words, ABANDONED, 0) === 1;
    return new Lock(() => {
      this.#replace(pack(ticket, this.#token + GRANTED), pack(ticket + TICKETS, 0));
      this.#serve();
    }, abandoned);
  }

  /** Gives back a ticket that was not served; `false` when it was. */
  #giveBack(ticket: number): boolean {
    if (!this.#replace(pack(ticket, this.#token), pack(ticket + TICKETS, 0))) return false;
    this.#serve();
    return true;
  }

  #replace(record: bigint, by: bigint): boolean {
    return Atomics.compareExchange(this.#records, ticketOf(record) & MASK, record, by) === record;
  }
}

/** A {@linkcode Mutex} that is held. */
export class Lock implements Disposable {
  /**
   * Whether the thread that had it before has died with it, or as it was about to get it: what the lock protects may be half changed.
   */
  readonly abandoned: boolean;
  #release: (() => void) | null;

  /**
   * Made by `Mutex.lock()`.
   *
   * @param release Lets the next one have it.
   * @param abandoned See {@linkcode Lock.abandoned}.
   */
  constructor(release: () => void, abandoned: boolean) {
    this.#release = release;
    this.abandoned = abandoned;
  }

  /**
   * Lets the next one have it.
   *
   * @throws {Error} When it is not held any more: it was unlocked before.
   */
  unlock(): void {
    if (this.#release === null) throw new Error("unlock(): this lock is not held, it was unlocked before");
    this[Symbol.dispose]();
  }

  /** The same as {@linkcode Lock.unlock}, for `using`; does nothing when it was unlocked before. */
  [Symbol.dispose](): void {
    const release = this.#release;
    this.#release = null;
    release?.();
  }
}

function makeBuffer(): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(BYTES);
  new Int32Array(buffer)[REGISTRY] = registryId();
  const records = new BigInt64Array(buffer, HEADER_BYTES);
  for (let ticket = 0; ticket < TICKETS; ticket++) records[ticket] = pack(ticket, 0);
  return buffer;
}

/** A record: the ticket it is for, and who has that. */
function pack(ticket: number, owner: number): bigint {
  return BigInt.asIntN(64, BigInt(ticket >>> 0) << 32n | BigInt(owner));
}

function ticketOf(record: bigint): number {
  return Number(BigInt.asUintN(32, record >> 32n));
}

function ownerOf(record: bigint): number {
  return Number(BigInt.asUintN(32, record));
}

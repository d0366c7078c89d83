import type { SocketError } from "./errors.ts";
import { countBehind } from "./pile_up.ts";
import { ignore } from "./promises.ts";

/** Bytes that joined writes have at most: what one operation sends of them. */
const JOINED_BYTES = 262_144;
/** Bytes of the longest write that is joined with others: sending a longer one by itself costs less than copying it. */
const LONGEST_JOINED_BYTES = 65_536;
/** Bytes of the smallest buffer for joined writes. */
const SMALLEST_BUFFER_BYTES = 1024;
/** Buffers of `JOINED_BYTES` that are kept for whoever needs one next: new memory costs more than copying into it. */
const SPARE_BUFFERS = 4;
const spares: Uint8Array[] = [];

/**
 * Writes that the system has not taken yet, in order. A write that waits alone is kept as it is. Small ones that wait together are copied
 * into one buffer and share a promise: an operation and a promise for each would cost more, in time and in memory, than their bytes.
 */
export class SendQueue {
  #entries: Entry[] = [];
  #size = 0;

  /** Whether nothing is waiting. */
  get empty(): boolean {
    return this.#entries.length === 0;
  }

  /** How many bytes are waiting; once it has failed, how many were. */
  get size(): number {
    return this.#size;
  }

  /** Puts bytes behind those that wait; resolves when all of them have been taken. The rejection counts as handled. */
  push(bytes: Uint8Array): Promise<void> {
    countBehind(bytes.length, this.#size);
    this.#size += bytes.length;
    let last = this.#entries.at(-1);
    if (last === undefined || !last.join(bytes)) this.#entries.push(last = new Entry(bytes));
    return last.promise;
  }

  /** The bytes to send next. What is pushed later is not joined with them any more. */
  head(): Uint8Array {
    return this.#entries[0]!.begin();
  }

  /** All that is not being sent yet, in order: for a socket that has a queue of its own. It takes them one after the other. */
  begin(): Uint8Array[] {
    return this.#entries.filter((entry) => !entry.begun).map((entry) => entry.begin());
  }

  /** So many bytes of the first that waits have been taken. After `fail` that changes nothing. */
  took(size: number): void {
    const entry = this.#entries[0];
    if (entry === undefined) return;
    this.#size -= size;
    if (!entry.took(size)) return;
    this.#entries.shift();
    entry.resolve();
  }

  /**
   * Sends what the socket takes.
   *
   * @param send Sends what it can at once and says how many bytes that was; less than 0 once it has called `fail`.
   */
  flush(send: (bytes: Uint8Array) => number): void {
    while (this.#entries.length > 0) {
      const bytes = this.head();
      const sent = send(bytes);
      if (sent < 0) return;
      this.took(sent);
      if (sent < bytes.length) return;
    }
  }

  /** Resolves when all that waits now has been taken. */
  drained(): Promise<void> {
    return this.#entries.at(-1)?.promise ?? Promise.resolve();
  }

  /** Gives up on all that waits. */
  fail(error: SocketError): void {
    const entries = this.#entries;
    this.#entries = [];
    for (const entry of entries) entry.reject(error);
  }
}

/** A write, or small ones that were joined. */
class Entry {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: SocketError) => void;
  /** The writer's bytes, or a buffer of its own once there are others'. */
  #bytes: Uint8Array;
  #start = 0;
  #end: number;
  #isOwn = false;
  /** Whether it is being sent. */
  begun = false;

  constructor(bytes: Uint8Array) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(ignore);
    this.promise = promise;
    this.resolve = resolve;
    this.reject = reject;
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  /** Copies a write behind this one; `false` when the two are to stay apart. */
  join(bytes: Uint8Array): boolean {
    const size = this.#end + bytes.length;
    if (this.begun || bytes.length > LONGEST_JOINED_BYTES || size > JOINED_BYTES) return false;
    if (!this.#isOwn && this.#end > LONGEST_JOINED_BYTES) return false;
    if (!this.#isOwn || size > this.#bytes.length) {
      const buffer = allocate(Math.max(SMALLEST_BUFFER_BYTES, size, 2 * this.#end));
      buffer.set(this.#isOwn ? this.#bytes.subarray(0, this.#end) : this.#bytes);
      this.#bytes = buffer;
      this.#isOwn = true;
    }
    this.#bytes.set(bytes, this.#end);
    this.#end = size;
    return true;
  }

  /** What is left to be sent. */
  begin(): Uint8Array {
    this.begun = true;
    return this.#start === 0 && this.#end === this.#bytes.length ? this.#bytes : this.#bytes.subarray(this.#start, this.#end);
  }

  /** Whether all has been taken with these. */
  took(size: number): boolean {
    this.#start += size;
    if (this.#start < this.#end) return false;
    if (this.#isOwn && this.#bytes.length === JOINED_BYTES && spares.length < SPARE_BUFFERS) spares.push(this.#bytes);
    return true;
  }
}

function allocate(size: number): Uint8Array {
  if (size <= JOINED_BYTES / 4) return new Uint8Array(size);
  return spares.pop() ?? new Uint8Array(JOINED_BYTES);
}

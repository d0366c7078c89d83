import type { SocketError } from "./errors.ts";
import { ignore } from "./promises.ts";

interface Entry {
  bytes: Uint8Array;
  done: PromiseWithResolvers<void>;
}

/** What a non-blocking socket has not taken yet: made when a write comes back short, sent on when the socket drains. */
export class SendQueue {
  #send: (bytes: Uint8Array) => number;
  #entries: Entry[] = [];
  #size = 0;

  /** @param send Sends what it can at once and says how many bytes that was; less than 0 once it has called `fail`. */
  constructor(send: (bytes: Uint8Array) => number) {
    this.#send = send;
  }

  /** Whether nothing is waiting. */
  get empty(): boolean {
    return this.#entries.length === 0;
  }

  /** How many bytes are waiting; once it has failed, how many were. */
  get size(): number {
    return this.#size;
  }

  /** Puts bytes behind those that wait; resolves when all of them have been taken. */
  push(bytes: Uint8Array): Promise<void> {
    const done = Promise.withResolvers<void>();
    done.promise.catch(ignore);
    this.#entries.push({ bytes, done });
    this.#size += bytes.length;
    return done.promise;
  }

  /** Resolves when all that waits now has been taken. */
  drained(): Promise<void> {
    return this.empty ? Promise.resolve() : this.#entries.at(-1)!.done.promise;
  }

  /** Sends what the socket takes. */
  flush(): void {
    while (this.#entries.length > 0) {
      const entry = this.#entries[0]!;
      const sent = this.#send(entry.bytes);
      if (sent < 0) return;
      this.#size -= sent;
      if (sent < entry.bytes.length) {
        entry.bytes = entry.bytes.subarray(sent);
        return;
      }
      this.#entries.shift();
      entry.done.resolve();
    }
  }

  /** Gives up on all that waits. */
  fail(error: SocketError): void {
    const entries = this.#entries;
    this.#entries = [];
    for (const { done } of entries) done.reject(error);
  }
}

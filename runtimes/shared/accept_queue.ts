import type { SocketError } from "../../src/errors.ts";
import type { RawConnection } from "../../src/runtime.ts";

/**
 * Connections on their way from an adapter to `accept()`. Where the runtime accepts on its own, this is the accept queue, as bounded
 * as the kernel's.
 */
export class AcceptQueue {
  /** Connections that were aborted because the queue was full. */
  refused = 0;
  #limit: number;
  #queue: RawConnection[] = [];
  #waiter: PromiseWithResolvers<RawConnection | null> | null = null;
  #error: SocketError | null = null;
  #closed = false;

  /** @param limit Connections that may wait. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Brings a connection; false when it has to wait or was refused, so that the adapter stops reading from it. */
  offer(connection: RawConnection): boolean {
    if (this.#waiter !== null) {
      this.#settle().resolve(connection);
      return true;
    }
    if (this.#closed || this.#queue.length >= this.#limit) {
      // Aborted, not ended: a peer that never answers an end would hold the descriptor for ever.
      if (!this.#closed) this.refused++;
      connection.abort();
    } else {
      this.#queue.push(connection);
    }
    return false;
  }

  /** Reports that accepting failed. */
  fail(error: SocketError): void {
    if (this.#waiter !== null) this.#settle().reject(error);
    else if (!this.#closed) this.#error = error;
  }

  /** See `Listener.accept`. */
  accept(): Promise<RawConnection | null> {
    const error = this.#error;
    if (error !== null) {
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#queue.length > 0) return Promise.resolve(this.#queue.shift()!);
    if (this.#closed) return Promise.resolve(null);
    return (this.#waiter = Promise.withResolvers()).promise;
  }

  /** See `Listener.interrupt`. */
  interrupt(): void {
    if (this.#waiter !== null) this.#settle().resolve(null);
  }

  /** Ends the wait and aborts those that nobody accepted. */
  close(): void {
    this.#closed = true;
    this.interrupt();
    for (const connection of this.#queue) connection.abort();
    this.#queue = [];
  }

  #settle(): PromiseWithResolvers<RawConnection | null> {
    const waiter = this.#waiter!;
    this.#waiter = null;
    return waiter;
  }
}

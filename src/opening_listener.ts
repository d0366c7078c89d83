import type { Address } from "./address.ts";
import { ArrivalQueue } from "./arrival_queue.ts";
import { Deadline } from "./deadline.ts";
import { SocketError } from "./errors.ts";
import { afterArrivals, type Listener, type RawConnection } from "./runtime.ts";

/** What an {@linkcode OpeningListener} does with each connection. */
export interface Opening {
  /** What it does, as an error names it: "handshake". */
  readonly name: string;
  /** Milliseconds that it may take; 0 and `Infinity` wait for ever. */
  readonly timeout: number;
  /**
   * Makes of a connection the one to be served; `null` when it has turned it away. What it rejects with goes to `failed`; it has closed
   * the connection then. Aborting the connection must make it reject.
   */
  open(connection: RawConnection): Promise<RawConnection | null>;
  /** Is told of a connection that could not be opened. */
  failed(error: unknown, connection: RawConnection): void;
  /** Whether as many connections are there as may be; then the others wait in the queue of the listener below. */
  full(): boolean;
}

/**
 * A listener that opens each connection before anybody gets it, as a TLS handshake does. Those under way wait for each other as little
 * as they make the server wait, be it busy with a request or idle: a peer that says nothing costs nobody anything, and its own
 * connection after the timeout.
 */
export class OpeningListener implements Listener {
  #listener: Listener;
  #opening: Opening;
  #queueSize: number;
  #ready = new ArrivalQueue<RawConnection>(Infinity, (connection) => connection.abort());
  #underWay = new Set<RawConnection>();
  #accepting = false;
  #interrupted = true;
  #closed = false;

  /**
   * @param listener Where the connections come from; it belongs to this one.
   * @param opening What to do with each.
   * @param queueSize How many may wait opened until no more are accepted.
   */
  constructor(listener: Listener, opening: Opening, queueSize: number) {
    this.#listener = listener;
    this.#opening = opening;
    this.#queueSize = queueSize;
  }

  get address(): Address {
    return this.#listener.address;
  }

  get refused(): number {
    return this.#listener.refused;
  }

  get queued(): number {
    return this.#ready.length + this.#listener.queued;
  }

  /** Connections that are being opened. */
  get opening(): number {
    return this.#underWay.size;
  }

  /** Connections that have been accepted and that nobody has got yet. */
  get pending(): number {
    return this.#underWay.size + this.#ready.length;
  }

  accept<T>(as: (connection: RawConnection | null) => T): T | Promise<T> {
    this.#interrupted = false;
    const next = this.#ready.take(as);
    this.resume();
    return next;
  }

  /** Goes on accepting: called when there may be room again. */
  resume(): void {
    if (!this.#accepting) void this.#accept();
  }

  interrupt(): void {
    this.#interrupted = true;
    this.#ready.interrupt();
    this.#listener.interrupt();
  }

  /** Those that are being opened, or are still to be, can be accepted too. */
  stop(): Promise<void> {
    return this.#listener.stop();
  }

  async close(): Promise<void> {
    this.#closed = true;
    const closed = this.#listener.close();
    for (const raw of this.#underWay) raw.abort();
    this.#ready.close();
    await closed;
  }

  unref(): void {
    this.#listener.unref();
  }

  ref(): void {
    this.#listener.ref();
  }

  /** Accepts connections while there is room for them and somebody wants them: after `accept()`, until `interrupt()`. */
  async #accept(): Promise<void> {
    this.#accepting = true;
    try {
      while (!this.#interrupted && !this.#closed && this.#ready.length < this.#queueSize && !this.#opening.full()) {
        const next = this.#listener.accept((raw) => raw);
        const raw = next instanceof Promise ? await next : next;
        if (raw !== null) void this.#open(raw);
      }
    } catch (error) {
      // Whoever asks next is told, and by asking again makes this one go on.
      this.#ready.fail(error as SocketError);
    } finally {
      this.#accepting = false;
    }
  }

  async #open(raw: RawConnection): Promise<void> {
    this.#underWay.add(raw);
    try {
      const opened = await openInTime(this.#opening, raw);
      this.#underWay.delete(raw);
      if (opened !== null) this.#ready.offer(opened);
      // Else whoever gets it asks for the next.
      if (opened !== null && !this.#ready.waiting) return;
    } catch (error) {
      this.#underWay.delete(raw);
      if (!this.#closed) this.#opening.failed(error, raw);
    }
    this.resume();
  }
}

/**
 * Opens a connection, which is aborted when that takes too long.
 *
 * @throws {SocketError} As the rejection: `ETIMEDOUT` then, else what opening it rejects with.
 */
export async function openInTime<T>(
  { name, timeout, open }: { name: string; timeout: number; open(raw: RawConnection): Promise<T> },
  raw: RawConnection,
): Promise<T> {
  if (timeout === 0 || timeout === Infinity) return await open(raw);
  const deadline = new Deadline(true, (callback) => afterArrivals(raw, callback));
  let late = false;
  deadline.start(timeout, () => {
    late = true;
    raw.abort();
  });
  try {
    return await open(raw);
  } catch (error) {
    if (!late) throw error;
    throw new SocketError("ETIMEDOUT", { syscall: name, address: raw.remoteAddress }, `not done within ${timeout} ms`);
  } finally {
    deadline.clear();
  }
}

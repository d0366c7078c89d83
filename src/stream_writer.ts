import { toBytes } from "./bytes.ts";

const NONE = new Uint8Array(0);

/** What a {@linkcode StreamWriter} writes to; a connection is one. */
export interface ByteSink {
  /** Takes bytes; a promise when they can't be taken at once. */
  write(data: Uint8Array | string): void | Promise<void>;
}

/**
 * Writes to a stream, at once or gathered in a buffer: the `wfile` of a `StreamRequestHandler`.
 *
 * @example
 * ```ts
 * import { StreamRequestHandler } from "@sockets/server";
 *
 * class Report extends StreamRequestHandler {
 *   override wbufsize = 16_384; // many small writes, few packets; finish() flushes
 *
 *   override async handle(): Promise<void> {
 *     for (let i = 0; i < 1000; i++) await this.wfile.write(`line ${i}\n`);
 *   }
 * }
 * ```
 */
export class StreamWriter {
  #sink: ByteSink;
  #buffer: Uint8Array;
  #used = 0;

  /**
   * Writes to a sink.
   *
   * @param sink Where the bytes go.
   * @param size The bytes to gather before they are sent; 0 sends every write at once.
   */
  constructor(sink: ByteSink, size = 0) {
    this.#sink = sink;
    this.#buffer = size === 0 ? NONE : new Uint8Array(size);
  }

  /**
   * Writes bytes, or text as UTF-8. What is gathered is copied; what is not, as it fills the buffer by itself or there is none, must
   * not be changed before the promise resolves.
   *
   * @param data What to write.
   * @returns Nothing, or a promise to await while the peer doesn't keep up.
   * @throws {SocketError} As the promise's rejection, when the connection is lost or times out.
   */
  write(data: Uint8Array | string): void | Promise<void> {
    if (this.#buffer.length === 0) return this.#sink.write(data);
    const bytes = toBytes(data);
    if (this.#used + bytes.length <= this.#buffer.length) {
      this.#buffer.set(bytes, this.#used);
      this.#used += bytes.length;
      return;
    }
    const flushed = this.flush();
    if (bytes.length >= this.#buffer.length) return both(flushed, this.#sink.write(bytes));
    this.#buffer.set(bytes);
    this.#used = bytes.length;
    return flushed;
  }

  /** Sends what is gathered. */
  flush(): void | Promise<void> {
    if (this.#used === 0) return;
    const full = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    const pending = this.#sink.write(full);
    // The peer still has to take these bytes, so the next ones are gathered elsewhere.
    if (pending !== undefined) this.#buffer = new Uint8Array(this.#buffer.length);
    return pending;
  }
}

/** Two writes of one call; the promise counts as handled, as that of one write does. */
function both(first: void | Promise<void>, second: void | Promise<void>): void | Promise<void> {
  if (first === undefined) return second;
  if (second === undefined) return first;
  const all = Promise.all([first, second]).then(() => {});
  all.catch(() => {});
  return all;
}

import type { Address } from "./address.ts";
import { alreadyReading } from "./connection.ts";
import { IncompleteReadError, LimitOverrunError } from "./errors.ts";
import { ignore, rejected } from "./promises.ts";
import type { Receiver } from "./runtime.ts";

/** What a {@linkcode StreamReader} reads from; a connection is one. */
export interface ByteSource {
  /** The peer's address, where there is one: errors carry it. */
  readonly remoteAddress?: Address;
  /** The next chunk, or `null` at the end of the stream. */
  read(): Promise<Uint8Array | null>;
  /** The same without a promise, where that can be had; see {@linkcode Connection.receive}. */
  receive?(receiver: Receiver): Uint8Array | null | undefined;
  /** Is told, again and again, of a reader that has kept bytes for later, where it matters how much has been read ahead. */
  attachReader?(reader: BufferedReader): void;
}

/** A reader, as what it reads from sees it. */
export interface BufferedReader {
  /** Bytes that have been received and not been read. */
  readonly buffered: number;
  /** Takes them: the reader has none afterwards. */
  takeBuffered(): Uint8Array;
}

/** How much one call may buffer. */
export interface LimitOptions {
  /** The most bytes to buffer, the reader's `limit` by default. */
  limit?: number;
}

/**
 * What a call of a reader makes of what is buffered; `undefined` when it needs more. At the end of the stream there is no more, and it
 * returns something or throws.
 */
type Attempt<T> = (limit: number, ended: boolean) => T | undefined;

const NEWLINE = 10;
const RETURN = 13;
const EMPTY = new Uint8Array(0);
const encoder = new TextEncoder();
// Without ignoreBOM a decoder drops U+FEFF from the start of every line: what was sent would not be what is read.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Reads bytes, delimited records and lines from a stream: the `rfile` of a `StreamRequestHandler`.
 *
 * No peer can make it buffer more than `limit` bytes beyond the chunk that was last received. A promise of its methods that nobody awaits
 * never becomes an unhandled rejection: what the connection was lost of shows in its `error` and in every later call.
 *
 * @example
 * ```ts
 * import { StreamRequestHandler } from "@sockets/server";
 *
 * class Upper extends StreamRequestHandler {
 *   override async handle(): Promise<void> {
 *     for await (const line of this.rfile) await this.wfile.write(line.toUpperCase() + "\n");
 *   }
 * }
 * ```
 */
export class StreamReader implements AsyncIterable<string> {
  /** The most bytes that a call buffers when it names no limit of its own: 65,536, as in `asyncio`. */
  limit = 65_536;
  #source: ByteSource;
  #buffer: Uint8Array = EMPTY;
  #start = 0;
  #end = 0;
  /** What the read that waits for more bytes makes of them, within its limits; `null` when none waits. */
  #attempt: Attempt<unknown> | null = null;
  #attemptLimit = 0;
  /** Bytes that the buffer may come to hold for it. */
  #expected = 0;
  /** The promise of that read. It is rejected through `#resolve` too: one closure less for each. */
  #promise: Promise<unknown> | null = null;
  #resolve: ((result: unknown) => void) | null = null;
  /** Who the source tells; made for the first read that waits, and not for each. */
  #receiver: Receiver | null = null;

  /**
   * Reads from a source; nothing is asked of it before the first call.
   *
   * @param source Where the bytes come from.
   */
  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Bytes that have been received and not been read. */
  get buffered(): number {
    return this.#end - this.#start;
  }

  /** Takes what has been received and not been read: for whoever goes on reading elsewhere. */
  takeBuffered(): Uint8Array {
    const buffered = this.#buffer.slice(this.#start, this.#end);
    this.#start = this.#end = 0;
    return buffered;
  }

  /**
   * Reads what is there, or waits for something.
   *
   * @param max The most bytes to return; no bound by default but the size of the chunk that arrives.
   * @returns The bytes, or `null` at the end of the stream.
   * @throws {RangeError} When `max` is no positive integer.
   * @throws {SocketError} When the connection is lost or times out.
   */
  read(max = Infinity): Promise<Uint8Array | null> {
    return this.#until(undefined, (_limit, ended) => {
      if (max !== Infinity) checkCount("max", max, 1);
      // A source may give an empty chunk; a caller takes none for an answer.
      if (this.#start === this.#end) return ended ? null : undefined;
      return this.#take(Math.min(max, this.#end - this.#start));
    });
  }

  /**
   * Reads exactly so many bytes.
   *
   * @param size The number of bytes.
   * @param options `limit`: the largest `size` to accept, for sizes that a peer has sent; the reader's `limit` by default.
   * @returns The bytes.
   * @throws {IncompleteReadError} When the stream ends before; its `partial` holds what did arrive.
   * @throws {LimitOverrunError} When `size` is above the limit; nothing is read then.
   * @throws {RangeError} When `size` is no integer, or negative.
   * @throws {SocketError} When the connection is lost or times out.
   */
  readExactly(size: number, options?: LimitOptions): Promise<Uint8Array> {
    return this.#until(options, (limit, ended) => {
      checkCount("size", size, 0);
      if (size > limit) throw new LimitOverrunError(limit, `room for ${size} bytes`, this.#source.remoteAddress);
      if (this.#end - this.#start >= size) return this.#take(size);
      if (ended) throw new IncompleteReadError(this.#take(this.#end - this.#start), `${size} bytes`, this.#source.remoteAddress);
    }, size);
  }

  /**
   * Reads up to and with a delimiter.
   *
   * @param delimiter The delimiter, as bytes or as text in UTF-8; not empty.
   * @param options `limit`: the most bytes to wait for, delimiter included.
   * @returns The bytes, the delimiter included.
   * @throws {IncompleteReadError} When the stream ends before; its `partial` holds what did arrive.
   * @throws {LimitOverrunError} When the limit is reached without a delimiter; what arrived stays in the buffer.
   * @throws {SocketError} When the connection is lost or times out.
   * @throws {TypeError} When the delimiter is neither bytes nor text, or empty; nothing is read then.
   */
  readUntil(delimiter: Uint8Array | string, options?: LimitOptions): Promise<Uint8Array> {
    const bytes = typeof delimiter === "string" ? encoder.encode(delimiter) : delimiter;
    if (!(bytes instanceof Uint8Array) || bytes.length === 0) return rejected(delimiterError(delimiter));
    let searched = 0;
    return this.#until(options, (limit, ended) => {
      const size = this.#find(bytes, searched, limit);
      if (size !== -1) return this.#take(size);
      const all = this.#end - this.#start;
      if (ended) throw new IncompleteReadError(this.#take(all), "the delimiter", this.#source.remoteAddress);
      // A delimiter may have begun in the last bytes; only those are looked at again.
      searched = Math.max(0, all - bytes.length + 1);
    });
  }

  /**
   * Reads a line of UTF-8 text.
   *
   * @param options `limit`: the most bytes to wait for, the line's end included.
   * @returns The line without its `\n` or `\r\n`; `null` at the end of the stream. As in Python, text that the end of the stream
   * cuts off is the last line; a protocol in which that matters calls `readUntil("\n")`.
   * @throws {LimitOverrunError} When the limit is reached without a line's end; what arrived stays in the buffer.
   * @throws {SocketError} When the connection is lost or times out.
   */
  readLine(options?: LimitOptions): Promise<string | null> {
    let searched = 0;
    return this.#until(options, (limit, ended) => {
      const size = this.#find(LINE_END, searched, limit);
      if (size !== -1) return this.#takeLine(size);
      searched = this.#end - this.#start;
      if (ended) return searched === 0 ? null : decoder.decode(this.#take(searched));
    });
  }

  /** Reads line by line, as `readLine()` does, until the stream ends. */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<string> {
    for (let line = await this.readLine(); line !== null; line = await this.readLine()) yield line;
  }

  /** Receives until the attempt has a result. Without `async`: a promise for each call is what it costs, and no other. */
  #until<T>(options: LimitOptions | undefined, attempt: Attempt<T>, expected?: number): Promise<T> {
    let limit: number;
    try {
      limit = this.#limit(options);
      const value = attempt(limit, false);
      if (value !== undefined) return Promise.resolve(value);
    } catch (error) {
      return rejected(error);
    }
    if (this.#attempt !== null) return rejected(alreadyReading());
    this.#attempt = attempt;
    this.#attemptLimit = limit;
    this.#expected = expected ?? limit;
    const promise = this.#promise = new Promise<unknown>((resolve) => this.#resolve = resolve);
    try {
      const chunk = this.#receive();
      if (chunk !== undefined) this.#received(chunk);
    } catch (error) {
      this.#failed(error);
    }
    return promise as Promise<T>;
  }

  #receive(): Uint8Array | null | undefined {
    const source = this.#source;
    const receiver = this.#receiver ??= this.#makeReceiver();
    if (source.receive !== undefined) return source.receive(receiver);
    source.read().then(receiver.received, receiver.failed);
  }

  /** By itself, as closures in `#receive()` would cost each call an allocation, made or not. */
  #makeReceiver(): Receiver {
    return { received: (chunk) => this.#received(chunk), failed: (error) => this.#failed(error) };
  }

  /** The waiting read goes on with a chunk, or with the end of the stream. */
  #received(chunk: Uint8Array | null): void {
    try {
      for (let next: Uint8Array | null | undefined = chunk; next !== undefined; next = this.#receive()) {
        if (next !== null) this.#append(next, this.#expected);
        const value = this.#attempt!(this.#attemptLimit, next === null);
        if (value === undefined) continue;
        this.#settle(value);
        break;
      }
    } catch (error) {
      this.#failed(error);
    }
    if (this.#end > this.#start) this.#source.attachReader?.(this);
  }

  #failed(error: unknown): void {
    // Only now, so that a read that succeeds doesn't pay for it.
    this.#promise?.catch(ignore);
    this.#settle(Promise.reject(error));
  }

  #settle(result: unknown): void {
    const resolve = this.#resolve;
    this.#attempt = this.#resolve = this.#promise = null;
    resolve?.(result);
  }

  /** The number of bytes up to the delimiter's end, or -1 when it isn't there yet. */
  #find(delimiter: Uint8Array, searched: number, limit: number): number {
    const at = this.#indexOf(delimiter, this.#start + searched);
    const size = at === -1 ? this.#end - this.#start : at - this.#start + delimiter.length;
    if (at !== -1 && size <= limit) return size;
    if (size >= limit) {
      throw new LimitOverrunError(
        limit,
        delimiter.length === 1 && delimiter[0] === NEWLINE ? "line" : "delimiter",
        this.#source.remoteAddress,
      );
    }
    return -1;
  }

  #limit(options: LimitOptions | undefined): number {
    const limit = options?.limit ?? this.limit;
    if (!(limit >= 1)) throw new RangeError(`limit must be a number of bytes, 1 or more, got ${String(limit)}`);
    return limit;
  }

  #indexOf(delimiter: Uint8Array, from: number): number {
    const first = delimiter[0]!;
    // Behind the end there may be room that is not filled yet.
    const filled = this.#end === this.#buffer.length ? this.#buffer : this.#buffer.subarray(0, this.#end);
    const stop = this.#end - delimiter.length;
    for (let at = from;; at++) {
      at = filled.indexOf(first, at);
      if (at === -1 || at > stop) return -1;
      let i = 1;
      while (i < delimiter.length && this.#buffer[at + i] === delimiter[i]) i++;
      if (i === delimiter.length) return at;
    }
  }

  #take(size: number): Uint8Array {
    const start = this.#start;
    const end = this.#start = start + size;
    const buffer = this.#buffer;
    // The tail of the buffer may still be written to by #append; what leaves here never is. Mostly a chunk is taken whole; on Bun a view
    // would cost more than all the rest.
    return start === 0 && end === buffer.length ? buffer : buffer.subarray(start, end);
  }

  #takeLine(size: number): string {
    // The line's end is cut off the text and not off the bytes: see #take.
    const text = decoder.decode(this.#take(size));
    return text.slice(0, text.charCodeAt(text.length - 2) === RETURN ? -2 : -1);
  }

  /** Puts a chunk behind what is buffered; `expected` are the bytes that the buffer may come to hold. */
  #append(chunk: Uint8Array, expected: number): void {
    const held = this.#end - this.#start;
    if (held === 0) {
      this.#buffer = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      return;
    }
    const size = held + chunk.length;
    if (this.#end + chunk.length > this.#buffer.length) {
      // Doubling keeps a peer that sends byte by byte from costing a copy of everything for each of them.
      const grown = new Uint8Array(Math.max(size, Math.min(held * 2, Math.max(expected, size))));
      grown.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = grown;
      this.#start = 0;
      this.#end = held;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }
}

const LINE_END = new Uint8Array([NEWLINE]);

function delimiterError(delimiter: unknown): TypeError {
  const what = delimiter instanceof Uint8Array || delimiter === ""
    ? "must not be empty"
    : `must be bytes (Uint8Array) or text, got ${Object.prototype.toString.call(delimiter)}`;
  return new TypeError(`delimiter ${what}`);
}

function checkCount(name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least) {
    throw new RangeError(`${name} must be an integer of ${least} or more, got ${String(value)}`);
  }
}

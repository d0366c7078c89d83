import { type Address, isSameAddress } from "./address.ts";
import { concat, toBytes } from "./bytes.ts";
import type { ConnectionWatch } from "./connection_watch.ts";
import { checkTimeout, Deadline } from "./deadline.ts";
import { type EndReason, inOrder } from "./end_reason.ts";
import { SocketError } from "./errors.ts";
import type { ProxyHeader } from "./proxy_protocol.ts";
import { asIs, forEachChunk, Pull, toResult } from "./pull.ts";
import { handled, ignore, rejected } from "./promises.ts";
import { afterArrivals, type RawConnection, type Receiver } from "./runtime.ts";
import type { BufferedReader } from "./stream_reader.ts";
import {
  beginsHandshake,
  HandshakingConnection,
  readAheadIsHandshake,
  startTls,
  type StartTlsOptions,
  type TlsConnectOptions,
  type TlsInfo,
  type TlsOptions,
} from "./tls.ts";
import { readableOf, WritableOf } from "./web_streams.ts";

const CLOSED = Promise.resolve();
/** Milliseconds that `close()` gives `writable` to hand on what was written to it. */
const STREAM_GRACE_MS = 10_000;
/** Milliseconds that the peer has to end its side after both sides were ended here, one by `readable.cancel()`. */
const CANCEL_LINGER_MS = 1000;

/**
 * Says why a connection ends, for the server and its workers. The first reason stands, unless it was to end in order; then what
 * prevents that is the reason.
 */
export let noteEnd: (connection: Connection, reason: EndReason) => void;
/** Whether the server, or a worker, has ended it: what its handler then fails with is no news. */
export let endedHere: (connection: Connection) => boolean;
/** Whether an error is one of this connection, and not of another that its handler has. */
export let isOwnError: (connection: Connection, error: SocketError) => boolean;
/** Whether the peer has ended its side, or the connection is lost. */
export let hasPeerLeft: (connection: Connection) => boolean;
/** What watches over a connection that a server has accepted. */
export let watchOf: (connection: Connection) => ConnectionWatch | null;
let nextChunk: (connection: Connection) => Promise<IteratorResult<Uint8Array>>;

/** How to close a connection. */
export interface CloseOptions {
  /** See {@linkcode Connection.close}. */
  linger?: number;
}

/**
 * A connection: the `request` of a stream handler, and what `connect()` gives a client.
 *
 * Reading is a pull: nothing more is taken from the peer than a small, bounded amount ahead of what the program reads, so a peer
 * that sends faster than it is read is slowed down by TCP itself. Writing is a push with back-pressure: `write` gives a promise
 * when the peer doesn't keep up, and awaiting it bounds the memory. A connection that dies rejects what is pending with a
 * {@linkcode SocketError}; nothing hangs. A promise of its methods that nobody awaits never becomes an unhandled rejection: the failure
 * shows in `error` and in every later call. Only what the callback of `forEach()` throws is the program's own affair.
 *
 * @example Echo
 * ```ts
 * import { serve } from "@sockets/server";
 *
 * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
 *   for await (const chunk of conn) await conn.write(chunk);
 * });
 * await server.serverClose();
 * ```
 */
export class Connection implements AsyncIterable<Uint8Array>, AsyncDisposable {
  static {
    noteEnd = (connection, reason) => connection.#note(reason);
    endedHere = (connection) => {
      const reason = connection.#endReason;
      return reason !== null && !inOrder(reason) && reason !== "handler error" && reason !== "reset";
    };
    // By value: an error that has come from a worker has a copy of the address.
    isOwnError = (connection, error) => {
      if (error === connection.#error) return true;
      const { address } = error;
      if (address === undefined) return false;
      return isSameAddress(address, connection.remoteAddress) || isSameAddress(address, connection.#raw.remoteAddress);
    };
    hasPeerLeft = (connection) => connection.#error !== null || connection.#raw.readEnded || connection.#ended;
    watchOf = (connection) => connection.#watch;
    nextChunk = (connection) => connection.#direct ? connection.#pull.next() : connection.#timedRead(toResult);
  }

  /** What the load balancer said of the client, on a server with `proxyProtocol`; `null` when it was not asked. */
  readonly proxy: ProxyHeader | null;
  #raw: RawConnection;
  #pull: Pull;
  #watch: ConnectionWatch | null;
  #endReason: EndReason | null = null;
  #timeout = 0;
  #reads: Deadline | undefined;
  #closes: Deadline | undefined;
  /** The deadlines of writes that the peer has not taken. */
  #writes: Set<Deadline> | null = null;
  /** Whether `unref()` was called: then no deadline keeps the program running either. */
  #unreferenced = false;
  /**
   * A read that timed out and is still under way: the next `read()` takes over its chunk, so that nothing is lost. After
   * `readable.cancel()`, a rejection for all reads.
   */
  #unclaimed: Promise<Uint8Array | null> | null = null;
  /** What was longer than the buffer of a `readInto()`. */
  #rest: Uint8Array | null = null;
  #reading = false;
  #ended = false;
  #error: SocketError | null = null;
  #closed: { promise: Promise<void>; resolve: () => void } | null = null;
  #controller: AbortController | null = null;
  /** Whether `close()` was called. */
  #closing = false;
  /** Whether `closeWrite()` was called. */
  #sendEnded = false;
  /** After `readable.cancel()`: resolves when nothing more can come. */
  #discarded: Promise<void> | null = null;
  #readable: ReadableStream<Uint8Array> | null = null;
  #writable: WritableOf | null = null;
  #hostname: string | null | undefined;
  /** The reader that last kept bytes for later, and the others that still have some. */
  #reader: BufferedReader | null = null;
  #otherReaders: Set<BufferedReader> | null = null;
  /** Bytes received and sent before `startTls()`. */
  #clearRead = 0;
  #clearWritten = 0;

  /**
   * Wraps an adapter's connection. Servers and `connect()` do this; programs don't.
   *
   * @param raw The adapter's connection.
   * @param watch Watches over it.
   * @param proxy What the load balancer said of the client.
   * @param hostname The host that this side has connected to, `null` for one without a name; left out on a server.
   */
  constructor(
    raw: RawConnection,
    watch: ConnectionWatch | null = null,
    proxy: ProxyHeader | null = null,
    hostname?: string | null,
  ) {
    this.#raw = raw;
    this.#pull = new Pull(raw);
    this.proxy = proxy;
    this.#watch = watch;
    this.#hostname = hostname;
    raw.onclose = (error) => this.#end(error);
  }

  /** This side's address. */
  get localAddress(): Address {
    return this.#raw.localAddress;
  }

  /** The peer's address; behind a load balancer with `proxyProtocol`, the client's. */
  get remoteAddress(): Address {
    return this.proxy?.source ?? this.#raw.remoteAddress;
  }

  /** What the TLS handshake has agreed on, the peer's certificate among it; `null` on a connection without TLS. */
  get tls(): TlsInfo | null {
    return this.#raw.tls;
  }

  /**
   * Milliseconds that a read, a write or a close may wait for the peer before it fails with `ETIMEDOUT`; 0, the default, waits
   * for ever. The equivalent of Python's `socket.settimeout()`.
   */
  get timeout(): number {
    return this.#timeout;
  }
  set timeout(ms: number) {
    checkTimeout("timeout", ms);
    this.#timeout = ms === Infinity ? 0 : ms;
  }

  /** Why the connection was lost, or `null` while it lives and when it ended in order. */
  get error(): SocketError | null {
    return this.#error;
  }

  /**
   * Why the connection has ended, or is about to; `null` while it goes on. In a handler's `finish()` it is never `null`: the handler
   * is done, for one.
   */
  get endReason(): EndReason | null {
    if (this.#endReason !== null) return this.#endReason;
    if (this.#error !== null) return "reset";
    return this.#raw.readEnded ? "peer closed" : null;
  }

  /** Bytes received so far, those that nobody has read yet included. */
  get bytesRead(): number {
    return this.#clearRead + this.#raw.bytesRead;
  }

  /** Bytes sent so far, as far as the system has taken them. */
  get bytesWritten(): number {
    return this.#clearWritten + this.#raw.bytesWritten;
  }

  /** Resolves once the connection is gone in both directions, for whatever reason; never rejects. */
  get closed(): Promise<void> {
    if (!this.#ended) this.#raw.watch();
    return this.#whenClosed();
  }

  /**
   * Fires when the connection is gone: reset or lost by the peer, or closed here. A peer that has only ended its sending side is
   * still there. Its `reason` is a {@linkcode SocketError}.
   *
   * What can be noticed while nobody reads is limited by what may be buffered: behind unread data the peer's end is unseen.
   */
  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#ended) this.#controller.abort(this.#reason());
      else this.#raw.watch();
    }
    return this.#controller.signal;
  }

  /**
   * Reads the next chunk, as it comes from the network.
   *
   * @returns The chunk, which is the caller's to keep or change, or `null` when the peer has ended its side. It is a plain
   * `Uint8Array` on every runtime. Its `buffer` may hold other chunks too: to transfer one, copy it first.
   * @throws {SocketError} When the connection is lost (`ECONNRESET`), was closed here (`ECONNABORTED`) or times out
   * (`ETIMEDOUT`; the connection stays usable and no byte is lost).
   * @throws {TypeError} When another `read` is waiting.
   */
  read(): Promise<Uint8Array | null> {
    return this.#direct ? this.#pull.read() : this.#timedRead(asIs);
  }

  /**
   * Reads what comes next into memory of the caller's: `recv_into` of Python's sockets. Where chunks are large, this is the fastest way to
   * read on Deno and Node, which need no new memory for each then; on Bun the bytes are copied.
   *
   * @param buffer Where to put it, from its beginning. It must be left alone until the promise is settled.
   * @returns How many bytes it was, 1 at least, or `null` when the peer has ended its side.
   * @throws {SocketError} As `read()`. After `ETIMEDOUT` nothing is put into the buffer any more.
   * @throws {TypeError} When another read is waiting, or the buffer is no `Uint8Array`.
   * @throws {RangeError} When the buffer has no room.
   *
   * @example
   * ```ts
   * import { serve } from "@sockets/server";
   *
   * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
   *   const buffer = new Uint8Array(65_536);
   *   for (let size; (size = await conn.readInto(buffer)) !== null;) await conn.write(buffer.subarray(0, size));
   * });
   * await server.serverClose();
   * ```
   */
  readInto(buffer: Uint8Array): Promise<number | null> {
    if (!(buffer instanceof Uint8Array)) {
      return rejected(new TypeError(`buffer must be a Uint8Array, got ${String(buffer)}`));
    }
    if (buffer.length === 0) return rejected(new RangeError("buffer must have room for a byte at least"));
    const size = (chunk: Uint8Array | null) => chunk === null ? null : this.#putInto(buffer, chunk);
    return this.#direct ? this.#pull.readInto(buffer, size) : this.#timedRead(size);
  }

  /**
   * Calls back for each chunk until the peer ends its side: what `for await` does, without a promise for each chunk. It is the fastest
   * way to read, as nothing is waited for where the callback has done its work when it returns. Named after the method that TC39 has
   * proposed for all async iterators.
   *
   * @param callback Is called with each chunk, which is its to keep or change. When it returns a promise, as `write` does while the peer
   * doesn't keep up, the next call waits for that; so `(chunk) => conn.write(chunk)` has back-pressure.
   * @returns A promise that resolves at the end of the stream. It rejects with what the callback throws or its promise rejects with;
   * the connection stays open then, and what has not been read can still be.
   * @throws {SocketError} As the promise's rejection, when the connection is lost (`ECONNRESET`), was closed here (`ECONNABORTED`) or
   * times out (`ETIMEDOUT`).
   * @throws {TypeError} As the promise's rejection, when a `read` is waiting.
   *
   * @example
   * ```ts
   * import { serve } from "@sockets/server";
   *
   * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.forEach((chunk) => conn.write(chunk)));
   * await server.serverClose();
   * ```
   */
  forEach(callback: (chunk: Uint8Array) => void | Promise<void>): Promise<void> {
    return forEachChunk(this, callback);
  }

  /**
   * The next chunk if it is there already, or `null` at the end of the stream; else `undefined`, and `receiver` is told, later and once.
   * Readers such as {@linkcode StreamReader} are made of it; programs call {@linkcode Connection.read} or
   * {@linkcode Connection.forEach}.
   *
   * @param receiver Who is told.
   * @throws {SocketError} When the connection is lost or was closed here.
   * @throws {TypeError} When another read is waiting.
   */
  receive(receiver: Receiver): Uint8Array | null | undefined {
    if (this.#direct) return this.#raw.receive(receiver);
    this.#timedRead(asIs).then((chunk) => receiver.received(chunk), (error) => receiver.failed(error));
  }

  /**
   * Sends bytes, or text as UTF-8, after all that was sent before.
   *
   * @param data What to send. Bytes must not be changed before the returned promise, if there is one, resolves.
   * @returns Nothing when the system has taken the data, else a promise that resolves when it has. Awaiting either bounds the
   * memory of a connection whose peer reads slowly. A promise that nobody awaits never becomes an unhandled rejection: the
   * failure shows in `error` and in every later call.
   * @throws {SocketError} As the promise's rejection: `EPIPE` after `closeWrite()`; `ECONNRESET` or `EPIPE` when the peer is gone,
   * `ECONNABORTED` when it was closed here, `ETIMEDOUT` when the peer did not read for `timeout` milliseconds.
   */
  write(data: Uint8Array | string): void | Promise<void> {
    const raw = this.#raw;
    let bytes: Uint8Array | null = null;
    let pending: void | Promise<void>;
    if (typeof data === "string" && raw.writeText !== undefined) pending = raw.writeText(data);
    else pending = raw.write(bytes = toBytes(data));
    if (pending === undefined) return;
    this.#watch?.wrote((bytes ?? toBytes(data)).length);
    if (this.#timeout === 0) return pending;
    // A deadline of its own: writes that nobody awaited may be waiting too.
    const deadline = this.#newDeadline(true);
    (this.#writes ??= new Set()).add(deadline);
    return this.#within(deadline, "write", pending);
  }

  /**
   * Ends the sending side once what was written has left (half-close): the peer reads the end of the stream and can go on sending.
   *
   * @returns A promise that resolves when the end is on its way. It need not be awaited.
   * @throws {SocketError} As the promise's rejection, when the connection is lost before.
   */
  closeWrite(): Promise<void> {
    this.#sendEnded = true;
    const ended = handled(Promise.resolve(this.#raw.closeWrite()));
    return this.#discarded === null ? ended : handled(ended.then(() => this.#closeUnread()));
  }

  /**
   * Closes the connection once what was written has left.
   *
   * @param options `linger`: milliseconds that the peer has to end its side, 0 by default. What it still sends is received and dropped.
   * Closed with input unread, TCP resets a connection (RFC 1122, section 4.2.2.13), and a peer that was sending, as after a request
   * that is refused before its end, would lose the answer (RFC 9112, section 9.6).
   * @returns A promise that resolves when it is closed; it never rejects. With a `timeout`, a peer that doesn't take the rest
   * in time is aborted.
   * @throws {RangeError} When `linger` is no number of milliseconds.
   *
   * @example
   * ```ts
   * import { serve } from "@sockets/server";
   *
   * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
   *   await conn.write("421 too many of you\r\n");
   *   await conn.close({ linger: 1000 });
   * });
   * await server.serverClose();
   * ```
   */
  close(options: CloseOptions = {}): Promise<void> {
    const { linger = 0 } = options;
    if (linger !== 0) checkTimeout("linger", linger);
    const again = this.#closing;
    this.#closing = true;
    if (this.#ended) return CLOSED;
    if (this.#writable !== null && !again) return this.#closeBehind(this.#writable, linger);
    return linger === 0 ? this.#close() : this.#linger(linger);
  }

  /** Closes at once and drops what has not left. The peer sees a reset where the runtime can send one (not on Deno). */
  abort(): void {
    if (!this.#ended) this.#raw.abort();
  }

  /**
   * Puts TLS on the connection, once the two sides have agreed on that in the clear (STARTTLS): a handler answers the handshake, the
   * client's end begins it. Nothing may be read or written until it is done.
   *
   * What has been read ahead in the clear, in `rfile` or another {@linkcode StreamReader}, would pass for secured afterwards. Whoever
   * reaches the line could put commands there (CVE-2011-0411), so that is an error and ends the connection, unless `how` says that it is
   * the handshake. What `wfile` gathers must be flushed before.
   *
   * @param options The certificate and the rest, for a handler. They are read once: pass the same object for each connection, a new one
   * for new certificates. For the client's end, {@linkcode TlsConnectOptions}.
   * @param how `readAhead`: `"handshake"` for a protocol whose client begins the handshake right behind its request for TLS.
   * @throws {SocketError} When the handshake fails: `EPROTO` when the two don't come to terms, or when something was read ahead that
   * isn't the beginning of a handshake, `ETIMEDOUT`, `ECONNRESET`. The connection is closed then.
   * @throws {TypeError} When the options are none, a read is waiting, or there is TLS already; then all stays as it was.
   *
   * @example STARTTLS: the client waits for the answer
   * ```ts
   * import { StreamRequestHandler, type TlsOptions } from "@sockets/server";
   *
   * const tls: TlsOptions = { cert: "/etc/ssl/mail.pem", key: "/etc/ssl/mail.key" };
   *
   * class Mail extends StreamRequestHandler {
   *   override async handle(): Promise<void> {
   *     for await (const line of this.rfile) {
   *       if (line !== "STARTTLS") continue;
   *       await this.wfile.write("220 go ahead\r\n");
   *       await this.request.startTls(tls);
   *     }
   *   }
   * }
   * ```
   *
   * @example MySQL's way: the handshake follows the request at once
   * ```ts
   * import { StreamRequestHandler, type TlsOptions } from "@sockets/server";
   *
   * const tls: TlsOptions = { cert: "/etc/ssl/db.pem", key: "/etc/ssl/db.key" };
   *
   * class Database extends StreamRequestHandler {
   *   override async handle(): Promise<void> {
   *     const sslRequest = await this.rfile.readExactly(36);
   *     if ((sslRequest[5]! & 0x08) !== 0) await this.request.startTls(tls, { readAhead: "handshake" });
   *   }
   * }
   * ```
   */
  startTls(options: TlsOptions | TlsConnectOptions, how: StartTlsOptions = {}): Promise<void> {
    return handled(this.#startTls(options, how));
  }

  async #startTls(options: TlsOptions | TlsConnectOptions, how: StartTlsOptions): Promise<void> {
    const raw = this.#raw;
    if (raw.tls !== null) throw new TypeError("startTls(): the connection has TLS already");
    if (raw.reading || this.#unclaimed !== null) throw alreadyReading();
    const isHandshake = readAheadIsHandshake(how, this.#hostname === undefined);
    if (isHandshake && this.#readersAhead() > 1) {
      throw new TypeError("startTls(): several readers have read ahead, and what came first is not known");
    }
    const { bytesRead, bytesWritten } = raw;
    const readAhead = this.#readAhead();
    // Until the handshake is done nothing of the program's gets through, neither in the clear nor in its midst.
    const handshaking = new HandshakingConnection(raw);
    this.#use(handshaking);
    const start = await startTls(options, this.#hostname).catch((error) => {
      this.#use(raw);
      throw error;
    });
    let begun: Uint8Array | null = null;
    let accepted = readAhead === 0;
    try {
      if (isHandshake) {
        begun = this.#takeReadAhead();
        accepted = beginsHandshake(begun);
      }
      if (!accepted) {
        const detail = `${readAhead} bytes were received in the clear after the request for TLS`;
        const address = raw.remoteAddress;
        throw new SocketError(
          "EPROTO",
          { syscall: "handshake", address },
          isHandshake ? `${detail}, and begin no handshake` : detail,
        );
      }
      // What it is lost of is what the handshake fails of.
      raw.onclose = null;
      this.#use(await start(raw, begun));
    } catch (error) {
      handshaking.error = error as SocketError;
      if (!this.#ended) this.#end(handshaking.error);
      raw.onclose = null;
      if (!accepted) raw.abort();
      throw error;
    }
    this.#clearRead = bytesRead;
    this.#clearWritten = bytesWritten;
    this.#watch?.upgraded(this.#raw);
    this.#raw.onclose = (error) => this.#end(error);
    if (this.#closed !== null || this.#controller !== null) this.#raw.watch();
  }

  /**
   * A {@linkcode StreamReader} tells that it has kept bytes for later, so that {@linkcode Connection.startTls} knows what was read ahead.
   * A reader that has none need not be kept.
   *
   * @param reader The reader.
   */
  attachReader(reader: BufferedReader): void {
    const last = this.#reader;
    if (last === reader) return;
    this.#reader = reader;
    if (last === null) return;
    const others = this.#otherReaders ??= new Set();
    others.add(last).delete(reader);
    for (const other of others) if (other.buffered === 0) others.delete(other);
  }

  /**
   * Sends small writes at once instead of gathering them (TCP_NODELAY; Nagle's algorithm is RFC 896).
   *
   * @param on `true` by default.
   */
  setNoDelay(on = true): void {
    if (!this.#ended) this.#raw.setNoDelay(on);
  }

  /**
   * Probes the peer while the connection is idle (SO_KEEPALIVE), so that one that vanished is noticed.
   *
   * @param on `true` by default, with the system's idle time before the first probe; a number sets it, in milliseconds.
   * @throws {UnsupportedError} When a number is given and the runtime can't set it.
   */
  setKeepAlive(on: boolean | number = true): void {
    if (!this.#ended) this.#raw.setKeepAlive(on);
  }

  /**
   * Leaves the process free to exit while the connection is open, whatever waits for it and whatever its `timeout`; else an open connection
   * keeps the process running. `ref()` takes it back.
   */
  unref(): void {
    this.#keepAlive(false);
  }

  /** Keeps the process running while the connection is open, as it does from the beginning. */
  ref(): void {
    this.#keepAlive(true);
  }

  /**
   * The receiving side as a web stream, made on first use. Costs throughput; `read` and iteration are the fast way. Each chunk has a buffer
   * of its own, as many libraries expect: its `byteOffset` is 0 and its `buffer` as long as it is.
   *
   * Cancelling it ends the receiving side alone: what the peer still sends is received and dropped, so that it isn't kept waiting, and every
   * read is rejected with `ECONNABORTED`; writing goes on. With the sending side ended too, the connection is closed once the peer has ended
   * its own, or a second later. Closing the connection ends the stream in order.
   */
  get readable(): ReadableStream<Uint8Array> {
    return this.#readable ??= readableOf({
      read: () => this.read(),
      cancel: () => this.#discard(),
      closing: () => this.#closing,
    });
  }

  /**
   * The sending side as a web stream, made on first use. Closing it is `closeWrite()`, aborting it `abort()`.
   *
   * Closing the connection lets what was written to the stream leave before, also by way of `Writable.fromWeb()` of `node:stream`, for up to
   * 10 seconds; what is written to it later is dropped.
   */
  get writable(): WritableStream<Uint8Array> {
    this.#writable ??= new WritableOf({
      write: (chunk) => this.write(chunk),
      closeWrite: () => this.closeWrite(),
      abort: () => this.abort(),
      closing: () => this.#closing,
    });
    return this.#writable.stream;
  }

  /** Reads chunk by chunk until the peer ends its side. Leaving the loop early leaves the connection open. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array> {
    return new Chunks(this);
  }

  /** The same as {@linkcode Connection.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #close(): Promise<void> {
    this.#closing = true;
    this.#raw.close();
    if (this.#ended) return CLOSED;
    if (this.#timeout !== 0) this.#closesAfter(this.#timeout, () => this.abort());
    return this.#whenClosed();
  }

  async #linger(ms: number): Promise<void> {
    const late = this.#newDeadline(true);
    if (ms !== Infinity) late.start(ms, () => this.#raw.close());
    try {
      await this.closeWrite();
      await (this.#discarded ?? this.forEach(ignore));
    } catch {
      // The peer is gone, its time was up, or somebody else reads.
    }
    late.clear();
    await this.#close();
  }

  /** Closes once the stream has handed on what was written to it. */
  async #closeBehind(writable: WritableOf, linger: number): Promise<void> {
    await writable.flushed(STREAM_GRACE_MS, () => this.#ended);
    if (!this.#ended) await (linger === 0 ? this.#close() : this.#linger(linger));
  }

  /** The end of the receiving side by `readable.cancel()`. */
  #discard(): void {
    if (this.#discarded !== null || this.#ended) return;
    const address = this.remoteAddress;
    const error = new SocketError(
      "ECONNABORTED",
      { syscall: "read", address },
      "the receiving side was ended by readable.cancel()",
    );
    this.#discarded = this.#pull.discard(error);
    this.#rest = null;
    this.#unclaimed = rejected(error);
    if (this.#sendEnded) this.#closeUnread();
  }

  /** Both sides were ended here: the peer has a moment to end its own, and is not to send for ever. */
  #closeUnread(): void {
    if (!this.#ended) this.#closesAfter(CANCEL_LINGER_MS, () => void this.#close());
  }

  #closesAfter(ms: number, close: () => void): void {
    (this.#closes ??= this.#newDeadline(true)).start(ms, close);
  }

  #newDeadline(steps = false): Deadline {
    const deadline = new Deadline(steps, (callback) => afterArrivals(this.#raw, callback));
    if (this.#unreferenced) deadline.keepAlive(false);
    return deadline;
  }

  #keepAlive(on: boolean): void {
    if (this.#ended) return;
    if (on) this.#raw.ref();
    else this.#raw.unref();
    this.#unreferenced = !on;
    for (const deadline of [this.#reads, this.#closes, ...this.#writes ?? []]) deadline?.keepAlive(on);
  }

  /** Bytes that were received and read from the connection, and that the program has not had yet. */
  #readAhead(): number {
    let bytes = (this.#rest?.length ?? 0) + (this.#reader?.buffered ?? 0);
    for (const { buffered } of this.#otherReaders ?? []) bytes += buffered;
    return bytes;
  }

  /** The number of readers that hold bytes. */
  #readersAhead(): number {
    let readers = (this.#reader?.buffered ?? 0) > 0 ? 1 : 0;
    for (const { buffered } of this.#otherReaders ?? []) if (buffered > 0) readers++;
    return readers;
  }

  /** Takes the bytes that `#readAhead()` counts; at most one reader may hold any. */
  #takeReadAhead(): Uint8Array {
    const chunks: Uint8Array[] = [];
    for (const reader of [this.#reader, ...this.#otherReaders ?? []]) {
      if (reader !== null && reader.buffered > 0) chunks.push(reader.takeBuffered());
    }
    // The leftover of a readInto() is newer than a reader's bytes: a reader takes the leftover before it receives more.
    if (this.#rest !== null) chunks.push(this.#rest);
    this.#rest = null;
    return concat(chunks);
  }

  #use(raw: RawConnection): void {
    this.#raw = raw;
    this.#pull = new Pull(raw);
  }

  /** Whether a read has nothing to do but to wait for the next chunk, for as long as that takes. */
  get #direct(): boolean {
    return this.#timeout === 0 && this.#unclaimed === null && this.#rest === null;
  }

  #putInto(buffer: Uint8Array, chunk: Uint8Array): number {
    const size = Math.min(buffer.length, chunk.length);
    if (chunk.buffer === buffer.buffer && chunk.byteOffset === buffer.byteOffset) return size;
    if (size < chunk.length) this.#rest = chunk.subarray(size);
    buffer.set(size < chunk.length ? chunk.subarray(0, size) : chunk);
    return size;
  }

  /** What `as` makes of the next chunk, at once when it is there: what `as` leaves of it must be there for the next read. */
  #timedRead<T>(as: (chunk: Uint8Array | null) => T): Promise<T> {
    if (this.#reading) return rejected(alreadyReading());
    const rest = this.#rest;
    if (rest !== null) {
      this.#rest = null;
      return Promise.resolve(as(rest));
    }
    this.#reading = true;
    const read = this.#unclaimed ??= this.#pull.read();
    const over = (): void => {
      this.#reading = false;
      // Cancelled, all reads end like this one.
      if (this.#discarded === null) this.#unclaimed = null;
    };
    return this.#within(this.#timeout === 0 ? null : this.#reads ??= this.#newDeadline(), "read", read, (chunk) => {
      over();
      return as(chunk);
    }, (timedOut) => {
      if (timedOut) this.#reading = false;
      else over();
    });
  }

  /**
   * What `as` makes of the operation's result, unless the deadline comes before; without a deadline there is none. The promise's rejection
   * counts as handled.
   *
   * @param failed Is told of a failure, and whether it was the deadline.
   */
  #within<T, U>(
    deadline: Deadline | null,
    syscall: string,
    operation: Promise<T>,
    as: (value: T) => U = (value) => value as unknown as U,
    failed: (timedOut: boolean) => void = ignore,
  ): Promise<U> {
    const { promise, resolve, reject } = Promise.withResolvers<U>();
    let expired = false;
    const fail = (error: unknown): void => {
      failed(expired);
      // Only now, so that an operation that succeeds doesn't pay for it.
      promise.catch(ignore);
      reject(error);
    };
    const done = (): void => {
      if (deadline === null) return;
      // The deadline of reads keeps its timer for the next one, if there can be one.
      if (deadline === this.#reads && !this.#ended) return deadline.stop();
      deadline.clear();
      this.#writes?.delete(deadline);
    };
    deadline?.start(this.#timeout, () => {
      expired = true;
      this.#writes?.delete(deadline);
      fail(new SocketError("ETIMEDOUT", { syscall, address: this.remoteAddress }));
    });
    operation.then((value) => {
      if (expired) return;
      done();
      try {
        resolve(as(value));
      } catch (error) {
        reject(error);
      }
    }, (error) => {
      if (expired) return;
      done();
      fail(error);
    });
    return promise;
  }

  #whenClosed(): Promise<void> {
    if (this.#ended) return CLOSED;
    return (this.#closed ??= Promise.withResolvers<void>()).promise;
  }

  #note(reason: EndReason): void {
    const noted = this.#endReason;
    if (noted !== null && (!inOrder(noted) || inOrder(reason))) return;
    if (this.#error !== null) this.#endReason = "reset";
    else this.#endReason = reason === "handler done" && this.#raw.readEnded ? "peer closed" : reason;
  }

  #end(error: SocketError | null): void {
    this.#ended = true;
    this.#error = error;
    this.#watch?.ended();
    this.#reads?.clear();
    this.#closes?.clear();
    this.#closed?.resolve();
    this.#controller?.abort(this.#reason());
  }

  #reason(): SocketError {
    if (this.#error !== null) return this.#error;
    const detail = endedHere(this) ? `closed on this side: ${this.#endReason}` : undefined;
    return new SocketError("ECONNABORTED", { address: this.remoteAddress }, detail);
  }
}

/** The chunks of a connection, for `for await`. A class, as closures of each connection's own would cost its memory. */
class Chunks implements AsyncIterableIterator<Uint8Array> {
  #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    return nextChunk(this.#connection);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** What a second `read` gets while the first is waiting, here and in the adapters. */
export function alreadyReading(): TypeError {
  return new TypeError("a read is waiting on this connection already; await it before the next");
}

import { type Address, inetAddress, unnamedPeer } from "../src/address.ts";
import { alreadyReading } from "../src/connection.ts";
import { SocketError } from "../src/errors.ts";
import type { Capabilities, ConnectOptions, Listener, ListenOptions, RawConnection, Receiver, Runtime } from "../src/runtime.ts";
import { childCommand } from "./deno/child_command.ts";
import { bindDatagram, listenDatagram } from "./deno/datagram.ts";
import { setCloseOnExec } from "./deno/close_on_exec.ts";
import { explain } from "./deno/errors.ts";
import { prepareForShortage } from "./deno/shortage.ts";
import { ArrivalQueue } from "../src/arrival_queue.ts";
import { node } from "./node.ts";
import { ignore, rejected } from "../src/promises.ts";
import { probeByConnecting } from "./shared/probes.ts";
import { bindPath, type SocketFile } from "./shared/socket_file.ts";
import { isRefused } from "./shared/permissions.ts";
import { afterPileUp, isPiledUp } from "../src/pile_up.ts";
import { SendQueue } from "../src/send_queue.ts";
import { localOf, resolveHost } from "./shared/translate.ts";
import { spawnProcess } from "./shared/processes.ts";
import { output } from "./shared/output.ts";
import { system, turn } from "./shared/system.ts";
import { systemCapabilities } from "./shared/system_capabilities.ts";
import { channel } from "./shared/channels.ts";
import { spawnThread } from "./shared/threads.ts";

/** The part of Deno's API that is used here, so that the types of Deno are not needed to compile this. */
interface DenoApi {
  permissions: {
    querySync(
      permission: { name: "env"; variable: string } | { name: "net"; host: string } | { name: "ffi" },
    ): { state: string };
  };
  listen(
    options: { hostname: string; port: number; tcpBacklog: number; reusePort?: boolean } | { transport: "unix"; path: string },
  ): DenoListener;
  connect(
    options: { hostname: string; port: number; signal: AbortSignal } | { transport: "unix"; path: string },
  ): Promise<DenoConn>;
  stderr: { write(bytes: Uint8Array): Promise<number> };
}

type DenoAddr =
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number }
  | { readonly transport: "unix"; readonly path: string | null };

interface DenoListener {
  readonly addr: DenoAddr;
  accept(): Promise<DenoConn>;
  close(): void;
  unref(): void;
  ref(): void;
}

interface DenoConn {
  readonly localAddr: DenoAddr;
  readonly remoteAddr: DenoAddr;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
  unref(): void;
  ref(): void;
  /** Unix sockets don't have these. */
  setNoDelay?(on: boolean): void;
  setKeepAlive?(on: boolean): void;
}

const Deno = (globalThis as { Deno?: DenoApi }).Deno!;

/** Whether this program runs on Deno. */
export const isDeno = Deno !== undefined;

let capabilities: Capabilities | undefined;

/** Deno's sockets: `Deno.listen` and `Deno.connect`. */
export const deno: Runtime = {
  name: "deno",
  get capabilities() {
    return capabilities ??= {
      ...systemCapabilities(),
      reset: false,
      reusePort: listenDatagram !== undefined || "start it with --unstable-net",
      reusePortUdp: "Deno sets SO_REUSEADDR alone on a UDP socket, and the last one bound gets all datagrams",
      ipv6Only: "Deno.listen has no such option; listen on an IPv4 and an IPv6 address of your own instead of ::",
      get bufferSizes() {
        if (listenDatagram === undefined) return "start it with --unstable-net --allow-ffi";
        return Deno.permissions.querySync({ name: "ffi" }).state === "granted" ||
          "Deno's sockets can't set them, the C library can: start it with --allow-ffi";
      },
      get unixDatagram() {
        return isGranted({ name: "ffi" }) || "start it with --allow-ffi";
      },
      tls: true,
      tlsKeyKinds: true,
      tlsTruncation: true,
      keepAliveDelay: "Deno.TcpConn.setKeepAlive takes no delay; use true and the system's net.ipv4.tcp_keepalive_time",
    };
  },

  async listen(options: ListenOptions): Promise<Listener> {
    prepareForShortage();
    // Deno's own sockets take no descriptor.
    if (options.fd !== null) return node.listen(options);
    const { address, requestQueueSize, noDelay, keepAlive } = options;
    const queue = new ArrivalQueue<RawConnection>(requestQueueSize, (connection) => connection.abort());
    let listener: DenoListener;
    let file: SocketFile | null = null;
    try {
      if ("path" in address) {
        ({ bound: listener, file } = await bindPath(options, {
          syscall: "listen",
          probe: probeStream,
          unlinks: true,
          // It may be limited to the server's path, as in `--allow-net=unix:/run/x.sock`; at a terminal Deno would ask for another.
          mayBind: (path) => isGranted({ name: "net", host: `unix:${path}` }),
          bind: (path) => Deno.listen({ transport: "unix", path }),
          unbind: (listener) => listener.close(),
        }));
      } else {
        const hostname = await resolveHost(address, options.addressFamily);
        const { allowReusePort: reusePort } = options;
        listener = Deno.listen({ hostname, port: address.port, tcpBacklog: requestQueueSize, reusePort });
      }
    } catch (cause) {
      throw explain(cause, "listen", address);
    }
    const local = "path" in address ? address : toAddress(listener.addr);
    const shared = localOf(local);
    const peer = "path" in address ? unnamedPeer(address) : null;
    let accepting: Promise<void> | null = null;
    let closed = false;
    let failed = false;
    // Only while somebody waits: the others stay in the kernel's queue.
    const accept = async (): Promise<void> => {
      try {
        const conn = await listener.accept();
        const connection = new DenoConnection(conn, shared, isNamed(conn.remoteAddr) ? null : peer);
        if (noDelay) connection.setNoDelay(true);
        if (keepAlive !== false) connection.setKeepAlive(keepAlive);
        accepting = null;
        failed = false;
        queue.offer(connection);
        if (queue.waiting && !closed) accepting = accept();
      } catch (cause) {
        accepting = null;
        failed = true;
        if (!closed) queue.fail(explain(cause, "accept", local));
      }
    };
    const end = async (): Promise<void> => {
      closed = true;
      const close = async () => {
        listener.close();
        // An accept under way holds the address for a moment longer, and may have taken one.
        await accepting;
      };
      await (file === null ? close() : file.close(close));
    };
    let ended: Promise<void> | null = null;
    return {
      address: local,
      refused: 0,
      get queued() {
        return queue.length;
      },
      accept(as) {
        const connection = queue.take(as);
        if (connection instanceof Promise && accepting === null && !closed) accepting = accept();
        return connection;
      },
      interrupt: () => queue.interrupt(),
      async stop() {
        // Those in the kernel's queue would be reset. An accept() that finds one there takes less than a turn of the event loop.
        while (!closed && !failed) {
          accepting ??= accept();
          await Promise.race([accepting, turn()]);
          if (accepting !== null) break;
        }
        await (ended ??= end());
      },
      async close() {
        ended ??= end();
        queue.close();
        await ended;
      },
      unref: () => listener.unref(),
      ref: () => listener.ref(),
    };
  },

  async connect({ address, noDelay, signal }: ConnectOptions): Promise<RawConnection> {
    try {
      // A Unix socket is connected at once or not at all.
      const conn = await Deno.connect(
        "path" in address
          ? { transport: "unix", path: address.path }
          : { hostname: address.hostname, port: address.port, signal },
      );
      // The socket would tell the path that a server has bound beside its own.
      const connection = new DenoConnection(conn, null, "path" in address ? address : null);
      if (noDelay) connection.setNoDelay(true);
      return connection;
    } catch (cause) {
      throw explain(cause, "connect", address);
    }
  },

  async tls(settings) {
    const { nodeTls } = await import("./shared/tls.ts");
    return await nodeTls(settings);
  },
  bind(options) {
    prepareForShortage();
    return bindDatagram(options);
  },
  ...system,
  ...output,
  monotonicMicroseconds: async () => (await import("./deno/unix_datagram.ts")).monotonicMicroseconds(),
  // A write of Node's `process` waits in the event loop's thread until the reader takes it.
  print: (text) => writeAll(encoder.encode(text)).catch(ignore),
  // Without the permission Deno would ask for it at a terminal, and throw elsewhere.
  environment(variable) {
    if (isGranted({ name: "env", variable })) return system.environment(variable);
  },
  setCloseOnExec,
  spawnThread,
  spawnProcess(options) {
    try {
      return spawnProcess(options, childCommand);
    } catch (cause) {
      if (!isRefused(cause)) throw cause;
      throw new SocketError("EACCES", { syscall: "spawn", cause }, "not permitted: start Deno with --allow-env --allow-run=deno");
    }
  },
  // setImmediate() costs more here than it saves.
  afterEvents: queueMicrotask,
  // Immediates come without a poll between them. A timer is due only after one, and after a second one what that has begun is there too.
  afterPoll: (callback) => void setTimeout(setTimeout, 0, callback, 0),
  channel,
};

const encoder = new TextEncoder();

async function writeAll(bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await Deno.stderr.write(bytes.subarray(written));
}

function isGranted(permission: Parameters<DenoApi["permissions"]["querySync"]>[0]): boolean {
  return Deno.permissions.querySync(permission).state === "granted";
}

/** Finds out whether somebody listens: unnoticed with foreign functions, else by connecting, as Deno's own sockets can do nothing else. */
async function probeStream(path: string): Promise<string | null> {
  if (!isGranted({ name: "ffi" })) return await probeByConnecting(path);
  const { probe } = await import("./deno/unix_datagram.ts");
  return await probe(path);
}

/** Whether a peer has an address; those of Unix sockets mostly have bound none. */
function isNamed(addr: DenoAddr): boolean {
  return addr.transport !== "unix" || (addr.path !== null && addr.path !== "");
}

function toAddress(addr: DenoAddr): Address {
  if (addr.transport === "unix") return { transport: "unix", path: addr.path ?? "" };
  return inetAddress("tcp", addr.hostname, addr.port);
}

/** The size of a read buffer grows and shrinks between these with what arrives: an idle connection should cost little memory. */
const SMALLEST = 1024;
const LARGEST = 65_536;
/** With less than this left in a buffer that chunks share, or less than the last one took, the next gets a new buffer. */
const LEAST = 256;

class DenoConnection implements RawConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  onclose: ((error: SocketError | null) => void) | null = null;
  bytesRead = 0;
  bytesWritten = 0;
  unsent = 0;
  #conn: DenoConn;
  #size = SMALLEST;
  /** What is read into; the chunks that came before are at its beginning, and their receivers'. */
  #buffer: Uint8Array | null = null;
  #filled = 0;
  /** What is read into instead, when its reader has brought it. */
  #into: Uint8Array | null = null;
  #reading = false;
  // Made once: no closure for each read and each write.
  #arrived = (size: number | null): void => this.#received(size);
  #lost = (cause: unknown): void => this.#readFailed(cause);
  #wrote = (size: number): void | Promise<void> => this.#written(size);
  #notWritten = (cause: unknown): never => this.#writeFailed(cause);
  /** Who waits for a chunk. */
  #receiver: Receiver | null = null;
  #readEnded = false;
  #watching = false;
  /** A chunk that was read only to notice the peer's end, or bytes that come first. */
  #ahead: Uint8Array | null = null;
  /** What is being written. Deno takes one write at a time, and each is an operation of its own. */
  #out: Uint8Array | null = null;
  #lastWrite: Promise<void> | null = null;
  /** Writes that wait for the one under way; `null` until there are any. */
  #queue: SendQueue | null = null;
  /** Whether what is being written is the head of the queue. */
  #isQueued = false;
  #sendEnded = false;
  /** The end of the sending side and of the connection, which wait until all has been written. */
  #after: (() => void)[] | null = null;
  #closing = false;
  #gone = false;
  #error: SocketError | null = null;

  /** `local` is the address of this side, and `remote` that of the other; `null` to ask the socket. */
  constructor(conn: DenoConn, local: Address | null, remote: Address | null = null) {
    this.#conn = conn;
    this.localAddress = local ?? toAddress(conn.localAddr);
    this.remoteAddress = remote ?? toAddress(conn.remoteAddr);
  }

  get tls(): null {
    return null;
  }

  get reading(): boolean {
    return this.#receiver !== null;
  }

  get readEnded(): boolean {
    return this.#readEnded;
  }

  receive(receiver: Receiver, into: Uint8Array | null = null): Uint8Array | null | undefined {
    const chunk = this.#ahead;
    if (chunk !== null && !this.#closing) {
      this.#ahead = null;
      if (this.#watching) this.#readAhead();
      return chunk;
    }
    if (this.#closing || this.#error !== null) throw this.#closeError("read");
    if (this.#readEnded) return null;
    if (this.#gone) throw this.#closeError("read");
    if (this.#receiver !== null) throw alreadyReading();
    this.#receiver = receiver;
    if (!this.#reading) this.#read(into);
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.#closing || this.#gone || this.#sendEnded) return rejected(this.#closeError("write"));
    if (bytes.length === 0) return;
    this.unsent += bytes.length;
    if (this.#out === null) return this.#lastWrite = this.#write(bytes);
    return (this.#queue ??= new SendQueue()).push(bytes);
  }

  closeWrite(): void | Promise<void> {
    if (this.#endedInOrder) return;
    if (this.#closing || this.#gone) return rejected(this.#closeError("shutdown"));
    if (this.#sendEnded) return;
    this.#sendEnded = true;
    return this.#out !== null ? this.#afterWrites(() => this.#endSend()) : this.#endSend();
  }

  close(): void {
    if (this.#closing || this.#gone) return;
    this.#closing = true;
    if (this.#out !== null) this.#afterWrites(() => Promise.resolve(this.#release(null)));
    else this.#release(null);
  }

  abort(): void {
    this.#closing = true;
    this.#release(null);
  }

  beginWith(bytes: Uint8Array): void {
    this.bytesRead = bytes.length;
    if (bytes.length > 0) this.#ahead = bytes;
  }

  watch(): void {
    this.#watching = true;
    this.#readAhead();
  }

  setNoDelay(on: boolean): void {
    this.#set(() => this.#conn.setNoDelay?.(on));
  }

  setKeepAlive(on: boolean | number): void {
    this.#set(() => this.#conn.setKeepAlive?.(on !== false));
  }

  unref(): void {
    this.#conn.unref();
  }

  ref(): void {
    this.#conn.ref();
  }

  #read(into: Uint8Array | null): void {
    this.#reading = true;
    this.#into = into;
    if (isPiledUp) this.#readAfterPileUp();
    else this.#conn.read(into ?? this.#free()).then(this.#arrived, this.#lost);
  }

  /** By itself, as a closure in `#read()` would cost each read an allocation, made or not. */
  #readAfterPileUp(): void {
    afterPileUp(() => void this.#conn.read(this.#into ?? this.#free()).then(this.#arrived, this.#lost));
  }

  /** What is free of the buffer. */
  #free(): Uint8Array {
    const buffer = this.#buffer ??= new Uint8Array(this.#size);
    return this.#filled === 0 ? buffer : buffer.subarray(this.#filled);
  }

  #received(size: number | null): void {
    this.#reading = false;
    const into = this.#into;
    this.#into = null;
    if (this.#closing) return this.#tell(this.#closeError("read"));
    if (size === null) {
      this.#readEnded = true;
      this.#buffer = null;
      if (this.#sendEnded && this.#out === null) this.#release(null);
      return this.#tell(null);
    }
    this.bytesRead += size;
    this.#tell(into === null ? this.#cut(this.#buffer!, size) : into.subarray(0, size));
    if (this.#watching) this.#readAhead();
  }

  #readFailed(cause: unknown): void {
    this.#reading = false;
    this.#tell(this.#fail(cause, "read"));
  }

  #tell(result: Uint8Array | null | SocketError): void {
    const receiver = this.#receiver;
    this.#receiver = null;
    if (receiver === null) {
      if (result instanceof Uint8Array) this.#ahead = result;
    } else if (result instanceof SocketError) receiver.failed(result);
    else receiver.received(result);
  }

  /**
   * Takes the chunk out of the buffer and chooses the next buffer's size. Chunks share a buffer, as memory of its own costs each more
   * than the rest of reading it. One that is less than an eighth of a large buffer is copied, so that whoever keeps it doesn't keep the
   * buffer.
   */
  #cut(buffer: Uint8Array, size: number): Uint8Array {
    const start = this.#filled;
    const end = start + size;
    const isShared = buffer.length === SMALLEST || size * 8 >= buffer.length;
    if (start === 0 && end === buffer.length) this.#size = Math.min(LARGEST, size * 4);
    else if (!isShared) this.#size = buffer.length / 2;
    const serves = isShared && buffer.length - end >= Math.max(LEAST, size);
    if (!serves) this.#buffer = null;
    this.#filled = serves ? end : 0;
    return isShared ? buffer.subarray(start, end) : buffer.slice(start, end);
  }

  #readAhead(): void {
    if (this.#ahead === null && !this.#reading && !this.#readEnded && !this.#closing && !this.#gone) this.#read(null);
  }

  #write(bytes: Uint8Array): Promise<void> {
    this.#out = bytes;
    return this.#conn.write(bytes).then(this.#wrote, this.#notWritten);
  }

  #written(size: number): void | Promise<void> {
    this.bytesWritten += size;
    this.unsent -= size;
    if (this.#isQueued) this.#queue!.took(size);
    const out = this.#out!;
    if (size < out.length) return this.#gone ? this.#writeFailed(null) : this.#write(out.subarray(size));
    this.#out = null;
    this.#lastWrite = null;
    if (this.#queue !== null) this.#writeQueued(this.#queue);
    if (this.#out === null && this.#after !== null) this.#next();
  }

  #writeQueued(queue: SendQueue): void {
    this.#isQueued = !queue.empty;
    if (this.#isQueued) this.#lastWrite = this.#write(queue.head());
  }

  #writeFailed(cause: unknown): never {
    this.#out = null;
    // Only now, so that a write that succeeds doesn't pay for it. There is one at a time, so it is this one.
    this.#lastWrite?.catch(ignore);
    const error = this.#fail(cause, "write");
    this.#queue?.fail(error);
    if (this.#after !== null) this.#next();
    throw error;
  }

  /** Whether both sides have ended in order: ending this one again is no error, as with shutdown(2). */
  get #endedInOrder(): boolean {
    return this.#gone && !this.#closing && this.#error === null;
  }

  async #endSend(): Promise<void> {
    if (this.#endedInOrder) return;
    if (this.#gone) throw this.#closeError("shutdown");
    try {
      await this.#conn.closeWrite();
    } catch (cause) {
      // The peer's end came meanwhile and the whole connection was closed, the sending side with it.
      if (this.#endedInOrder) return;
      throw this.#fail(cause, "shutdown");
    }
    if (this.#readEnded) this.#release(null);
    else this.#next();
  }

  #afterWrites(action: () => Promise<void>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    (this.#after ??= []).push(() => action().then(resolve, reject));
    promise.catch(ignore);
    return promise;
  }

  #next(): void {
    const action = this.#after?.shift();
    if (this.#after?.length === 0) this.#after = null;
    action?.();
  }

  #set(option: () => void): void {
    try {
      option();
    } catch (cause) {
      this.#fail(cause, "setsockopt");
    }
  }

  #fail(cause: unknown, syscall: string): SocketError {
    if (this.#closing || this.#gone) return this.#closeError(syscall);
    const error = explain(cause, syscall, this.remoteAddress);
    this.#release(error);
    return error;
  }

  #release(error: SocketError | null): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#error = error;
    // What a read under way brings all the same is still its receiver's.
    if (!this.#reading) this.#buffer = null;
    this.#conn.close();
    this.#queue?.fail(this.#closeError("write"));
    while (this.#after !== null) this.#next();
    this.onclose?.(error);
  }

  #closeError(syscall: string): SocketError {
    if (this.#error !== null) return this.#error;
    const code = this.#sendEnded && syscall === "write" && !this.#closing && !this.#gone ? "EPIPE" : "ECONNABORTED";
    return new SocketError(code, { syscall, address: this.remoteAddress });
  }
}

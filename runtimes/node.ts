import type * as net from "node:net";
import { type Address, inetAddress, unnamedPeer } from "../src/address.ts";
import { SocketError } from "../src/errors.ts";
import type { Capabilities, ConnectOptions, Listener, ListenOptions, RawConnection, Runtime } from "../src/runtime.ts";
import { bindDatagram, unixDatagramSupport } from "./node/datagram.ts";
import { ArrivalQueue } from "../src/arrival_queue.ts";
import { channel } from "./shared/channels.ts";
import { EventedConnection } from "../src/evented_connection.ts";
import { toBytes } from "../src/bytes.ts";
import { handled, ignore, rejected } from "../src/promises.ts";
import { probeUnnoticed } from "./shared/probes.ts";
import { bindPath, type SocketFile } from "./shared/socket_file.ts";
import { SendQueue } from "../src/send_queue.ts";
import { localOf, resolveHost, toSocketError, wrongSocket } from "./shared/translate.ts";
import { inheritedOptions } from "./shared/inherited_options.ts";
import { spawnProcess } from "./shared/processes.ts";
import { output } from "./shared/output.ts";
import { system, turn } from "./shared/system.ts";
import { systemCapabilities } from "./shared/system_capabilities.ts";
import { spawnThread } from "./shared/threads.ts";

let capabilities: Capabilities | undefined;

/** Node's sockets: `node:net`. */
export const node: Runtime = {
  name: "node",
  get capabilities() {
    return capabilities ??= {
      ...systemCapabilities(),
      reset: true,
      reusePort: true,
      reusePortUdp: true,
      ipv6Only: true,
      keepAliveDelay: true,
      bufferSizes: true,
      unixDatagram: unixDatagramSupport(),
      tls: true,
      tlsKeyKinds: process.versions.node.startsWith("22.")
        ? "Node 22 goes on showing the certificate of tls.cert when its key is of another kind; use keys of one kind, or a newer Node"
        : true,
      tlsTruncation: true,
    };
  },

  async listen(options: ListenOptions): Promise<Listener> {
    const { address, fd, requestQueueSize, allowReusePort: reusePort, ipv6Only, noDelay, keepAlive } = options;
    const server = process.getBuiltinModule("node:net").createServer({
      allowHalfOpen: true,
      noDelay,
      keepAlive: keepAlive !== false,
      keepAliveInitialDelay: typeof keepAlive === "number" ? keepAlive : 0,
    });
    const queue = new ArrivalQueue<RawConnection>(requestQueueSize, (connection) => connection.abort());
    let local: Address = address;
    // Node doesn't tell the name of one that has bound one.
    const peer = "path" in address ? unnamedPeer(address) : null;
    server.on("connection", (socket) => {
      const connection = accepted(socket, localOf(local), peer);
      if (!queue.offer(connection)) connection.hold();
    });
    const listen = (where: net.ListenOptions) =>
      new Promise<void>((resolve, reject) => {
        server.once("listening", resolve);
        server.once("error", (cause) => reject(toSocketError(cause, "listen", address)));
        server.listen(where);
      });
    let file: SocketFile | null = null;
    // Node empties the kernel's queue into ours, which does the bounding: a smaller one would only turn away bursts, and uncounted.
    const backlog = Math.max(511, requestQueueSize);
    if (fd !== null) {
      await listen({ fd, backlog } as net.ListenOptions);
    } else if ("path" in address) {
      ({ file } = await bindPath(options, {
        syscall: "listen",
        probe: probeUnnoticed,
        unlinks: true,
        // Without a cluster's primary, which would bind it, and later.
        bind: (path) => listen({ path, backlog, exclusive: true }),
        unbind: () => void server.close(),
      }));
    } else {
      const host = await resolveHost(address, options.addressFamily);
      await listen({ host, port: address.port, backlog, reusePort, ipv6Only });
    }
    const bound = server.address();
    // An inherited Unix socket is not asked for its name.
    local = bound === null || typeof bound === "string" ? address : inetAddress("tcp", bound.address, bound.port);
    if (local.transport !== address.transport || (bound === null && address.transport === "tcp")) {
      server.close();
      throw wrongSocket(fd, address);
    }
    server.removeAllListeners("error");
    const end = () => void (file === null ? server.close() : file.close(() => void server.close()));
    server.on("error", (cause) => queue.fail(toSocketError(cause, "accept", local)));
    return {
      address: local,
      get refused() {
        return queue.overflowed;
      },
      get queued() {
        return queue.length;
      },
      accept: (as) => queue.take(as),
      interrupt: () => queue.interrupt(),
      async stop() {
        await turn();
        end();
      },
      close() {
        // The address is free at once; the callback of close() would wait for the connections as well.
        end();
        queue.close();
        return Promise.resolve();
      },
      unref: () => void server.unref(),
      ref: () => void server.ref(),
    };
  },

  async tls(settings) {
    const { nodeTls } = await import("./shared/tls.ts");
    return await nodeTls(settings, node.capabilities.tlsKeyKinds);
  },
  bind: bindDatagram,
  ...system,
  ...output,
  // deno-lint-ignore require-await
  monotonicMicroseconds: async () => Number(process.hrtime.bigint() / 1000n),
  spawnThread,
  spawnProcess: (options) =>
    spawnProcess(options, (module) => ({ args: [...inheritedOptions(), "--input-type=module", "--eval", module] })),
  // Not setImmediate(): Node 22 has been seen to lose the wake-ups that are given there.
  afterEvents: (callback) => callback(),
  // Immediates come right behind the poll of each turn.
  afterPoll: (callback) => void setImmediate(callback),
  channel,

  connect({ address, noDelay, signal }: ConnectOptions): Promise<RawConnection> {
    return new Promise((resolve, reject) => {
      const chunks = new ChunkReader();
      const socket = process.getBuiltinModule("node:net").connect({
        ...("path" in address ? { path: address.path } : { host: address.hostname, port: address.port }),
        noDelay,
        allowHalfOpen: true,
        onread: chunks,
      });
      const failed = (cause: Error) => reject(toSocketError(cause, "connect", address));
      const giveUp = (): void => {
        socket.destroy();
        reject(signal.reason);
      };
      signal.addEventListener("abort", giveUp);
      socket.once("error", failed);
      socket.once("connect", () => {
        socket.off("error", failed);
        signal.removeEventListener("abort", giveUp);
        resolve(
          chunks.connection = "path" in address
            ? new NodeConnection(socket, UNNAMED, address)
            : new NodeConnection(socket, null, null),
        );
      });
    });
  },
};

/**
 * The connection of a socket that a server has accepted.
 *
 * `net.Server` has no `onread` option, and reading through the stream costs a tenth of the throughput. So what that option sets is set
 * afterwards. None of it is documented: where it isn't what is expected, the socket is read as it is, and only the speed is lost.
 */
function accepted(socket: net.Socket, local: Address | null, peer: Address | null): NodeConnection {
  const connection = new NodeConnection(socket, local, peer);
  if (!useBuffer(socket, new ChunkReader(connection))) {
    // A plain Uint8Array, as the other way gives.
    socket.on("data", (chunk: Uint8Array) => {
      connection.received(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length));
    });
  }
  return connection;
}

/** What `net.Socket` keeps its `onread` option as; `null` before one was looked at. */
let onread: { buffer?: symbol; callback?: symbol } | null = null;

function useBuffer(socket: net.Socket, { buffer, callback }: ChunkReader): boolean {
  const fields = socket as unknown as Record<symbol, unknown> & { _handle?: { useUserBuffer?(buffer: Uint8Array): void } | null };
  if (onread === null) {
    const symbols = Object.getOwnPropertySymbols(socket);
    const named = (name: string) => symbols.find(({ description }) => description === name);
    onread = { buffer: named("kBuffer"), callback: named("kBufferCb") };
  }
  if (onread.buffer === undefined || onread.callback === undefined || typeof fields._handle?.useUserBuffer !== "function") {
    return false;
  }
  fields[onread.buffer] = buffer;
  fields[onread.callback] = callback;
  fields._handle.useUserBuffer(buffer);
  return true;
}

/** Memory for so many bytes is not cleared before it is written to: clearing 64 KiB takes longer than all else that is done with them. */
const LARGE = 8192;

function allocate(size: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
}

function copyInto(into: Uint8Array, buffer: Uint8Array, size: number): Uint8Array {
  into.set(size === buffer.length ? buffer : buffer.subarray(0, size));
  return size === into.length ? into : into.subarray(0, size);
}

/** The `onread` option of a socket: passes on what it reads. */
class ChunkReader {
  /** One for all sockets: libuv fills it right before the callback, which copies what is there. As large as what libuv reads at once. */
  static #buffer = new Uint8Array(65_536);
  readonly buffer = ChunkReader.#buffer;
  /** Set before anything can be read. */
  connection!: NodeConnection;

  constructor(connection?: NodeConnection) {
    if (connection !== undefined) this.connection = connection;
  }
  // A closure, since looking the connection up on the socket costs about a microsecond a chunk.
  readonly callback = (size: number): boolean => {
    const into = this.connection.into(size) ?? (size < LARGE ? null : allocate(size));
    this.connection.received(into === null ? this.buffer.slice(0, size) : copyInto(into, this.buffer, size));
    return true;
  };
}

/** The end of a Unix connection that has bound no name. */
const UNNAMED: Address = { transport: "unix", path: "" };
const EMPTY = new Uint8Array(0);
/** Node encodes up to 16 KiB on its stack; a character takes three bytes at most. */
const LONGEST_TEXT = 4096;
const CONNECTION = Symbol("connection");
/** What is not documented: where it isn't what is expected, a large write shows no progress before its end. */
interface Internals {
  _handle?: { writeQueueSize?: number } | null;
  _writableState?: { writelen?: number };
}
type OwnedSocket = net.Socket & { [CONNECTION]: NodeConnection };

class NodeConnection extends EventedConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  #socket: net.Socket;
  /** Bytes that the kernel has taken, and those of which that is not known yet, `#queue` included. */
  #sent = 0;
  #pending = 0;
  /** Writes that wait for the one that the socket has; `null` until there are any. */
  #queue: SendQueue | null = null;

  /** `local` is the address of this side, and `remote` that of the other; `null` to ask the socket. */
  constructor(socket: net.Socket, local: Address | null, remote: Address | null) {
    super();
    this.#socket = socket;
    this.localAddress = local ?? inetAddress("tcp", socket.localAddress, socket.localPort);
    this.remoteAddress = remote ?? inetAddress("tcp", socket.remoteAddress, socket.remotePort);
    // The listeners are shared by all connections; a closure for each would cost more memory than the rest of this object.
    (socket as OwnedSocket)[CONNECTION] = this;
    socket.on("end", onEnd).on("error", onError).on("close", onClose);
  }

  get bytesWritten(): number {
    return this.#sent + this.#takenOfPending;
  }

  get unsent(): number {
    return this.#pending - this.#takenOfPending;
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("write"));
    if (this.sendEnded) return rejected(this.#brokenPipe());
    if (this.#pending > 0) {
      this.#pending += bytes.length;
      return (this.#queue ??= new SendQueue()).push(bytes);
    }
    this.#socket.write(bytes);
    // Zero when the kernel has taken it all. If not, an empty write behind it tells when it has.
    if (this.#socket.writableLength === 0) {
      this.#sent += bytes.length;
      return;
    }
    this.#pending = bytes.length;
    return this.#taken((callback) => this.#socket.write(EMPTY, callback), bytes.length);
  }

  writeText(text: string): void | Promise<void> {
    // Of a longer one Node would count characters, not bytes, while it waits.
    if (text.length > LONGEST_TEXT || this.#pending > 0 || this.dead || this.sendEnded) return this.write(toBytes(text));
    this.#socket.write(text);
    if (this.#socket.writableLength > 0) {
      const size = toBytes(text).length;
      this.#pending += size;
      return this.#taken((callback) => this.#socket.write(EMPTY, callback), size);
    }
    this.#sent = this.#socket.bytesWritten;
  }

  protected endSend(): void | Promise<void> {
    const end = () => this.#taken((callback) => this.#socket.end(callback));
    return this.#queue === null || this.#queue.empty ? end() : handled(this.#queue.drained().then(end));
  }

  setNoDelay(on: boolean): void {
    this.#socket.setNoDelay(on);
  }

  setKeepAlive(on: boolean | number): void {
    this.#socket.setKeepAlive(on !== false, typeof on === "number" ? on : 0);
  }

  unref(): void {
    this.#socket.unref();
  }

  ref(): void {
    this.#socket.ref();
  }

  protected finish(): void {
    if (this.#queue === null || this.#queue.empty) this.#socket.destroySoon();
    else this.#queue.drained().then(() => this.#socket.destroySoon(), ignore);
  }

  protected destroy(): void {
    const socket = this.#socket;
    // A Unix socket has no reset.
    if (this.localAddress.transport === "unix") socket.destroy();
    // While the end is being sent libuv refuses to reset, and Node would leave the socket open for good.
    else if (socket.writableEnded && !socket.writableFinished && socket.writableLength === 0) {
      socket.once("finish", () => socket.resetAndDestroy());
    } else socket.resetAndDestroy();
  }

  protected pause(): void {
    this.#socket.pause();
  }

  protected resume(): void {
    this.#socket.resume();
  }

  /** Of a write that the kernel takes piece by piece, only libuv knows how much is left, as `net.Socket` asks it for its own timeout. */
  get #takenOfPending(): number {
    if (this.#pending === 0) return 0;
    const { _handle: handle, _writableState: state } = this.#socket as unknown as Internals;
    const left = handle?.writeQueueSize;
    return left === undefined || state?.writelen === undefined ? 0 : Math.max(0, state.writelen - left);
  }

  #taken(start: (callback: (error?: Error | null) => void) => void, size = 0): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(ignore);
    start((error) => {
      if (error) return reject(this.#writeFailed(error));
      this.#sent += size;
      this.#pending -= size;
      resolve();
      this.#flush();
    });
    return promise;
  }

  /** Sends what waits, as far as the kernel takes it; the rest when it does. */
  #flush(): void {
    const queue = this.#queue;
    while (queue !== null && !queue.empty) {
      const bytes = queue.head();
      const taken = () => {
        this.#sent += bytes.length;
        this.#pending -= bytes.length;
        queue.took(bytes.length);
      };
      this.#socket.write(bytes);
      if (this.#socket.writableLength > 0) {
        this.#socket.write(EMPTY, (error) => {
          if (error) return void this.#writeFailed(error);
          taken();
          this.#flush();
        });
        return;
      }
      taken();
    }
  }

  #writeFailed(cause: Error): SocketError {
    const error = this.dead ? this.closeError("write") : toSocketError(cause, "write", this.remoteAddress, "EPIPE");
    this.#queue?.fail(error);
    return error;
  }

  #brokenPipe(): SocketError {
    return new SocketError("EPIPE", { syscall: "write", address: this.remoteAddress });
  }
}

function onEnd(this: net.Socket): void {
  (this as OwnedSocket)[CONNECTION].ended();
}

function onError(this: net.Socket, cause: Error): void {
  const connection = (this as OwnedSocket)[CONNECTION];
  connection.lost(toSocketError(cause, "read", connection.remoteAddress));
}

function onClose(this: net.Socket): void {
  (this as OwnedSocket)[CONNECTION].lost(null);
}

import { type Address, inetAddress, ipFamily, type UnixAddress, unnamedPeer } from "../src/address.ts";
import { SocketError, UnsupportedError } from "../src/errors.ts";
import type {
  Capabilities,
  ConnectOptions,
  Listener,
  ListenOptions,
  RawConnection,
  Runtime,
  TlsContext,
  TlsSettings,
} from "../src/runtime.ts";
import type { TlsInfo } from "../src/tls.ts";
import { bindDatagram } from "./bun/datagram.ts";
import {
  type BunTlsSocket,
  describeSession,
  isUnverified,
  type OnServerName,
  onServerName,
  peerRefusal,
  tlsError,
  type UpgradeOptions,
  upgradeOptions,
} from "./bun/tls.ts";
import { ArrivalQueue } from "../src/arrival_queue.ts";
import { alreadyReading } from "../src/connection.ts";
import { concat } from "../src/bytes.ts";
import { EventedConnection } from "../src/evented_connection.ts";
import { ignore, rejected } from "../src/promises.ts";
import { SendQueue } from "../src/send_queue.ts";
import { bindPath, type SocketFile } from "./shared/socket_file.ts";
import { readContexts, type SecureContexts } from "./shared/tls_context.ts";
import { localOf, lookUp, resolveHost, toSocketError, wrongSocket } from "./shared/translate.ts";
import { channel } from "./shared/channels.ts";
import { inheritedOptions } from "./shared/inherited_options.ts";
import { spawnProcess } from "./shared/processes.ts";
import { output } from "./shared/output.ts";
import { system, turn } from "./shared/system.ts";
import { systemCapabilities } from "./shared/system_capabilities.ts";
import { spawnThread } from "./shared/threads.ts";

/** The part of Bun's API that is used here, so that the types of Bun are not needed to compile this. */
interface BunApi {
  listen(
    options:
      & SocketOptions
      & ({ hostname: string; port: number; reusePort: boolean; ipv6Only: boolean } | { unix: string } | { fd: number }),
  ): BunListener;
  connect(options: SocketOptions & { unix: string }): Promise<BunSocket>;
}

interface SocketOptions {
  allowHalfOpen: boolean;
  socket: SocketCallbacks;
}

interface SocketCallbacks {
  binaryType: "uint8array";
  open(socket: BunSocket): void;
  data(socket: BunSocket, chunk: Uint8Array): void;
  end(socket: BunSocket): void;
  drain(socket: BunSocket): void;
  close(socket: BunSocket, error?: Error): void;
  error(socket: BunSocket, error: Error): void;
}

interface BunListener {
  readonly port: number;
  /** Fills `into`; not in Bun's types. */
  getsockname(into: { address?: string; port?: number }): void;
  stop(closeActiveConnections: boolean): void;
  unref(): void;
  ref(): void;
}

interface BunSocket {
  data: BunConnection;
  readonly localAddress: string | undefined;
  readonly localPort: number | undefined;
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;
  write(bytes: Uint8Array): number;
  shutdown(): void;
  end(): void;
  close(): void;
  terminate(): void;
  pause(): void;
  resume(): void;
  setNoDelay(on: boolean): boolean;
  setKeepAlive(on: boolean, delay: number): boolean;
  unref(): void;
  ref(): void;
  /** Calls back others from now on. */
  reload(options: { socket: SocketCallbacks }): void;
  /** As of a server, and with `initialData`, not in Bun's types. Gives the socket below, which sees what is encrypted, and the one on it. */
  upgradeTLS(
    options: UpgradeOptions & { socket: TlsCallbacks; initialData: Uint8Array },
  ): [below: BunSocket, above: BunSocket & BunTlsSocket];
}

interface TlsCallbacks extends SocketCallbacks {
  handshake(socket: BunSocket & BunTlsSocket, success: boolean, verifyError: Error | null): void;
  serverName?: OnServerName;
}

const Bun = (globalThis as { Bun?: BunApi }).Bun!;

/** Whether this program runs on Bun. */
export const isBun = Bun !== undefined;

let capabilities: Capabilities | undefined;

/** Bun's sockets: `Bun.listen` and `Bun.connect`. */
export const bun: Runtime = {
  name: "bun",
  get capabilities() {
    return capabilities ??= {
      ...systemCapabilities(),
      reset: true,
      reusePort: true,
      reusePortUdp: true,
      ipv6Only: true,
      keepAliveDelay: true,
      bufferSizes: true,
      unixDatagram: true,
      tls: true,
      tlsKeyKinds: true,
      tlsTruncation: "Bun reports both as the same end; a protocol that marks its own end is safe",
    };
  },

  async listen(options: ListenOptions): Promise<Listener> {
    const { address, fd, allowReusePort: reusePort, ipv6Only, noDelay, keepAlive } = options;
    const queue = new ArrivalQueue<RawConnection>(options.requestQueueSize, (connection) => connection.abort());
    let local: Address = address;
    // Bun doesn't tell the name of one that has bound one.
    const peer = "path" in address ? unnamedPeer(address) : null;
    const socketOptions: SocketOptions = {
      allowHalfOpen: true,
      socket: {
        ...callbacks,
        open(socket) {
          const connection = socket.data = new BunConnection(socket, localOf(local), peer);
          // Bun has set TCP_NODELAY by itself.
          if (!noDelay) connection.setNoDelay(false);
          if (keepAlive !== false) connection.setKeepAlive(keepAlive);
          if (!queue.offer(connection)) connection.hold();
        },
      },
    };
    let listener: BunListener;
    let file: SocketFile | null = null;
    if (fd !== null) {
      const bound: { address?: string; port?: number } = {};
      try {
        listener = Bun.listen({ ...socketOptions, fd });
        listener.getsockname(bound);
      } catch (cause) {
        throw await explain(cause, "listen", address);
      }
      if ((bound.port === undefined) !== (address.transport === "unix")) {
        listener.stop(false);
        throw wrongSocket(fd, address);
      }
      // An inherited Unix socket is not asked for its name.
      local = bound.port === undefined ? address : inetAddress("tcp", bound.address, bound.port);
    } else if ("path" in address) {
      try {
        ({ bound: listener, file } = await bindPath(options, {
          syscall: "listen",
          probe: probeStream,
          unlinks: true,
          bind: (unix) => Bun.listen({ ...socketOptions, unix }),
          unbind: (listener) => listener.stop(false),
        }));
      } catch (cause) {
        throw await explain(cause, "listen", address);
      }
    } else {
      const hostname = await resolveHost(address, options.addressFamily);
      try {
        listener = Bun.listen({ ...socketOptions, hostname, port: address.port, reusePort, ipv6Only });
      } catch (cause) {
        throw await explain(cause, "listen", address, hostname);
      }
      // `listener.hostname` would still be the name.
      const bound = { address: hostname, port: listener.port };
      listener.getsockname(bound);
      local = inetAddress("tcp", bound.address, bound.port);
    }
    const end = () => void (file === null ? listener.stop(false) : file.close(() => listener.stop(false)));
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
        end();
        queue.close();
        return Promise.resolve();
      },
      unref: () => listener.unref(),
      ref: () => listener.ref(),
    };
  },

  async connect({ address, noDelay, signal }: ConnectOptions): Promise<RawConnection> {
    const unix = "path" in address;
    try {
      // A Unix socket is connected at once or not at all.
      const connection = unix ? await connectUnix(address) : await connectTcp(address.hostname, address.port, signal);
      // Reset by the peer before it could open.
      if (connection === undefined) throw new SocketError("ECONNRESET", { syscall: "connect", address });
      if (!noDelay) connection.setNoDelay(false);
      return connection;
    } catch (cause) {
      throw await explain(cause, "connect", address, unix ? undefined : address.hostname);
    }
  },

  async tls(settings: TlsSettings): Promise<TlsContext> {
    const { tlsOverConnection } = await import("./shared/tls.ts");
    const contexts = await readContexts(settings);
    // With the peer's side, Bun ends both: of its node:tls that is all that is known.
    const overConnection = tlsOverConnection(settings, contexts, false);
    return {
      async secure(raw, begun = null) {
        if (raw instanceof BunConnection) return await raw.secure(settings, contexts, begun);
        // In a worker thread there is no socket. `node:tls` takes any connection, but Bun's has no SNI then.
        if (settings.sni.size === 0) return await overConnection.secure(raw, begun);
        raw.abort();
        throw new UnsupportedError("tls.sni can't be had on Bun in a worker: begin TLS in the server's own thread");
      },
    };
  },

  bind: bindDatagram,
  ...system,
  ...output,
  monotonicMicroseconds: async () => (await import("./bun/unix_datagram.ts")).monotonicMicroseconds(),
  spawnThread,
  spawnProcess: (options) => spawnProcess(options, (module) => ({ args: [...inheritedOptions(), "--eval", module] })),
  afterEvents: (callback) => void setImmediate(callback),
  // The first comes in the same turn, before the next poll.
  afterPoll: (callback) => void setImmediate(setImmediate, callback),
  channel,
};

/** Finds out whether somebody listens. With foreign functions: Bun's own sockets don't tell the reasons apart. */
async function probeStream(path: string): Promise<string | null> {
  const { probe } = await import("./bun/unix_datagram.ts");
  return await probe(path);
}

const encoder = new TextEncoder();

async function connectUnix(address: UnixAddress): Promise<BunConnection | undefined> {
  const socket = await Bun.connect({
    unix: address.path,
    allowHalfOpen: true,
    socket: { ...callbacks, open: (socket) => void (socket.data = new BunConnection(socket, UNNAMED, address)) },
  });
  return socket.data;
}

/**
 * Connects by way of `node:net`: nothing ends a `Bun.connect()` that gets no answer. Once connected, the socket beneath is used alone,
 * which is what `Bun.connect()` gives.
 */
function connectTcp(host: string, port: number, signal: AbortSignal): Promise<BunConnection | undefined> {
  return new Promise((resolve, reject) => {
    const socket = process.getBuiltinModule("node:net").connect({ host, port, allowHalfOpen: true });
    const giveUp = (): void => {
      socket.destroy();
      reject(signal.reason);
    };
    signal.addEventListener("abort", giveUp);
    socket.once("error", reject);
    socket.once("connect", () => {
      signal.removeEventListener("abort", giveUp);
      const { _handle: handle } = socket as unknown as { _handle?: BunSocket | null };
      if (handle == null) return resolve(undefined);
      handle.reload({ socket: callbacks });
      // Bun.connect() does so by itself.
      handle.setNoDelay(true);
      resolve(handle.data = new BunConnection(handle, null, null));
    });
  });
}

/** The end of a Unix connection that has bound no name. */
const UNNAMED: Address = { transport: "unix", path: "" };

/** Shared by all connections: Bun hands the socket to each, and the socket its connection. */
const callbacks: SocketCallbacks = {
  binaryType: "uint8array",
  open() {},
  data(socket, chunk) {
    socket.data.received(chunk);
  },
  end(socket) {
    socket.data.ended();
  },
  drain(socket) {
    socket.data.drained();
  },
  close(socket, error) {
    const connection = socket.data as BunConnection | undefined;
    // A socket that never opened has none; connect() reports it.
    connection?.gone(error === undefined ? null : toSocketError(error, "read", connection.remoteAddress, "ECONNRESET"));
  },
  error(socket, error) {
    const connection = socket.data as BunConnection | undefined;
    connection?.gone(toSocketError(error, "read", connection.remoteAddress));
  },
};

/** Bun leaves the code of some failures out, and says ECONNREFUSED when it could not even make a socket. */
async function explain(cause: unknown, syscall: string, address: Address, hostname?: string): Promise<SocketError> {
  const error = toSocketError(cause, syscall, address, "EIO");
  if (error.code !== "EIO" && error.code !== "ECONNREFUSED") return error;
  try {
    const { closeSync, openSync } = process.getBuiltinModule("node:fs");
    closeSync(openSync("/dev/null", "r"));
  } catch (exhausted) {
    return toSocketError(exhausted, syscall, address);
  }
  if (error.code === "EIO" && hostname !== undefined && ipFamily(hostname) === null) {
    try {
      await lookUp(address, hostname, 0);
    } catch (unknown) {
      return unknown as SocketError;
    }
  }
  return error;
}

/** Connections that have sent in this turn and gather what is written after that. */
const gathering: BunConnection[] = [];

class BunConnection extends EventedConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  bytesWritten = 0;
  #socket: BunSocket;
  #unsent: SendQueue | null = null;
  #isGathering = false;
  /** While a TLS handshake is under way. */
  #handshake: PromiseWithResolvers<void> | null = null;
  #tls: TlsInfo | null = null;

  /** `local` is the address of this side, and `remote` that of the other; `null` to ask the socket. */
  constructor(socket: BunSocket, local: Address | null, remote: Address | null) {
    super();
    this.#socket = socket;
    this.localAddress = local ?? inetAddress("tcp", socket.localAddress, socket.localPort);
    this.remoteAddress = remote ?? inetAddress("tcp", socket.remoteAddress, socket.remotePort);
  }

  get unsent(): number {
    return this.#unsent?.size ?? 0;
  }

  override get tls(): TlsInfo | null {
    return this.#tls;
  }

  /** The connection with TLS on this one's socket. This one is good for nothing more then but to be aborted. */
  async secure(settings: TlsSettings, contexts: SecureContexts, begun: Uint8Array | null): Promise<BunConnection> {
    if (this.dead) throw this.closeError("handshake");
    if (this.reading) throw alreadyReading();
    if (this.readEnded) {
      // The socket above would wait for what can't come.
      this.abort();
      throw new SocketError("ECONNRESET", { syscall: "handshake", address: this.remoteAddress });
    }
    const handshake = Promise.withResolvers<void>();
    let secured!: BunConnection;
    try {
      const [below, above] = this.#socket.upgradeTLS({
        ...upgradeOptions(settings, contexts),
        initialData: begun === null ? this.takeReceived() : concat([begun, this.takeReceived()]),
        socket: {
          ...callbacks,
          open: (socket) => {
            secured = socket.data = new BunConnection(socket, this.localAddress, this.remoteAddress);
            secured.#handshake = handshake;
          },
          handshake: (socket, success, error) => {
            const done = success || isUnverified(socket, settings);
            const refusal = done ? peerRefusal(socket, settings, contexts, error) : null;
            if (done && refusal === null) return secured.#established(describeSession(socket));
            secured.gone(tlsError(done ? new Error(refusal!) : error, "handshake", this.remoteAddress));
            socket.close();
          },
          error: (_socket, error) => secured.gone(tlsError(error, "read", this.remoteAddress)),
          ...(settings.sni.size > 0 ? { serverName: onServerName(contexts) } : {}),
        },
      });
      // It would go on receiving what is encrypted.
      below.data = NOBODY;
      // BoringSSL never lets the peer of a server renegotiate; this refuses it to the peer of a client.
      above.disableRenegotiation();
      this.#socket = above;
    } catch (cause) {
      this.abort();
      throw tlsError(cause, "handshake", this.remoteAddress);
    }
    try {
      await handshake.promise;
    } catch (error) {
      this.close();
      throw error;
    }
    return secured;
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("write"));
    if (this.sendEnded) return rejected(new SocketError("EPIPE", { syscall: "write", address: this.remoteAddress }));
    let sent = 0;
    if ((this.#unsent === null || this.#unsent.empty) && !this.#isGathering) {
      if (this.#tls !== null) this.#gather();
      sent = this.#send(bytes);
      if (sent === bytes.length) return;
      if (sent < 0) return rejected(this.closeError("write"));
    }
    return (this.#unsent ??= new SendQueue()).push(sent === 0 ? bytes : bytes.subarray(sent));
  }

  writeText(text: string): void | Promise<void> {
    // A buffer of its own: Bun takes longer to make a view than to encode.
    return this.write(encoder.encode(text));
  }

  protected endSend(): void | Promise<void> {
    if (this.#unsent === null || this.#unsent.empty) {
      this.#socket.shutdown();
      return;
    }
    return this.#unsent.drained().then(() => this.#socket.shutdown());
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

  /**
   * Has TLS gather what else is written before the next microtask: each write is a record of its own, which costs the peer more than short
   * bytes in it do. A write that is awaited is never gathered with the next one.
   */
  #gather(): void {
    this.#isGathering = true;
    if (gathering.push(this) > 1) return;
    queueMicrotask(() => {
      for (const connection of gathering.splice(0)) {
        connection.#isGathering = false;
        connection.drained();
      }
    });
  }

  /** Less than 0 when the peer has reset; Bun reports that elsewhere only if it goes on receiving, and it may be paused. */
  #send(bytes: Uint8Array): number {
    const sent = this.#socket.write(bytes);
    if (sent < 0) {
      // A Unix socket has no reset.
      const code = this.localAddress.transport === "unix" ? "EPIPE" : "ECONNRESET";
      this.gone(new SocketError(code, { syscall: "write", address: this.remoteAddress }));
      this.#socket.terminate();
      return sent;
    }
    this.bytesWritten += sent;
    return sent;
  }

  /** The kernel has room again. */
  drained(): void {
    this.#unsent?.flush((bytes) => this.#send(bytes));
  }

  /** The socket is closed. */
  gone(error: SocketError | null): void {
    this.lost(error);
    this.#unsent?.fail(this.closeError("write"));
    if (this.#handshake === null) return;
    this.#handshake.reject(error ?? new SocketError("ECONNRESET", { syscall: "handshake", address: this.remoteAddress }));
    this.#handshake = null;
  }

  protected finish(): void {
    if (this.#unsent === null || this.#unsent.empty) this.#end();
    else this.#unsent.drained().then(() => this.#end(), ignore);
  }

  protected destroy(): void {
    this.#socket.terminate();
  }

  #end(): void {
    if (this.#tls === null) return void this.#socket.end();
    // With TLS, end() waits for the peer's close_notify.
    this.#socket.shutdown();
    this.#socket.close();
  }

  #established(tls: TlsInfo): void {
    this.#tls = tls;
    this.#handshake?.resolve();
    this.#handshake = null;
  }

  protected pause(): void {
    this.#socket.pause();
  }

  protected resume(): void {
    this.#socket.resume();
  }
}

/** In place of the connection of a socket that nobody listens to any more. */
const NOBODY = { received() {}, ended() {}, drained() {}, gone() {} } as unknown as BunConnection;

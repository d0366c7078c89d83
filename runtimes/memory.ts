import { type Address, formatAddress, inetAddress, unnamedPeer } from "../src/address.ts";
import { SocketError, UnsupportedError } from "../src/errors.ts";
import type {
  BindOptions,
  Capabilities,
  ConnectOptions,
  Listener,
  ListenOptions,
  RawConnection,
  RawDatagramSocket,
  Runtime,
  TlsContext,
} from "../src/runtime.ts";
import { bindInMemory } from "./memory/datagram.ts";
import { ArrivalQueue } from "../src/arrival_queue.ts";
import { detectRuntime } from "./detect.ts";
import { system } from "./shared/system.ts";
import { channel } from "./shared/channels.ts";
import { systemCapabilities } from "./shared/system_capabilities.ts";
import { EventedConnection } from "../src/evented_connection.ts";
import { ignore, rejected } from "../src/promises.ts";
import { SendQueue } from "../src/send_queue.ts";

const NO_PORTS = "addresses in memory belong to one listener; use the runtime's own sockets";
const NO_NETWORK = "no network is in between; use the runtime's own sockets";
const listeners = new Map<string, ArrivalQueue<RawConnection>>();
let lastPort = 49_151;

let capabilities: Capabilities | undefined;

/**
 * No sockets at all: connections between two ends in one process, for tests of handlers. What the real adapters promise holds here
 * too: back-pressure, half-close, reset, error codes.
 */
export const memory: Runtime = {
  name: "memory",
  get capabilities() {
    return capabilities ??= {
      ...systemCapabilities(),
      reset: true,
      reusePort: NO_PORTS,
      reusePortUdp: NO_PORTS,
      ipv6Only: true,
      keepAliveDelay: true,
      bufferSizes: true,
      unixDatagram: true,
      abstractNames: true,
      socketPathLength: 107,
      tls: NO_NETWORK,
      tlsKeyKinds: NO_NETWORK,
      tlsTruncation: NO_NETWORK,
    };
  },

  // async, so that an error is a rejection as with the others.
  // deno-lint-ignore require-await
  async listen({ address, fd, requestQueueSize }: ListenOptions): Promise<Listener> {
    if (fd !== null) throw new UnsupportedError("there are no descriptors in memory: listen on an address");
    const local = chosen(address);
    const key = formatAddress(local);
    if (listeners.has(key)) throw new SocketError("EADDRINUSE", { syscall: "listen", address });
    const queue = new ArrivalQueue<RawConnection>(requestQueueSize, (connection) => connection.abort());
    listeners.set(key, queue);
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
      stop() {
        listeners.delete(key);
        return Promise.resolve();
      },
      close() {
        listeners.delete(key);
        queue.close();
        return Promise.resolve();
      },
      // Nothing in memory keeps a process running but who waits with a timeout.
      unref() {},
      ref() {},
    };
  },

  // deno-lint-ignore require-await
  async connect({ address }: ConnectOptions): Promise<RawConnection> {
    const queue = listeners.get(formatAddress(address));
    if (queue === undefined) throw new SocketError("ECONNREFUSED", { syscall: "connect", address });
    const from = "path" in address ? unnamedPeer(address) : inetAddress("tcp", "127.0.0.1", nextPort());
    const [client, server] = MemoryConnection.pair(from, address);
    if (!queue.offer(server)) server.hold();
    return client;
  },

  tls(): Promise<TlsContext> {
    return Promise.reject(new UnsupportedError(`TLS in memory: ${NO_NETWORK}`));
  },

  // deno-lint-ignore require-await
  async bind(options: BindOptions): Promise<RawDatagramSocket> {
    return bindInMemory(chosen(options.address), options);
  },

  // Only sockets are in memory.
  ...system,
  print: (text) => detectRuntime().print(text),
  monotonicMicroseconds: () => detectRuntime().monotonicMicroseconds(),
  guardOutput: () => detectRuntime().guardOutput(),
  environment: (name) => detectRuntime().environment(name),
  spawnThread: (options) => detectRuntime().spawnThread(options),
  spawnProcess: (options) => detectRuntime().spawnProcess(options),
  afterEvents: (callback) => callback(),
  afterPoll: (callback) => detectRuntime().afterPoll(callback),
  setIdleTimer: (callback, ms) => detectRuntime().setIdleTimer(callback, ms),
  channel,
};

/** The address with the port or the name that it asks for. */
function chosen(address: Address): Address {
  if ("path" in address) return address.path === "" ? { ...address, path: `\0${crypto.randomUUID()}` } : address;
  const { transport, hostname, port } = address;
  return inetAddress(transport, hostname, port === 0 ? freePort(hostname) : port);
}

function nextPort(): number {
  lastPort = lastPort === 65_535 ? 49_152 : lastPort + 1;
  return lastPort;
}

function freePort(hostname: string): number {
  let port = nextPort();
  while (listeners.has(formatAddress({ transport: "tcp", hostname, port }))) port = nextPort();
  return port;
}

class MemoryConnection extends EventedConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  bytesWritten = 0;
  #peer!: MemoryConnection;
  #unsent = new SendQueue();

  constructor(localAddress: Address, remoteAddress: Address) {
    super();
    this.localAddress = localAddress;
    this.remoteAddress = remoteAddress;
  }

  static pair(client: Address, server: Address): [MemoryConnection, MemoryConnection] {
    const ends: [MemoryConnection, MemoryConnection] = [
      new MemoryConnection(client, server),
      new MemoryConnection(server, client),
    ];
    ends[0].#peer = ends[1];
    ends[1].#peer = ends[0];
    return ends;
  }

  get unsent(): number {
    return this.#unsent.size;
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("write"));
    if (this.sendEnded) return rejected(this.#brokenPipe());
    if (this.#peer.dead) {
      this.#fail(this.#brokenPipe());
      return rejected(this.closeError("write"));
    }
    const sent = this.#unsent.empty ? this.#send(bytes) : 0;
    if (sent < bytes.length) return this.#unsent.push(bytes.subarray(sent));
  }

  protected endSend(): void | Promise<void> {
    if (this.#unsent.empty) return this.#endPeer();
    return this.#unsent.drained().then(() => this.#endPeer());
  }

  setNoDelay(_on: boolean): void {}

  setKeepAlive(_on: boolean | number): void {}

  unref(): void {}

  ref(): void {}

  override ended(): void {
    super.ended();
    if (this.sendEnded) this.lost(null);
  }

  protected finish(): void {
    const close = () => {
      if (!this.sendEnded && !this.#peer.dead) this.#peer.ended();
      // Nobody will read what the peer still has to send.
      if (!this.#peer.#unsent.empty) this.#peer.#fail(this.#peer.#reset());
      this.lost(null);
    };
    if (this.#unsent.empty) close();
    else this.#unsent.drained().then(close, ignore);
  }

  protected destroy(): void {
    this.#fail(null);
    this.#peer.#fail(this.#peer.#reset());
  }

  protected pause(): void {}

  protected resume(): void {
    // Not at once: the reader that made room is in the middle of taking a chunk.
    queueMicrotask(() => this.#peer.#unsent.flush((bytes) => this.#peer.#send(bytes)));
  }

  #send(bytes: Uint8Array): number {
    const peer = this.#peer;
    let sent = 0;
    for (let size; (size = Math.min(bytes.length - sent, peer.room)) > 0; sent += size) {
      // A copy, as through a kernel: the sender may change its bytes and the reader its chunk.
      peer.received(bytes.slice(sent, sent + size));
      this.bytesWritten += size;
    }
    return sent;
  }

  #endPeer(): void {
    if (!this.#peer.dead) this.#peer.ended();
    if (this.#peer.sendEnded) this.lost(null);
  }

  #fail(error: SocketError | null): void {
    this.lost(error);
    this.#unsent.fail(this.closeError("write"));
  }

  #reset(): SocketError {
    return new SocketError("ECONNRESET", { syscall: "read", address: this.remoteAddress });
  }

  #brokenPipe(): SocketError {
    return new SocketError("EPIPE", { syscall: "write", address: this.remoteAddress });
  }
}

import { type Address, type AddressFamily, formatAddress, type Transport } from "./address.ts";
import { Admission } from "./admission.ts";
import { BaseServer, type RequestHandlerClass, type ServerOptions, type Taken } from "./base_server.ts";
import { openChannels } from "./channels.ts";
import { Connection, noteEnd, watchOf } from "./connection.ts";
import { ConnectionWatch, Watcher } from "./connection_watch.ts";
import { checkLimits, type ConnectionLimits } from "./limits.ts";
import type { Listener, ListenOptions, RawConnection, SocketOptions } from "./runtime.ts";
import { checkListenOptions } from "./socket_options.ts";
import type { ServerStats } from "./stats.ts";
import { idleClock, TimerWheel } from "./timer_wheel.ts";

/** Options of a {@linkcode TCPServer}. Each but `runtime` sets the server's field of the same name. */
export interface TCPServerOptions extends ServerOptions, Partial<ConnectionLimits> {
  /** See {@linkcode TCPServer.requestQueueSize}. */
  requestQueueSize?: number;
  /** See {@linkcode TCPServer.addressFamily}. */
  addressFamily?: AddressFamily | null;
  /** See {@linkcode TCPServer.allowReuseAddress}. */
  allowReuseAddress?: boolean;
  /** See {@linkcode TCPServer.allowReusePort}. */
  allowReusePort?: boolean;
  /** See {@linkcode TCPServer.ipv6Only}. */
  ipv6Only?: boolean;
  /** See {@linkcode TCPServer.noDelay}. */
  noDelay?: boolean;
  /** See {@linkcode TCPServer.keepAlive}. */
  keepAlive?: boolean | number;
}

/**
 * A server for TCP connections that handles one request at a time, as `socketserver.TCPServer` does: the next connection is not
 * looked at before the last is finished. `AsyncTCPServer` handles many.
 *
 * @typeParam R What a request is.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler, TCPServer } from "@sockets/server";
 *
 * class EchoHandler extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     for await (const chunk of this.request) await this.request.write(chunk);
 *   }
 * }
 *
 * const server = new TCPServer("tcp://127.0.0.1:0", EchoHandler);
 * await server.activate();
 * const serving = server.serveForever();
 * await server.shutdown();
 * await serving;
 * await server.serverClose();
 * ```
 */
export class TCPServer<R = Connection> extends BaseServer<R> implements ConnectionLimits {
  /**
   * Connections that may wait to be accepted: 511, the default of Node and Deno (`socketserver` has 5). The kernel keeps them on
   * Deno; Bun and Node accept them ahead, and beyond this number a further one is aborted and counted in `stats.refused`.
   */
  requestQueueSize: number = 511;
  /** Resolves a host name to an address of this family; `null`, the default, takes what the system prefers. */
  addressFamily: AddressFamily | null = null;
  /** Binds a port whose last connections are still in TIME_WAIT (SO_REUSEADDR). Every runtime does, and `false` can't be had. */
  allowReuseAddress: boolean = true;
  /** Lets several listeners share the port (SO_REUSEPORT); `false` by default. */
  allowReusePort = false;
  /** Keeps a listener on `::` from taking IPv4 connections as well (IPV6_V6ONLY); `false` by default. */
  ipv6Only = false;
  /** Sends small writes at once (TCP_NODELAY): `true` by default, as in Go, since nothing here writes byte by byte. */
  noDelay = true;
  /** Probes idle connections (SO_KEEPALIVE): `false` by default; a number is the idle time before the first probe, in milliseconds. */
  keepAlive: boolean | number = false;
  /** Connections at once: 16,384 by default. See {@linkcode ConnectionLimits.maxConnections}. */
  maxConnections = 16_384;
  /** What becomes of those beyond: `"wait"` by default. See {@linkcode ConnectionLimits.whenFull}. */
  whenFull: "wait" | "refuse" = "wait";
  /** `Infinity` by default. See {@linkcode ConnectionLimits.maxConnectionsPerAddress}. */
  maxConnectionsPerAddress: number = Infinity;
  /** `Infinity` by default. See {@linkcode ConnectionLimits.maxConnectionRatePerAddress}. */
  maxConnectionRatePerAddress: number = Infinity;
  /** Where connections may come from: everywhere (`null`) by default. See {@linkcode ConnectionLimits.allow}. */
  allow: readonly string[] | null = null;
  /** Where connections may not come from: nowhere by default. See {@linkcode ConnectionLimits.deny}. */
  deny: readonly string[] = [];
  /** Milliseconds without a byte: 300,000 by default. See {@linkcode ConnectionLimits.idleTimeout}. */
  idleTimeout: number = 300_000;
  /** Milliseconds in all: `Infinity` by default. See {@linkcode ConnectionLimits.requestTimeout}. */
  requestTimeout: number = Infinity;
  /** Bytes per second: 0 by default, which is none. See {@linkcode ConnectionLimits.minReadRate}. */
  minReadRate = 0;
  /** Milliseconds: 5000 by default. See {@linkcode ConnectionLimits.readRateWindow}. */
  readRateWindow = 5000;
  /** Milliseconds: 5000 by default. See {@linkcode ConnectionLimits.readRateGrace}. */
  readRateGrace = 5000;
  /** Milliseconds in which the peer takes nothing: 60,000 by default. See {@linkcode ConnectionLimits.writeTimeout}. */
  writeTimeout = 60_000;
  /** Bytes that may wait for one peer: 16 MiB by default. See {@linkcode ConnectionLimits.maxBackpressure}. */
  maxBackpressure: number = 16 << 20;
  /** Bytes that may wait for all peers: 256 MiB by default. See {@linkcode ConnectionLimits.maxTotalBackpressure}. */
  maxTotalBackpressure: number = 256 << 20;

  #listener: Listener | null = null;
  #refused = 0;
  #queueFull = 0;
  #bytesRead = 0;
  #bytesWritten = 0;
  #admission: Admission | null = null;
  #channels = openChannels(this.runtime);
  #watcher = new Watcher(this, wheel, (connection, reason) => this.endRequest(connection as R, reason));

  /**
   * Checks the arguments; nothing is bound yet.
   *
   * @param address Where to listen: `tcp://host:port`, or `{ transport: "tcp", hostname, port }`. Port 0 asks for a free one.
   * @param RequestHandlerClass The class whose instances handle the requests.
   * @param options Values for the server's fields; they win over what a subclass sets.
   * @throws {TypeError} When the address is none, or the handler no class with a `handle()` method.
   * @throws {RangeError} When the port is no integer from 0 to 65535.
   */
  constructor(address: string | Address, RequestHandlerClass: RequestHandlerClass<R>, options: TCPServerOptions = {}) {
    super(address, RequestHandlerClass, options);
    if (this.serverAddress.transport !== this.transport) {
      throw new TypeError(
        `${this.constructor.name} serves ${this.transport} addresses, got ${formatAddress(this.serverAddress)}`,
      );
    }
  }

  /** What the server has counted. */
  override get stats(): ServerStats {
    const stats = super.stats;
    const queueFull = this.#queueFull + (this.#listener?.refused ?? 0);
    let [bytesRead, bytesWritten, unsent] = [this.#bytesRead, this.#bytesWritten, 0];
    for (const request of this.activeRequests.keys()) {
      if (!(request instanceof Connection)) break;
      bytesRead += request.bytesRead;
      bytesWritten += request.bytesWritten;
      unsent += watchOf(request)?.unsent ?? 0;
    }
    return {
      ...stats,
      refused: this.#refused + queueFull,
      queued: this.#listener?.queued ?? 0,
      bytesRead,
      bytesWritten,
      unsent,
      ended: { ...stats.ended, "queue full": queueFull },
    };
  }

  /** Binds the address, listens, and puts the address bound into `serverAddress`. */
  override async serverBind(): Promise<void> {
    this.#admission = new Admission(this, wheel);
    this.#listener = await this.runtime.listen(this.listenOptions());
    this.serverAddress = this.#listener.address;
  }

  /** Stops listening; connections that nobody accepted are aborted. */
  override async serverUnbind(): Promise<void> {
    const listener = this.#listener;
    if (listener === null) return;
    this.#listener = null;
    await listener.close();
    this.#queueFull += listener.refused;
  }

  /** Waits for the next connection that the limits let in. */
  override getRequest(): Taken<R> | Promise<Taken<R>> {
    return this.#listener === null ? null : this.#listener.accept(this.#admit);
  }

  /** What the server speaks. */
  protected override get transport(): Transport {
    return "tcp";
  }

  /** What is asked of the runtime. */
  protected listenOptions(): ListenOptions {
    const { noDelay, keepAlive } = this;
    return { ...this.socketOptions(), noDelay, keepAlive };
  }

  /** The part of it that every socket has. */
  protected socketOptions(): SocketOptions {
    const { serverAddress: address, addressFamily, requestQueueSize, allowReuseAddress, allowReusePort, ipv6Only } = this;
    return { address, addressFamily, requestQueueSize, allowReuseAddress, allowReusePort, ipv6Only, mode: 0 };
  }

  /** Checks the fields before anything is bound. */
  protected override validate(): void {
    super.validate();
    checkLimits(this);
    this.checkSocket();
  }

  /** Checks what is asked of the runtime. */
  protected checkSocket(): void {
    checkListenOptions(this.runtime, this.listenOptions());
  }

  /** Whether as many connections are there as may be, and others are to wait. */
  protected override get full(): boolean {
    return super.full || (this.whenFull === "wait" && this.activeRequests.size >= this.maxConnections);
  }

  /** Ends a waiting `getRequest()`. */
  protected override interrupt(): void {
    this.#listener?.interrupt();
  }

  /** Aborts the connection. */
  protected override abortRequest(request: R): void {
    if (request instanceof Connection) request.abort();
  }

  /** Counts what the connection has counted, and its end. */
  protected override requestEnded(request: R, clientAddress: Address | null, duration: number): void {
    if (!(request instanceof Connection)) return;
    this.#bytesRead += request.bytesRead;
    this.#bytesWritten += request.bytesWritten;
    const visitor = watchOf(request)?.visitor;
    if (visitor != null) this.#admission?.leave(visitor);
    noteEnd(request, this.draining ? "drained" : "handler done");
    const reason = request.endReason!;
    const { ended } = this.#channels;
    if (ended.hasSubscribers) {
      const { bytesRead, bytesWritten } = request;
      ended.publish({ server: this, connection: request, clientAddress, reason, bytesRead, bytesWritten, duration });
    }
    this.countEnd(request, clientAddress, reason);
  }

  /** Makes a request of a connection; one that the limits don't let in is aborted, so that its descriptor is free at once. */
  #admit = (raw: RawConnection | null): Taken<R> => {
    if (raw === null) return null;
    const { remoteAddress } = raw;
    const clientAddress = "path" in remoteAddress && remoteAddress.path === "" ? null : remoteAddress;
    const visitor = this.#admission!.enter(remoteAddress, this.activeRequests.size);
    if (typeof visitor === "string") {
      raw.abort();
      this.#refused++;
      this.countEnd(null, clientAddress, visitor);
      return null;
    }
    const watch = new ConnectionWatch(this.#watcher, raw, visitor);
    const connection = new Connection(raw, watch);
    watch.begin(connection);
    const { accepted } = this.#channels;
    if (accepted.hasSubscribers) accepted.publish({ server: this, connection, clientAddress });
    // R is Connection for every server whose requests are connections; a datagram server overrides getRequest().
    return [connection as R, clientAddress];
  };
}

/** For all servers: what is due at about the same time shares a wake-up. */
const wheel = new TimerWheel(idleClock);

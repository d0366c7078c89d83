import { type Address, type AddressFamily, formatAddress, type Transport } from "./address.ts";
import { Admission } from "./admission.ts";
import { BaseServer, type RequestHandlerClass, type ServerOptions, type Taken } from "./base_server.ts";
import { Connection, noteEnd, watchOf } from "./connection.ts";
import { ConnectionWatch, Watcher } from "./connection_watch.ts";
import type { EndReason } from "./end_reason.ts";
import { checkTimeout } from "./deadline.ts";
import { checkLimits, type ConnectionLimits } from "./limits.ts";
import { Networks } from "./networks.ts";
import { OpeningListener } from "./opening_listener.ts";
import { readProxyHeader } from "./proxied_connection.ts";
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
  /** See {@linkcode TCPServer.proxyProtocol}. */
  proxyProtocol?: boolean | readonly string[];
  /** See {@linkcode TCPServer.proxyTimeout}. */
  proxyTimeout?: number;
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
  /**
   * Whether connections come from a load balancer that says of each whose it is, by version 1 or 2 of the
   * {@link https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt | PROXY protocol}: `false` by default. `true` demands the header
   * of everybody; a list of networks in CIDR notation demands it of the peers in it, your balancers, and takes all others for plain
   * clients. Nothing is guessed: a header from elsewhere is part of the stream. A connection without the header that is demanded, or with
   * one that is wrong or longer than 4112 bytes, is aborted with the reason `"bad proxy header"`.
   *
   * `remoteAddress`, `clientAddress`, `allow`, `deny` and the limits per address then mean the client that the header names, and
   * `connection.proxy` has the rest. Whoever reaches the server's port can claim to be any client: let only the balancers reach it.
   */
  proxyProtocol: boolean | readonly string[] = false;
  /** Milliseconds that a connection has to send its PROXY protocol header: 5000 by default, `Infinity` for ever. */
  proxyTimeout = 5000;
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
  #opening: OpeningListener | null = null;
  /** Requests that are there, those included that the loop has not got yet. */
  #present = 0;
  #refused = 0;
  #queueFull = 0;
  #bytesRead = 0;
  #bytesWritten = 0;
  #admission: Admission | null = null;
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
    this.#listener = this.#proxied(await this.runtime.listen(this.listenOptions()));
    this.serverAddress = this.#listener.address;
  }

  /** Stops listening; connections that nobody accepted are aborted. */
  override async serverUnbind(): Promise<void> {
    const listener = this.#listener;
    if (listener === null) return;
    this.#listener = this.#opening = null;
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
    if (typeof this.proxyProtocol !== "boolean") new Networks("proxyProtocol", this.proxyProtocol);
    checkTimeout("proxyTimeout", this.proxyTimeout);
    if (this.proxyTimeout === 0) throw new RangeError("proxyTimeout must be more than 0; Infinity switches it off");
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
  protected override requestEnded(request: R, clientAddress: Address | null): void {
    if (!(request instanceof Connection)) return;
    this.#present--;
    this.#bytesRead += request.bytesRead;
    this.#bytesWritten += request.bytesWritten;
    const visitor = watchOf(request)?.visitor;
    if (visitor != null) this.#admission?.leave(visitor);
    noteEnd(request, this.draining ? "drained" : "handler done");
    this.countEnd(request, clientAddress, request.endReason!);
    this.#opening?.resume();
  }

  /** The listener, behind one that reads PROXY protocol headers when they are asked for. */
  #proxied(listener: Listener): Listener {
    const { proxyProtocol } = this;
    if (proxyProtocol === false) return listener;
    const balancers = proxyProtocol === true ? null : new Networks("proxyProtocol", proxyProtocol);
    return this.#opening = new OpeningListener(listener, {
      name: "PROXY header",
      timeout: this.proxyTimeout,
      // deno-lint-ignore require-await
      open: async (raw) => {
        const peer = raw.remoteAddress;
        // A peer that was gone before it could be asked for its address has port 0: it may have been one of them.
        const demanded = balancers === null || ("hostname" in peer && (balancers.has(peer.hostname) || peer.port === 0));
        return demanded ? readProxyHeader(raw) : raw;
      },
      failed: (_error, peer) => this.#refuse(addressOf(peer), "bad proxy header"),
      // Those that are to be refused have to be opened before.
      full: () => this.#opening!.pending + (this.whenFull === "wait" ? this.#present : 0) >= this.maxConnections,
    }, this.requestQueueSize);
  }

  #refuse(clientAddress: Address | null, reason: EndReason): void {
    this.#refused++;
    this.countEnd(null, clientAddress, reason);
  }

  /** Makes a request of a connection; one that the limits don't let in is aborted, so that its descriptor is free at once. */
  #admit = (raw: RawConnection | null): Taken<R> => {
    if (raw === null) return null;
    const { remoteAddress } = raw;
    const clientAddress = addressOf(remoteAddress);
    const visitor = this.#admission!.enter(remoteAddress, this.activeRequests.size);
    if (typeof visitor === "string") {
      raw.abort();
      this.#refuse(clientAddress, visitor);
      return null;
    }
    this.#present++;
    const watch = new ConnectionWatch(this.#watcher, raw, visitor);
    const connection = new Connection(raw, watch);
    watch.begin(connection);
    // R is Connection for every server whose requests are connections; a datagram server overrides getRequest().
    return [connection as R, clientAddress];
  };
}

/** The address of a peer, if it has one. */
function addressOf(peer: Address): Address | null {
  return "path" in peer && peer.path === "" ? null : peer;
}

/** For all servers: what is due at about the same time shares a wake-up. */
const wheel = new TimerWheel(idleClock);

import { type Address, type AddressFamily, formatAddress, type Transport } from "./address.ts";
import { Admission, type Visitor } from "./admission.ts";
import { HANDLED } from "./arrival_queue.ts";
import { BaseServer, type RequestHandlerClass, type ServerOptions, type Taken } from "./base_server.ts";
import { openChannels } from "./channels.ts";
import { Connection, noteEnd, watchOf } from "./connection.ts";
import { ConnectionWatch, Watcher } from "./connection_watch.ts";
import type { EndReason } from "./end_reason.ts";
import { checkTimeout } from "./deadline.ts";
import { checkLimits, type ConnectionLimits } from "./limits.ts";
import { Networks } from "./networks.ts";
import { type Opening, OpeningListener } from "./opening_listener.ts";
import type { ProxyHeader } from "./proxy_protocol.ts";
import { readProxyHeader } from "./read_proxy_header.ts";
import { Refusals } from "./refusals.ts";
import type { Listener, ListenOptions, RawConnection, SocketOptions, TlsContext } from "./runtime.ts";
import { checkListenOptions } from "./socket_options.ts";
import type { ServerStats } from "./stats.ts";
import { idleClock, TimerWheel } from "./timer_wheel.ts";
import { checkTls, handshakeTimeout, serverSettings, tlsContext, type TlsOptions } from "./tls.ts";

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
  /** See {@linkcode TCPServer.tls}. */
  tls?: TlsOptions | null;
  /** See {@linkcode TCPServer.fd}. */
  fd?: number | null;
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
  proxyTimeout: number = 5000;
  /**
   * An inherited descriptor to listen on, of a socket that is bound already, as systemd passes it (see `listenFds()`); `null`, the
   * default, binds the address. The address says of which kind the socket is, and is not used otherwise.
   */
  fd: number | null = null;
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
  /**
   * Secures every connection by TLS: `null`, the default, does not. A `tls://` address needs it. The handshake is done before a request is
   * taken, beside all else, so that a peer that drags it out keeps neither the server nor another one waiting.
   */
  tls: TlsOptions | null = null;

  #listener: Listener | null = null;
  /** The same where PROXY protocol headers are read, and on top of it where TLS handshakes are done. */
  #headers: OpeningListener | null = null;
  #handshakes: OpeningListener | null = null;
  #tlsContext: TlsContext | null = null;
  /** What is known of the connections that these two have. */
  #proxies = new WeakMap<RawConnection, ProxyHeader>();
  #admitted = new WeakMap<RawConnection, Visitor>();
  /** Requests that are there, those included that the loop has not got yet. */
  #present = 0;
  #refused = 0;
  #queueFull = 0;
  #bytesRead = 0;
  #bytesWritten = 0;
  #admission: Admission | null = null;
  #refusals = new Refusals();
  #channels = openChannels(this.runtime);
  #watcher = new Watcher(this, wheel, (connection, reason) => this.endRequest(connection as R, reason));

  /**
   * Checks the arguments; nothing is bound yet.
   *
   * @param address Where to listen: `tcp://host:port`, or `{ transport: "tcp", hostname, port }`. Port 0 asks for a free one. For
   * `tls://host:port` the option `tls` is needed, which makes the one of the other.
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
      handshaking: this.#handshakes?.opening ?? 0,
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
    const { tls } = this;
    if (tls !== null) this.#tlsContext = await tlsContext(this.runtime, serverSettings(tls));
    this.#listener = await this.runtime.listen(this.listenOptions());
    this.serverAddress = this.#listener.address;
    if (this.proxyProtocol !== false) this.#listener = this.#headers = this.#withHeaders(this.#listener);
    if (tls === null) return;
    this.#listener = this.#handshakes = this.#withHandshakes(this.#listener);
    if ("port" in this.serverAddress) this.serverAddress = { ...this.serverAddress, tls: true };
  }

  /**
   * Takes the certificates of handshakes to come from `options`; without them, reads the files of `tls` again. Connections that are there
   * go on with what they have.
   *
   * @param options The options of TLS in place of the present ones, handshake timeout included.
   * @throws {TypeError} When they are none, when a certificate and its key don't fit, or when the server has no `tls`; then all stays as
   * it was.
   * @throws {SocketError} When a file can't be read; then all stays as it was.
   */
  async reloadTls(options: TlsOptions | null = this.tls): Promise<void> {
    if (this.tls === null || options === null) throw new TypeError("reloadTls(): the server has no tls");
    this.#tlsContext = await tlsContext(this.runtime, serverSettings(options));
    this.tls = options;
  }

  /**
   * Is told of a TLS handshake that failed; there is no request then. Does nothing by default: on the internet many do, and
   * `stats.ended["handshake failed"]` counts them. What it throws goes to `handleError`.
   *
   * @param _error A `SocketError` as a rule: `EPROTO` when the two did not come to terms, with the reason in its message, `ETIMEDOUT` when
   * the peer took too long, `ECONNRESET` when it went away.
   * @param _clientAddress The peer's address; `null` when it has none.
   */
  handleHandshakeError(_error: unknown, _clientAddress: Address | null): void | Promise<void> {}
  /** Stops listening; the loop goes on with the connections that have been taken from the kernel. */
  protected override stopListening(): void | Promise<void> {
    return this.#listener?.stop();
  }

  /** The connections that have been taken from the kernel and wait, or are being opened. */
  protected override get waiting(): number {
    return (this.#listener?.queued ?? 0) + (this.#headers?.opening ?? 0) + (this.#handshakes?.opening ?? 0);
  }

  /** Stops listening; connections that nobody accepted are aborted. */
  override async serverUnbind(): Promise<void> {
    const listener = this.#listener;
    if (listener === null) return;
    this.#listener = this.#headers = this.#handshakes = null;
    this.#refusals.clear();
    await listener.close();
    this.#queueFull += listener.refused;
  }

  /** Waits for the next connection that the limits let in. */
  override getRequest(): Taken<R> | Promise<Taken<R>> {
    if (this.#listener === null) return null;
    // A flood is to leave the event loop to others.
    return this.#refusals.full ? this.#refusals.room().then(() => null) : this.#listener.accept(this.#admit);
  }

  /** Where connections are handled concurrently, each is in the turn in which it arrives, without a promise. */
  protected override takeRequest(): Taken<R> | symbol | Promise<Taken<R> | symbol> {
    const direct = this.#listener !== null && this.handlesArrived && this.getRequest === TCPServer.prototype.getRequest;
    return direct && !this.#refusals.full ? this.#listener!.accept(this.#handle) : this.getRequest();
  }

  /** What the server speaks. */
  protected override get transport(): Transport {
    return "tcp";
  }

  /** What is asked of the runtime. */
  protected listenOptions(): ListenOptions {
    const { noDelay, keepAlive, fd } = this;
    return { ...this.socketOptions(), noDelay, keepAlive, fd };
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
    const { serverAddress, tls } = this;
    if (tls !== null) {
      if (this.transport !== "tcp" && this.transport !== "unix") throw new TypeError("tls secures connections, not datagrams");
      serverSettings(tls);
      checkTls(this.runtime);
    } else if ("port" in serverAddress && serverAddress.tls) {
      throw new TypeError(`${formatAddress(serverAddress)} needs the option tls, with a certificate and its key`);
    }
  }

  /** Checks what is asked of the runtime. */
  protected checkSocket(): void {
    checkListenOptions(this.runtime, this.listenOptions());
  }

  /** Whether as many connections are there as may be, and others are to wait. */
  protected override get full(): boolean {
    return super.full || (this.whenFull === "wait" && this.activeRequests.size >= this.maxConnections);
  }

  /** Says whether listening keeps the process running. */
  protected override keepRunning(on: boolean): void {
    if (on) this.#listener?.ref();
    else this.#listener?.unref();
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
    this.#present--;
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
    this.#resume();
  }

  /** Makes a request of a connection that the limits let in. */
  #admit = (raw: RawConnection | null): Taken<R> => {
    if (raw === null) return null;
    const visitor = this.#handshakes === null ? this.#enter(raw, this.#present) : this.#admitted.get(raw)!;
    if (visitor === null) return null;
    this.#present++;
    const watch = new ConnectionWatch(this.#watcher, raw, visitor);
    const connection = new Connection(raw, watch, this.#headers === null ? null : this.#proxies.get(raw));
    watch.begin(connection);
    const clientAddress = clientOf(connection.remoteAddress);
    const { accepted } = this.#channels;
    if (accepted.hasSubscribers) accepted.publish({ server: this, connection, clientAddress });
    // R is Connection for every server whose requests are connections; a datagram server overrides getRequest().
    return [connection as R, clientAddress];
  };

  // Made once, as the one before.
  #handle = (raw: RawConnection | null): Taken<R> | symbol => {
    const taken = this.#admit(raw);
    return taken !== null && this.handleArrived(taken) ? HANDLED : null;
  };

  /** Who has opened a connection: behind a load balancer the client. */
  #addressOf(raw: RawConnection): Address {
    return this.#proxies.get(raw)?.source ?? raw.remoteAddress;
  }

  /** Lets a connection in; one that the limits don't is aborted. */
  #enter(raw: RawConnection, active: number): Visitor | null {
    const address = this.#headers === null ? raw.remoteAddress : this.#addressOf(raw);
    const visitor = this.#admission!.enter(address, active);
    if (typeof visitor !== "string") return visitor;
    this.#refusals.refuse(raw);
    if (this.#refusals.full) void this.#refusals.room().then(() => this.#resume());
    this.#refuse(address, visitor);
    return null;
  }

  #refuse(address: Address, reason: EndReason): void {
    this.#refused++;
    // The loop may wait for this one alone.
    if (this.draining) this.interrupt();
    this.countEnd(null, clientOf(address), reason);
  }

  /** There may be room for those that wait in the listener below. */
  #resume(): void {
    this.#headers?.resume();
    this.#handshakes?.resume();
  }

  /** The connections that are there: those of which there is a request and those of which there is none yet. */
  get #connections(): number {
    return this.#present + (this.#headers?.pending ?? 0) + (this.#handshakes?.pending ?? 0);
  }

  /** A listener that begins when those before it let it have a connection. */
  #opening(listener: Listener, opening: Omit<Opening, "full">): OpeningListener {
    const full = () => this.#refusals.full || (this.whenFull === "wait" && this.#connections >= this.maxConnections);
    return new OpeningListener(listener, Object.assign(opening, { full }), this.requestQueueSize);
  }

  /** The listener with the PROXY protocol headers of its connections read. The limits come afterwards: they are for the client's address. */
  #withHeaders(listener: Listener): OpeningListener {
    const { proxyProtocol } = this;
    const balancers = typeof proxyProtocol === "boolean" ? null : new Networks("proxyProtocol", proxyProtocol);
    return this.#opening(listener, {
      name: "PROXY header",
      timeout: this.proxyTimeout,
      open: async (raw) => {
        const peer = raw.remoteAddress;
        // A peer that was gone before it could be asked for its address has port 0: it may have been one of them.
        const demanded = balancers === null || ("hostname" in peer && (balancers.has(peer.hostname) || peer.port === 0));
        if (demanded) this.#proxies.set(raw, await readProxyHeader(raw));
        return raw;
      },
      failed: (_error, raw) => this.#refuse(raw.remoteAddress, "bad proxy header"),
    });
  }

  /** The listener with the handshakes of its connections done. The limits come first: whom they don't let in needs no handshake. */
  #withHandshakes(listener: Listener): OpeningListener {
    const timeout = () => handshakeTimeout(this.tls!);
    return this.#opening(listener, {
      name: "handshake",
      get timeout() {
        return timeout();
      },
      open: (raw) => this.#handshake(raw),
      failed: (error, raw) => {
        const address = this.#addressOf(raw);
        this.#refuse(address, "handshake failed");
        void this.#tellHandshakeError(error, clientOf(address));
      },
    });
  }

  async #handshake(raw: RawConnection): Promise<RawConnection | null> {
    const admission = this.#admission!;
    // It is among them itself.
    const visitor = this.#enter(raw, this.#connections - 1);
    if (visitor === null) return null;
    try {
      const secured = await this.#tlsContext!.secure(raw);
      this.#admitted.set(secured, visitor);
      const proxy = this.#proxies.get(raw);
      if (proxy !== undefined) this.#proxies.set(secured, proxy);
      return secured;
    } catch (error) {
      admission.leave(visitor);
      throw error;
    }
  }

  async #tellHandshakeError(error: unknown, clientAddress: Address | null): Promise<void> {
    try {
      await this.handleHandshakeError(error, clientAddress);
    } catch (thrown) {
      this.reportError(thrown);
    }
  }
}

/** A Unix socket's peer mostly has no address. */
function clientOf(address: Address): Address | null {
  return "path" in address && address.path === "" ? null : address;
}

/** For all servers: what is due at about the same time shares a wake-up. */
const wheel = new TimerWheel(idleClock);

import { type Address, type AddressFamily, formatAddress, ipFamily, type Transport } from "./address.ts";
import { BaseServer, type RequestHandlerClass, type ServerOptions, type ServerStats } from "./base_server.ts";
import { Connection } from "./connection.ts";
import { UnsupportedError } from "./errors.ts";
import type { Listener } from "./runtime.ts";

/** Options of a {@linkcode TCPServer}. Each but `runtime` sets the server's field of the same name. */
export interface TCPServerOptions extends ServerOptions {
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
export class TCPServer<R = Connection> extends BaseServer<R> {
  /**
   * Connections that may wait to be accepted: 511, the default of Node and Deno (`socketserver` has 5). The kernel keeps them on
   * Deno; Bun and Node accept them ahead, and beyond this number a further one is aborted and counted in `stats.refused`.
   */
  requestQueueSize = 511;
  /** Resolves a host name to an address of this family; `null`, the default, takes what the system prefers. */
  addressFamily: AddressFamily | null = null;
  /** Binds a port whose last connections are still in TIME_WAIT (SO_REUSEADDR). Every runtime does, and `false` can't be had. */
  allowReuseAddress = true;
  /** Lets several listeners share the port (SO_REUSEPORT); `false` by default. */
  allowReusePort = false;
  /** Keeps a listener on `::` from taking IPv4 connections as well (IPV6_V6ONLY); `false` by default. */
  ipv6Only = false;
  /** Sends small writes at once (TCP_NODELAY): `true` by default, as in Go, since nothing here writes byte by byte. */
  noDelay = true;
  /** Probes idle connections (SO_KEEPALIVE): `false` by default; a number is the idle time before the first probe, in milliseconds. */
  keepAlive: boolean | number = false;

  #listener: Listener | null = null;
  #refused = 0;

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
    return { ...super.stats, refused: this.#refused + (this.#listener?.refused ?? 0) };
  }

  /** Binds the address, listens, and puts the address bound into `serverAddress`. */
  override async serverBind(): Promise<void> {
    const address = this.serverAddress;
    if (!("port" in address)) throw new TypeError(`not an internet address: ${formatAddress(address)}`);
    this.#listener = await this.runtime.listen({
      address,
      family: this.addressFamily,
      backlog: this.requestQueueSize,
      reusePort: this.allowReusePort,
      ipv6Only: this.ipv6Only,
      noDelay: this.noDelay,
      keepAlive: this.keepAlive,
    });
    this.serverAddress = this.#listener.address;
  }

  /** Stops listening; connections that nobody accepted are aborted. */
  override async serverUnbind(): Promise<void> {
    const listener = this.#listener;
    if (listener === null) return;
    this.#listener = null;
    await listener.close();
    this.#refused += listener.refused;
  }

  /** Waits for the next connection. */
  override async getRequest(): Promise<[request: R, clientAddress: Address | null] | null> {
    const raw = await this.#listener?.accept() ?? null;
    if (raw === null) return null;
    // R is Connection for every server whose requests are connections; a datagram server overrides this method.
    return [new Connection(raw) as R, raw.remoteAddress];
  }

  /**
   * Closes the connection once what was written has left.
   *
   * @param request The request.
   */
  override closeRequest(request: R): void | Promise<void> {
    if (request instanceof Connection) return request.close();
  }

  /** What the server speaks. */
  protected override get transport(): Transport {
    return "tcp";
  }

  /** Checks the fields before anything is bound. */
  protected override validate(): void {
    super.validate();
    const { capabilities, name } = this.runtime;
    const address = this.serverAddress;
    if (!Number.isInteger(this.requestQueueSize) || this.requestQueueSize < 1) {
      throw new RangeError(`requestQueueSize must be an integer of 1 or more, got ${String(this.requestQueueSize)}`);
    }
    if (this.addressFamily !== null && this.addressFamily !== "IPv4" && this.addressFamily !== "IPv6") {
      throw new TypeError(`addressFamily must be "IPv4", "IPv6" or null, got ${String(this.addressFamily)}`);
    }
    if (this.addressFamily !== null && "hostname" in address) {
      const family = ipFamily(address.hostname);
      if (family !== null && family !== this.addressFamily) {
        throw new TypeError(`addressFamily is ${this.addressFamily}, but ${address.hostname} is an ${family} address`);
      }
    }
    if (typeof this.keepAlive !== "boolean") checkKeepAlive(this.keepAlive);
    if (!this.allowReuseAddress) {
      throw new UnsupportedError(`allowReuseAddress can't be switched off: ${name} always sets SO_REUSEADDR on a listener`);
    }
    if (this.allowReusePort) need("allowReusePort", name, capabilities.reusePort);
    if (this.ipv6Only) need("ipv6Only", name, capabilities.ipv6Only);
    if (typeof this.keepAlive === "number") need("a keepAlive delay", name, capabilities.keepAliveDelay);
  }

  /** Ends a waiting `getRequest()`. */
  protected override interrupt(): void {
    this.#listener?.interrupt();
  }

  /** Aborts the connection. */
  protected override abortRequest(request: R): void {
    if (request instanceof Connection) request.abort();
  }
}

function checkKeepAlive(ms: number): void {
  if (!(ms >= 1000)) {
    throw new RangeError(`keepAlive must be a boolean or a number of milliseconds, 1000 or more, got ${String(ms)}`);
  }
}

function need(what: string, runtime: string, capability: true | string): void {
  if (capability !== true) throw new UnsupportedError(`${what} can't be had on ${runtime} here: ${capability}`);
}

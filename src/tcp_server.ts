import { type Address, type AddressFamily, formatAddress, type Transport } from "./address.ts";
import { BaseServer, type RequestHandlerClass, type ServerOptions, type ServerStats, type Taken } from "./base_server.ts";
import { Connection } from "./connection.ts";
import type { Listener, ListenOptions, RawConnection, SocketOptions } from "./runtime.ts";
import { checkListenOptions } from "./socket_options.ts";

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
    this.#listener = await this.runtime.listen(this.listenOptions());
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
  override getRequest(): Taken<R> | Promise<Taken<R>> {
    const raw = this.#listener?.accept() ?? null;
    return raw instanceof Promise ? raw.then(toRequest<R>) : toRequest<R>(raw);
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
    this.checkSocket();
  }

  /** Checks what is asked of the runtime. */
  protected checkSocket(): void {
    checkListenOptions(this.runtime, this.listenOptions());
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

// R is Connection for every server whose requests are connections; a datagram server overrides getRequest().
function toRequest<R>(raw: RawConnection | null): Taken<R> {
  if (raw === null) return null;
  const { remoteAddress } = raw;
  return [new Connection(raw) as R, "path" in remoteAddress && remoteAddress.path === "" ? null : remoteAddress];
}

import type { Address, AddressFamily, Transport } from "./address.ts";
import { HANDLED } from "./arrival_queue.ts";
import type { RequestHandlerClass, ServerOptions, Taken } from "./base_server.ts";
import { Datagram } from "./datagram.ts";
import { DatagramSocket } from "./datagram_socket.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "./runtime.ts";
import { checkBindOptions } from "./socket_options.ts";
import type { ServerStats } from "./stats.ts";
import { TCPServer } from "./tcp_server.ts";

/** Options of a {@linkcode UDPServer}. Each but `runtime` sets the server's field of the same name. */
export interface UDPServerOptions extends ServerOptions {
  /** See {@linkcode UDPServer.maxPacketSize}. */
  maxPacketSize?: number;
  /** See {@linkcode UDPServer.requestQueueSize}. */
  requestQueueSize?: number;
  /** See {@linkcode TCPServer.addressFamily}. */
  addressFamily?: AddressFamily | null;
  /** See {@linkcode UDPServer.allowReuseAddress}. */
  allowReuseAddress?: boolean;
  /** See {@linkcode TCPServer.allowReusePort}. */
  allowReusePort?: boolean;
  /** See {@linkcode TCPServer.ipv6Only}. */
  ipv6Only?: boolean;
  /** See {@linkcode UDPServer.broadcast}. */
  broadcast?: boolean;
  /** See {@linkcode UDPServer.receiveBufferSize}. */
  receiveBufferSize?: number | null;
  /** See {@linkcode UDPServer.sendBufferSize}. */
  sendBufferSize?: number | null;
}

/**
 * A server for UDP datagrams that handles one at a time, as `socketserver.UDPServer` does. Its requests are {@linkcode Datagram}s.
 *
 * @typeParam R What a request is.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler, type Datagram, UDPServer } from "@sockets/server";
 *
 * class EchoHandler extends BaseRequestHandler<Datagram> {
 *   override handle(): void | Promise<void> {
 *     return this.request.reply(this.request.data);
 *   }
 * }
 *
 * const server = new UDPServer("udp://127.0.0.1:0", EchoHandler);
 * await server.activate();
 * const serving = server.serveForever();
 * await server.shutdown();
 * await serving;
 * await server.serverClose();
 * ```
 */
export class UDPServer<R = Datagram> extends TCPServer<R> {
  /** Bytes that are kept of a datagram: 8192 by default, as in `socketserver`. What is longer is cut there, and `truncated` says so. */
  maxPacketSize = 8192;
  /**
   * Datagrams that may wait to be handled: 1024 by default. Deno leaves them in the kernel's buffer, where the kernel drops what
   * doesn't fit and tells nobody; Bun and Node take them ahead, and one that comes beyond this number is dropped and counted in
   * `stats.dropped`.
   */
  override requestQueueSize: number = 1024;
  /** Lets several sockets bind the port and join a multicast group (SO_REUSEADDR): `false` by default. */
  override allowReuseAddress: boolean = false;
  /** Allows sending to a broadcast address (SO_BROADCAST): `false` by default. Deno always allows it. */
  broadcast = false;
  /**
   * The kernel's receive buffer in bytes (SO_RCVBUF), 1 to 2,147,483,647; the system cuts it at net.core.rmem_max. `null`, the default,
   * leaves it as it is. On Deno it takes `--allow-ffi`, else it is an `UnsupportedError`.
   */
  receiveBufferSize: number | null = null;
  /**
   * The kernel's send buffer in bytes (SO_SNDBUF), 1 to 2,147,483,647; the system cuts it at net.core.wmem_max. `null`, the default,
   * leaves it as it is. It bounds a Unix datagram's size and how many may wait at their receiver (unix(7)). On Deno as
   * `receiveBufferSize`.
   */
  sendBufferSize: number | null = null;
  /** The datagrams in progress at once, for a server that handles them concurrently: 1024 by default. */
  override maxActiveRequests: number = 1024;

  /** Reading the clock costs a tenth of what a small datagram costs on some runtimes. */
  protected override readonly timedOneIn: number = 16;

  #raw: RawDatagramSocket | null = null;
  #socket: DatagramSocket | null = null;
  #truncated = 0;
  #dropped = 0;
  #bytesRead = 0;
  /** What the sockets before this one have sent. */
  #sent = { datagrams: 0, bytes: 0 };
  // Made once: it is needed for every datagram.
  #toRequest = (received: RawDatagram | null): Taken<R> => {
    if (received === null) return null;
    if (received.truncated) this.#truncated++;
    this.#bytesRead += received.data.length;
    return [new Datagram(received, this.#socket!) as R, received.address];
  };
  #handle = (received: RawDatagram | null): Taken<R> | symbol => {
    const taken = this.#toRequest(received);
    return taken !== null && this.handleArrived(taken) ? HANDLED : null;
  };

  /**
   * Checks the arguments; nothing is bound yet.
   *
   * @param address Where to receive: `udp://host:port`, or `{ transport: "udp", hostname, port }`. Port 0 asks for a free one.
   * @param RequestHandlerClass The class whose instances handle the requests.
   * @param options Values for the server's fields; they win over what a subclass sets.
   * @throws {TypeError} When the address is none, or the handler no class with a `handle()` method.
   * @throws {RangeError} When the port is no integer from 0 to 65535.
   */
  constructor(address: string | Address, RequestHandlerClass: RequestHandlerClass<R>, options: UDPServerOptions = {}) {
    super(address, RequestHandlerClass, options);
  }

  /** The socket, while the server is bound: to send what is no reply, and to join multicast groups. */
  get socket(): DatagramSocket | null {
    return this.#raw === null ? null : this.#socket;
  }

  /** What the server has counted. */
  override get stats(): ServerStats {
    return {
      ...super.stats,
      truncated: this.#truncated,
      dropped: this.#dropped + (this.#raw?.dropped ?? 0),
      queued: this.#raw?.queued ?? 0,
      bytesRead: this.#bytesRead,
      bytesWritten: this.#sent.bytes + (this.#socket?.bytesSent ?? 0),
      datagramsSent: this.#sent.datagrams + (this.#socket?.datagramsSent ?? 0),
    };
  }

  /** Binds the address and puts the address bound into `serverAddress`. */
  override async serverBind(): Promise<void> {
    this.#raw = await this.runtime.bind(this.bindOptions());
    if (this.#socket !== null) {
      this.#sent.datagrams += this.#socket.datagramsSent;
      this.#sent.bytes += this.#socket.bytesSent;
    }
    this.#socket = new DatagramSocket(this.#raw);
    this.serverAddress = this.#raw.address;
  }

  /** Closes the socket, once the datagrams that it was given have left. */
  override async serverUnbind(): Promise<void> {
    const raw = this.#raw;
    if (raw === null) return;
    this.#raw = null;
    await raw.close();
    this.#dropped += raw.dropped;
  }

  /** Waits for the next datagram. */
  override getRequest(): Taken<R> | Promise<Taken<R>> {
    return this.#raw === null ? null : this.#raw.receive(this.#toRequest);
  }

  /** Where datagrams are handled concurrently, each is in the turn in which it arrives, without a promise. */
  protected override takeRequest(): Taken<R> | symbol | Promise<Taken<R> | symbol> {
    const direct = this.#raw !== null && this.handlesArrived && this.getRequest === UDPServer.prototype.getRequest;
    return direct ? this.#raw!.receive(this.#handle) : this.getRequest();
  }

  /** What the server speaks. */
  protected override get transport(): Transport {
    return "udp";
  }

  /** What is asked of the runtime. */
  protected bindOptions(): BindOptions {
    const { maxPacketSize, broadcast, receiveBufferSize, sendBufferSize } = this;
    return { ...this.socketOptions(), maxPacketSize, broadcast, receiveBufferSize, sendBufferSize };
  }

  /** Whether as many datagrams are in progress as may be. */
  protected override get full(): boolean {
    return this.activeRequests.size >= this.maxActiveRequests;
  }

  /** Checks the fields before anything is bound. */
  protected override checkSocket(): void {
    if (this.allow !== null || this.deny.length > 0) {
      throw new TypeError("allow and deny are for connections: override verifyRequest() to turn datagrams away");
    }
    if (this.fd !== null) throw new TypeError("fd is for listeners: a datagram socket can't be inherited");
    checkBindOptions(this.runtime, this.bindOptions());
  }

  /** Replies leave from the server's socket. */
  protected override get requestsShareSocket(): boolean {
    return true;
  }

  /** A datagram socket doesn't listen. */
  protected override stopListening(): void {}

  /** Datagrams that wait are nobody's yet. */
  protected override get waiting(): number {
    return 0;
  }

  /** Says whether the socket keeps the process running. */
  protected override keepRunning(on: boolean): void {
    if (on) this.#raw?.ref();
    else this.#raw?.unref();
  }

  /** Ends a waiting `getRequest()`. */
  protected override interrupt(): void {
    this.#raw?.interrupt();
  }

  /** A datagram can't be aborted: its handler has all of it. */
  protected override abortRequest(_request: R): void {}
}

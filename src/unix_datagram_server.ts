import type { Address, Transport } from "./address.ts";
import type { RequestHandlerClass } from "./base_server.ts";
import type { Datagram } from "./datagram.ts";
import type { SocketOptions } from "./runtime.ts";
import { UDPServer, type UDPServerOptions } from "./udp_server.ts";

/** Options of a {@linkcode UnixDatagramServer}. Each but `runtime` sets the server's field of the same name. */
export interface UnixDatagramServerOptions extends UDPServerOptions {
  /** See {@linkcode UnixDatagramServer.mode}. */
  mode?: number;
}

/**
 * A server for datagrams to a Unix socket that handles one at a time, as `socketserver.UnixDatagramServer` does. The kernel keeps their
 * order and their bounds, loses none, and makes a sender wait when too many are unread.
 *
 * Its file is treated as that of a {@linkcode UnixStreamServer}. A sender that has bound no name has `clientAddress` null, and there is
 * nobody to reply to.
 *
 * @typeParam R What a request is.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler, type Datagram, UnixDatagramServer } from "@sockets/server";
 *
 * class Logger extends BaseRequestHandler<Datagram> {
 *   override handle(): void {
 *     console.log(new TextDecoder().decode(this.request.data));
 *   }
 * }
 *
 * const server = new UnixDatagramServer("unixgram:/tmp/log.sock", Logger);
 * if (server.runtime.capabilities.unixDatagram === true) await server.activate();
 * await server.serverClose();
 * ```
 */
export class UnixDatagramServer<R = Datagram> extends UDPServer<R> {
  /** The permissions of the socket's file: `0o600` by default, see `UnixStreamServer.mode`. */
  mode = 0o600;
  /** Replaces a socket's file that nobody has open any more: `true` by default. Without it, any file in the way is `EADDRINUSE`. */
  override allowReuseAddress: boolean = true;

  /**
   * Checks the arguments; nothing is bound yet.
   *
   * @param address Where to receive: `unixgram:/path`, or `{ transport: "unixgram", path }`; on Linux, `\0name` is an abstract name.
   * @param RequestHandlerClass The class whose instances handle the requests.
   * @param options Values for the server's fields; they win over what a subclass sets.
   * @throws {TypeError} When the address is none, or the handler no class with a `handle()` method.
   */
  constructor(
    address: string | Address,
    RequestHandlerClass: RequestHandlerClass<R>,
    options: UnixDatagramServerOptions = {},
  ) {
    super(address, RequestHandlerClass, options);
  }

  /** What the server speaks. */
  protected override get transport(): Transport {
    return "unixgram";
  }

  /** What is asked of the runtime. */
  protected override socketOptions(): SocketOptions {
    return { ...super.socketOptions(), mode: this.mode };
  }
}

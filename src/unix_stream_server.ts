import type { Address, Transport } from "./address.ts";
import type { RequestHandlerClass } from "./base_server.ts";
import type { Connection } from "./connection.ts";
import type { SocketOptions } from "./runtime.ts";
import { TCPServer, type TCPServerOptions } from "./tcp_server.ts";

/** Options of a {@linkcode UnixStreamServer}. Each but `runtime` sets the server's field of the same name. */
export interface UnixStreamServerOptions extends TCPServerOptions {
  /** See {@linkcode UnixStreamServer.mode}. */
  mode?: number;
}

/**
 * A server for connections to a Unix socket that handles one request at a time, as `socketserver.UnixStreamServer` does.
 *
 * The socket's file is made by `activate()` and removed by `serverClose()`. One that a killed server has left behind is replaced; one
 * that is in use, and any other kind of file, is `EADDRINUSE`. A client that has bound no name of its own has `clientAddress` null.
 *
 * @typeParam R What a request is.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler, UnixStreamServer } from "@sockets/server";
 *
 * class Daytime extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     await this.request.write(new Date().toISOString() + "\n");
 *   }
 * }
 *
 * const server = new UnixStreamServer("unix:/tmp/daytime.sock", Daytime, { mode: 0o660 });
 * await server.activate();
 * await server.serverClose();
 * ```
 */
export class UnixStreamServer<R = Connection> extends TCPServer<R> {
  /**
   * The permissions of the socket's file: `0o600` by default, which lets in nobody but the server's own user, since on most systems
   * who may write to the file may connect. `0o660` lets in its group, `0o666` everybody.
   */
  mode = 0o600;
  /** Replaces a socket's file that nobody has open any more: `true` by default. Without it, any file in the way is `EADDRINUSE`. */
  override allowReuseAddress: boolean = true;
  /** `Infinity` by default: a peer on this machine can't vanish without a word. See {@linkcode ConnectionLimits.idleTimeout}. */
  override idleTimeout: number = Infinity;

  /**
   * Checks the arguments; nothing is bound yet.
   *
   * @param address Where to listen: `unix:/path`, or `{ transport: "unix", path }`. On Linux, a path that begins with `\0` is an
   * abstract name, which has no file and no permissions: everybody on the machine may connect.
   * @param RequestHandlerClass The class whose instances handle the requests.
   * @param options Values for the server's fields; they win over what a subclass sets.
   * @throws {TypeError} When the address is none, or the handler no class with a `handle()` method.
   */
  constructor(
    address: string | Address,
    RequestHandlerClass: RequestHandlerClass<R>,
    options: UnixStreamServerOptions = {},
  ) {
    super(address, RequestHandlerClass, options);
  }

  /** What the server speaks. */
  protected override get transport(): Transport {
    return "unix";
  }

  /** What is asked of the runtime. */
  protected override socketOptions(): SocketOptions {
    return { ...super.socketOptions(), mode: this.mode };
  }
}

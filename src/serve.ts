import { type Address, toAddress, type Transport } from "./address.ts";
import { AsyncTCPServer, AsyncUDPServer, AsyncUnixDatagramServer, AsyncUnixStreamServer } from "./async_servers.ts";
import { BaseRequestHandler } from "./base_request_handler.ts";
import type { BaseServer, RequestHandlerClass } from "./base_server.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { checkSignal } from "./options.ts";
import type { UnixDatagramServerOptions } from "./unix_datagram_server.ts";
import type { UnixStreamServerOptions } from "./unix_stream_server.ts";

/** What {@linkcode serve} itself takes, beside the options of the server. */
export interface ServeSignal {
  /** Closes the server when it fires. */
  signal?: AbortSignal;
}

/** Options of {@linkcode serve} for connections: those of the server, and `signal`. */
export interface ServeOptions extends UnixStreamServerOptions, ServeSignal {}

/** Options of {@linkcode serve} for datagrams: those of the server, and `signal`. */
export interface ServeDatagramOptions extends UnixDatagramServerOptions, ServeSignal {}

/** An address of datagrams, as text that shows it or as an object. */
export type DatagramAddress = `udp://${string}` | `unixgram:${string}` | (Address & { readonly transport: "udp" | "unixgram" });

type Server = new (address: Address, Handler: RequestHandlerClass<never>, options: object) => BaseServer<never>;
const SERVERS = {
  tcp: AsyncTCPServer,
  udp: AsyncUDPServer,
  unix: AsyncUnixStreamServer,
  unixgram: AsyncUnixDatagramServer,
} as unknown as Record<Transport, Server>;

/**
 * Serves datagrams with a plain function, concurrently on the event loop.
 *
 * @param address Where to receive: `udp://host:port` or `unixgram:/path`. Port 0 asks for a free one.
 * @param handler Called with each datagram.
 * @param options The server's options, and `signal` to close it.
 * @returns The running server; `serverAddress` says where, `serverClose()` ends it.
 * @throws {TypeError} When the address is none, the handler no function, or `signal` no `AbortSignal`.
 * @throws {SocketError} When the address can't be bound.
 *
 * @example
 * ```ts
 * import { serve } from "@sockets/server";
 *
 * const server = await serve("udp://127.0.0.1:0", (datagram) => datagram.reply(datagram.data));
 * await server.serverClose();
 * ```
 */
export function serve(
  address: DatagramAddress,
  handler: (datagram: Datagram) => void | Promise<void>,
  options?: ServeDatagramOptions,
): Promise<AsyncUDPServer>;
/**
 * Serves connections with a plain function, concurrently on the event loop.
 *
 * @param address Where to listen: `tcp://host:port` or `unix:/path`. Port 0 asks for a free one.
 * @param handler Called with each connection, which is closed when it is done.
 * @param options The server's options, and `signal` to close it.
 * @returns The running server; `serverAddress` says where, `serverClose()` ends it.
 * @throws {TypeError} When the address is none, the handler no function, or `signal` no `AbortSignal`.
 * @throws {SocketError} When the address can't be bound.
 *
 * @example
 * ```ts
 * import { serve } from "@sockets/server";
 *
 * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
 *   for await (const chunk of conn) await conn.write(chunk);
 * });
 * console.log(server.serverAddress);
 * await server.serverClose();
 * ```
 */
export function serve(
  address: string | Address,
  handler: (connection: Connection) => void | Promise<void>,
  options?: ServeOptions,
): Promise<AsyncTCPServer>;
export async function serve(
  address: string | Address,
  // deno-lint-ignore no-explicit-any
  handler: (request: any) => void | Promise<void>,
  options: ServeSignal = {},
  // deno-lint-ignore no-explicit-any
): Promise<any> {
  if (typeof handler !== "function") throw new TypeError(`handler must be a function, got ${String(handler)}`);
  const { signal, ...serverOptions } = options;
  checkSignal("serve()", signal);
  signal?.throwIfAborted();
  class FunctionHandler extends BaseRequestHandler<never> {
    override handle(): void | Promise<void> {
      return handler(this.request);
    }
  }
  const to = toAddress(address);
  const server = new SERVERS[to.transport](to, FunctionHandler, serverOptions);
  await server.activate();
  // A failure here is one that the program asked for, a SystemExit or a throwing handleError: it is not swallowed.
  void server.serveForever();
  signal?.addEventListener("abort", () => void server.serverClose(), { once: true });
  return server;
}

import type { InetAddress } from "./address.ts";
import { AsyncTCPServer } from "./async_servers.ts";
import { BaseRequestHandler } from "./base_request_handler.ts";
import type { Connection } from "./connection.ts";
import type { TCPServerOptions } from "./tcp_server.ts";

/** Options of {@linkcode serve}: those of the server, and `signal`. */
export interface ServeOptions extends TCPServerOptions {
  /** Closes the server when it fires. */
  signal?: AbortSignal;
}

/**
 * Serves an address with a plain function, concurrently on the event loop.
 *
 * @param address Where to listen: `tcp://host:port`. Port 0 asks for a free one.
 * @param handler Called with each connection, which is closed when it is done.
 * @param options The server's options, and `signal` to close it.
 * @returns The running server; `serverAddress` says where, `serverClose()` ends it.
 * @throws {TypeError} When the address is none or the handler no function.
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
export async function serve(
  address: string | InetAddress,
  handler: (connection: Connection) => void | Promise<void>,
  options: ServeOptions = {},
): Promise<AsyncTCPServer> {
  if (typeof handler !== "function") throw new TypeError(`handler must be a function, got ${String(handler)}`);
  const { signal, ...serverOptions } = options;
  signal?.throwIfAborted();
  class FunctionHandler extends BaseRequestHandler {
    override handle(): void | Promise<void> {
      return handler(this.request);
    }
  }
  const server = new AsyncTCPServer(address, FunctionHandler, serverOptions);
  await server.activate();
  // A failure here is one that the program asked for, a SystemExit or a throwing handleError: it is not swallowed.
  void server.serveForever();
  signal?.addEventListener("abort", () => void server.serverClose(), { once: true });
  return server;
}

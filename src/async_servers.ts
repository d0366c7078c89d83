import { AsyncMixIn } from "./async_mixin.ts";
import type { Connection } from "./connection.ts";
import { TCPServer } from "./tcp_server.ts";

/**
 * A server for TCP connections that handles them concurrently on the event loop: `AsyncMixIn(TCPServer)`.
 *
 * @example
 * ```ts
 * import { AsyncTCPServer, StreamRequestHandler } from "@sockets/server";
 *
 * class EchoHandler extends StreamRequestHandler {
 *   override async handle(): Promise<void> {
 *     for await (const line of this.rfile) await this.wfile.write(line + "\n");
 *   }
 * }
 *
 * const server = new AsyncTCPServer("tcp://127.0.0.1:0", EchoHandler);
 * await server.activate();
 * await server.serverClose();
 * ```
 */
export const AsyncTCPServer: typeof TCPServer = AsyncMixIn(TCPServer);

/** An instance of the class {@linkcode AsyncTCPServer}. */
export type AsyncTCPServer<R = Connection> = TCPServer<R>;

/**
 * Tests of handlers without sockets: a runtime in memory, with the promises of the real ones.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler, TCPServer } from "@sockets/server";
 * import { connectTo, memory } from "@sockets/server/testing";
 *
 * class Greeter extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     await this.request.write("hello\n");
 *   }
 * }
 *
 * const server = new TCPServer("tcp://127.0.0.1:0", Greeter, { runtime: memory });
 * await server.activate();
 * const handled = server.handleRequest();
 * const client = await connectTo(server);
 * console.log(new TextDecoder().decode(await client.read() ?? undefined)); // hello
 * await handled;
 * await server.serverClose();
 * ```
 *
 * @module
 */
import type { BaseServer } from "./src/base_server.ts";
import { connect } from "./src/connect.ts";
import type { Connection } from "./src/connection.ts";

export { memory } from "./runtimes/memory.ts";

/**
 * Connects a client to a server in the same process, through whichever runtime the server uses.
 *
 * @param server A server that has been activated.
 * @returns The client's end of the connection.
 * @throws {SocketError} When the server is not listening (`ECONNREFUSED`).
 *
 * @example
 * ```ts
 * import { serve } from "@sockets/server";
 * import { connectTo, memory } from "@sockets/server/testing";
 *
 * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.write("hello\n"), { runtime: memory });
 * const client = await connectTo(server);
 * await client.read();
 * await client.close();
 * await server.serverClose();
 * ```
 */
// deno-lint-ignore no-explicit-any
export function connectTo(server: BaseServer<any>): Promise<Connection> {
  return connect(server.serverAddress, { runtime: server.runtime });
}

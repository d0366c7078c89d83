import { type Address, formatAddress, toAddress } from "./address.ts";
import { Connection } from "./connection.ts";
import { getRuntime, type Runtime } from "./runtime.ts";
import { checkPath } from "./socket_options.ts";

/** Options of {@linkcode connect}. */
export interface ConnectionOptions {
  /** The sockets to use: the running runtime's by default. */
  runtime?: Runtime;
  /** Sends small writes at once (TCP_NODELAY): `true` by default. */
  noDelay?: boolean;
}

/**
 * Connects to a server: the client's end of the same {@linkcode Connection} that handlers have.
 *
 * @param address The server's address: `tcp://host:port` or `unix:/path`.
 * @param options Options of the connection.
 * @returns The connection.
 * @throws {TypeError} When the address is none.
 * @throws {RangeError} When the port is no integer from 0 to 65535.
 * @throws {SocketError} When nobody listens there (`ECONNREFUSED`; `ENOENT` when there is no such file), or the host is unknown (`ENOTFOUND`) or unreachable.
 *
 * @example
 * ```ts
 * import { connect, serve } from "@sockets/server";
 *
 * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
 *   await conn.write("hello\n");
 * });
 * const conn = await connect(server.serverAddress);
 * for await (const chunk of conn) console.log(new TextDecoder().decode(chunk));
 * await conn.close();
 * await server.serverClose();
 * ```
 */
export async function connect(address: string | Address, options: ConnectionOptions = {}): Promise<Connection> {
  const to = toAddress(address);
  if (to.transport !== "tcp" && to.transport !== "unix") {
    throw new TypeError(`connect() takes a tcp or unix address, got ${formatAddress(to)}; bind() sends datagrams`);
  }
  const runtime = options.runtime ?? getRuntime();
  checkPath(runtime, to);
  return new Connection(await runtime.connect({ address: to, noDelay: options.noDelay ?? true }));
}

import { type Address, formatAddress, toAddress } from "./address.ts";
import { Connection } from "./connection.ts";
import { getRuntime, type Runtime } from "./runtime.ts";
import { checkPath } from "./socket_options.ts";
import { clientSettings, handshake, handshakeTimeout, type TlsConnectOptions, tlsContext } from "./tls.ts";

/** Options of {@linkcode connect}. */
export interface ConnectionOptions {
  /** The sockets to use: the running runtime's by default. */
  runtime?: Runtime;
  /** Sends small writes at once (TCP_NODELAY): `true` by default. */
  noDelay?: boolean;
  /** Secures the connection by TLS; `true` stands for `{}`. A `tls://` address does that by itself. */
  tls?: boolean | TlsConnectOptions;
}

/**
 * Connects to a server: the client's end of the same {@linkcode Connection} that handlers have.
 *
 * @param address The server's address: `tcp://host:port`, `tls://host:port` or `unix:/path`.
 * @param options Options of the connection.
 * @returns The connection.
 * @throws {TypeError} When the address is none.
 * @throws {RangeError} When the port is no integer from 0 to 65535.
 * @throws {SocketError} When nobody listens there (`ECONNREFUSED`; `ENOENT` when there is no such file), or the host is unknown (`ENOTFOUND`) or unreachable.
 * With TLS, when the handshake fails: `EPROTO`, also when nobody vouches for the server, `ETIMEDOUT`, `ECONNRESET`.
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
  const hostname = "hostname" in to ? to.hostname : null;
  const { tls = "hostname" in to && to.tls === true } = options;
  const secured = tls === true ? {} : tls;
  const context = secured === false ? null : await tlsContext(runtime, clientSettings(secured, hostname));
  const raw = await runtime.connect({ address: to, noDelay: options.noDelay ?? true });
  if (context === null) return new Connection(raw, null, null, hostname);
  return new Connection(await handshake(context, raw, handshakeTimeout(secured as TlsConnectOptions)), null, null, hostname);
}

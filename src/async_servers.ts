import { AsyncMixIn } from "./async_mixin.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { TCPServer } from "./tcp_server.ts";
import { UDPServer } from "./udp_server.ts";
import { UnixDatagramServer } from "./unix_datagram_server.ts";
import { UnixStreamServer } from "./unix_stream_server.ts";

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

/**
 * A server for UDP datagrams that handles them concurrently on the event loop: `AsyncMixIn(UDPServer)`.
 *
 * @example
 * ```ts
 * import { AsyncUDPServer, BaseRequestHandler, type Datagram } from "@sockets/server";
 *
 * class EchoHandler extends BaseRequestHandler<Datagram> {
 *   override async handle(): Promise<void> {
 *     await this.request.reply(this.request.data);
 *   }
 * }
 *
 * const server = new AsyncUDPServer("udp://127.0.0.1:0", EchoHandler);
 * await server.activate();
 * await server.serverClose();
 * ```
 */
export const AsyncUDPServer: typeof UDPServer = AsyncMixIn(UDPServer);

/** An instance of the class {@linkcode AsyncUDPServer}. */
export type AsyncUDPServer<R = Datagram> = UDPServer<R>;

/**
 * A server for connections to a Unix socket that handles them concurrently on the event loop: `AsyncMixIn(UnixStreamServer)`.
 *
 * @example
 * ```ts
 * import { AsyncUnixStreamServer, BaseRequestHandler } from "@sockets/server";
 *
 * class EchoHandler extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     for await (const chunk of this.request) await this.request.write(chunk);
 *   }
 * }
 *
 * const server = new AsyncUnixStreamServer("unix:/tmp/echo.sock", EchoHandler);
 * await server.activate();
 * await server.serverClose();
 * ```
 */
export const AsyncUnixStreamServer: typeof UnixStreamServer = AsyncMixIn(UnixStreamServer);

/** An instance of the class {@linkcode AsyncUnixStreamServer}. */
export type AsyncUnixStreamServer<R = Connection> = UnixStreamServer<R>;

/**
 * A server for Unix datagrams that handles them concurrently on the event loop: `AsyncMixIn(UnixDatagramServer)`.
 *
 * @example
 * ```ts
 * import { AsyncUnixDatagramServer, BaseRequestHandler, type Datagram } from "@sockets/server";
 *
 * class EchoHandler extends BaseRequestHandler<Datagram> {
 *   override async handle(): Promise<void> {
 *     await this.request.reply(this.request.data);
 *   }
 * }
 *
 * const server = new AsyncUnixDatagramServer("unixgram:/tmp/echo.dgram", EchoHandler);
 * if (server.runtime.capabilities.unixDatagram === true) await server.activate();
 * await server.serverClose();
 * ```
 */
export const AsyncUnixDatagramServer: typeof UnixDatagramServer = AsyncMixIn(UnixDatagramServer);

/** An instance of the class {@linkcode AsyncUnixDatagramServer}. */
export type AsyncUnixDatagramServer<R = Datagram> = UnixDatagramServer<R>;

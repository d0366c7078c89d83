import { type ThreadingFields, ThreadingMixIn, type ThreadingServerClass } from "./threading_mixin.ts";
import { TCPServer } from "./tcp_server.ts";
import { UDPServer } from "./udp_server.ts";
import { UnixStreamServer } from "./unix_stream_server.ts";
import { UnixDatagramServer } from "./unix_datagram_server.ts";

/**
 * A server for TCP connections that handles them in worker threads: `ThreadingMixIn(TCPServer)`.
 *
 * @example
 * ```ts
 * import { ThreadingTCPServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ThreadingTCPServer("tcp://127.0.0.1:0", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ThreadingTCPServer: ThreadingServerClass<typeof TCPServer> = ThreadingMixIn(TCPServer);

/** An instance of the class {@linkcode ThreadingTCPServer}. */
export type ThreadingTCPServer = TCPServer & ThreadingFields;

/**
 * A server for UDP datagrams that handles them in worker threads: `ThreadingMixIn(UDPServer)`.
 *
 * @example
 * ```ts
 * import { ThreadingUDPServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ThreadingUDPServer("udp://127.0.0.1:0", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ThreadingUDPServer: ThreadingServerClass<typeof UDPServer> = ThreadingMixIn(UDPServer);

/** An instance of the class {@linkcode ThreadingUDPServer}. */
export type ThreadingUDPServer = UDPServer & ThreadingFields;

/**
 * A server for connections to a Unix socket that handles them in worker threads: `ThreadingMixIn(UnixStreamServer)`.
 *
 * @example
 * ```ts
 * import { ThreadingUnixStreamServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ThreadingUnixStreamServer("unix:/tmp/work.sock", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ThreadingUnixStreamServer: ThreadingServerClass<typeof UnixStreamServer> = ThreadingMixIn(UnixStreamServer);

/** An instance of the class {@linkcode ThreadingUnixStreamServer}. */
export type ThreadingUnixStreamServer = UnixStreamServer & ThreadingFields;

/**
 * A server for Unix datagrams that handles them in worker threads: `ThreadingMixIn(UnixDatagramServer)`.
 *
 * @example
 * ```ts
 * import { ThreadingUnixDatagramServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ThreadingUnixDatagramServer("unixgram:/tmp/work.dgram", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ThreadingUnixDatagramServer: ThreadingServerClass<typeof UnixDatagramServer> = ThreadingMixIn(UnixDatagramServer);

/** An instance of the class {@linkcode ThreadingUnixDatagramServer}. */
export type ThreadingUnixDatagramServer = UnixDatagramServer & ThreadingFields;

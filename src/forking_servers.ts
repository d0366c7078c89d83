import { type ForkingFields, ForkingMixIn, type ForkingServerClass } from "./forking_mixin.ts";
import { TCPServer } from "./tcp_server.ts";
import { UDPServer } from "./udp_server.ts";
import { UnixStreamServer } from "./unix_stream_server.ts";
import { UnixDatagramServer } from "./unix_datagram_server.ts";

/**
 * A server for TCP connections that handles them in child processes: `ForkingMixIn(TCPServer)`.
 *
 * @example
 * ```ts
 * import { ForkingTCPServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ForkingTCPServer("tcp://127.0.0.1:0", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ForkingTCPServer: ForkingServerClass<typeof TCPServer> = ForkingMixIn(TCPServer);

/** An instance of the class {@linkcode ForkingTCPServer}. */
export type ForkingTCPServer = TCPServer & ForkingFields;

/**
 * A server for UDP datagrams that handles them in child processes: `ForkingMixIn(UDPServer)`.
 *
 * @example
 * ```ts
 * import { ForkingUDPServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ForkingUDPServer("udp://127.0.0.1:0", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ForkingUDPServer: ForkingServerClass<typeof UDPServer> = ForkingMixIn(UDPServer);

/** An instance of the class {@linkcode ForkingUDPServer}. */
export type ForkingUDPServer = UDPServer & ForkingFields;

/**
 * A server for connections to a Unix socket that handles them in child processes: `ForkingMixIn(UnixStreamServer)`.
 *
 * @example
 * ```ts
 * import { ForkingUnixStreamServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ForkingUnixStreamServer("unix:/tmp/work.sock", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ForkingUnixStreamServer: ForkingServerClass<typeof UnixStreamServer> = ForkingMixIn(UnixStreamServer);

/** An instance of the class {@linkcode ForkingUnixStreamServer}. */
export type ForkingUnixStreamServer = UnixStreamServer & ForkingFields;

/**
 * A server for Unix datagrams that handles them in child processes: `ForkingMixIn(UnixDatagramServer)`.
 *
 * @example
 * ```ts
 * import { ForkingUnixDatagramServer } from "@sockets/server";
 *
 * // handler.ts exports the handler class as `default`.
 * const server = new ForkingUnixDatagramServer("unixgram:/tmp/work.dgram", new URL("./handler.ts", import.meta.url));
 * await server.serverClose();
 * ```
 */
export const ForkingUnixDatagramServer: ForkingServerClass<typeof UnixDatagramServer> = ForkingMixIn(UnixDatagramServer);

/** An instance of the class {@linkcode ForkingUnixDatagramServer}. */
export type ForkingUnixDatagramServer = UnixDatagramServer & ForkingFields;

/**
 * A socket server framework for Deno, Bun and Node: the servers, request handlers and mix-ins of Python's `socketserver`.
 *
 * Three steps make a service: derive a handler class and override `handle()`; make a server of it and an address; call
 * `serveForever()`.
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
 * const serving = server.serveForever();
 * await server.shutdown();
 * await serving;
 * await server.serverClose();
 * ```
 *
 * @module
 */
import { detectRuntime } from "./runtimes/detect.ts";
import { setRuntime } from "./src/runtime.ts";

setRuntime(detectRuntime());

export { type Address, type AddressFamily, formatAddress, type InetAddress, parseAddress } from "./src/address.ts";
export type { Transport, UnixAddress } from "./src/address.ts";
export { AsyncMixIn, type ServerClass } from "./src/async_mixin.ts";
export { AsyncTCPServer, AsyncUDPServer, AsyncUnixDatagramServer, AsyncUnixStreamServer } from "./src/async_servers.ts";
export { BaseRequestHandler } from "./src/base_request_handler.ts";
export { BaseServer } from "./src/base_server.ts";
export type { ActiveRequest, RequestHandlerClass, ServerOptions, ShutdownOptions, Taken } from "./src/base_server.ts";
export { bind, type DatagramSocketOptions } from "./src/bind.ts";
export { connect, type ConnectionOptions } from "./src/connect.ts";
export type {
  ConnectionEvent,
  EndedEvent,
  ErrorEvent,
  RefusedEvent,
  ServerEvent,
  ServerEvents,
  WorkerEvent,
  WorkerExitEvent,
} from "./src/channels.ts";
export { type CloseOptions, Connection } from "./src/connection.ts";
export { Datagram } from "./src/datagram.ts";
export { DatagramRequestHandler } from "./src/datagram_request_handler.ts";
export { DatagramSocket } from "./src/datagram_socket.ts";
export type { EndCounts, EndReason } from "./src/end_reason.ts";
export { IncompleteReadError, LimitOverrunError, SocketError, SystemExit, UnsupportedError } from "./src/errors.ts";
export type { SocketErrorOptions } from "./src/errors.ts";
export type { Replica, ReplicaState } from "./src/replica.ts";
export { Replicas, type ReplicaServer, type ReplicaServerOptions, type ReplicasOptions } from "./src/replicas.ts";
export type { WorkerKind } from "./src/worker.ts";
export { Histogram, type HistogramBucket } from "./src/histogram.ts";
export type { ConnectionLimits, HandlerLimits } from "./src/limits.ts";
export { getRuntime } from "./src/runtime.ts";
export type { ChildProcess, ProcessOptions, Thread, ThreadOptions, WorkerStart } from "./src/runtime.ts";
export type { ThreadLife } from "./src/thread_life.ts";
export type {
  Capabilities,
  Channel,
  ConnectOptions,
  Listener,
  ListenOptions,
  RawConnection,
  Receiver,
  Runtime,
} from "./src/runtime.ts";
export type { TlsContext, TlsSettings } from "./src/runtime.ts";
export type { BindOptions, RawDatagram, RawDatagramSocket, Signal, SocketOptions } from "./src/runtime.ts";
export { type DatagramAddress, serve, type ServeDatagramOptions, type ServeOptions, type ServeSignal } from "./src/serve.ts";
export { handleSignals, type SignalOptions, type Stoppable } from "./src/signals.ts";
export type { ServerStats } from "./src/stats.ts";
export { type BufferedReader, type ByteSource, type LimitOptions, StreamReader } from "./src/stream_reader.ts";
export { type ByteSink, StreamWriter } from "./src/stream_writer.ts";
export { StreamRequestHandler } from "./src/stream_request_handler.ts";
export type { ProxyHeader, ProxySsl, ProxyTlvs } from "./src/proxy_protocol.ts";
export { type InheritedDescriptor, listenFds, notify, type ServiceState, type SystemdOptions, watchdog } from "./src/systemd.ts";
export { TCPServer, type TCPServerOptions } from "./src/tcp_server.ts";
export type {
  PeerCertificate,
  StartTlsOptions,
  TlsCertificate,
  TlsConnectOptions,
  TlsInfo,
  TlsOptions,
  TlsVersion,
} from "./src/tls.ts";
export { UDPServer, type UDPServerOptions } from "./src/udp_server.ts";
export { UnixDatagramServer, type UnixDatagramServerOptions } from "./src/unix_datagram_server.ts";
export { UnixStreamServer, type UnixStreamServerOptions } from "./src/unix_stream_server.ts";
export { type ThreadingFields, ThreadingMixIn, type ThreadingOptions, type ThreadingServerClass } from "./src/threading_mixin.ts";
export { type ForkingFields, ForkingMixIn, type ForkingOptions, type ForkingServerClass } from "./src/forking_mixin.ts";
export { ForkingTCPServer, ForkingUDPServer, ForkingUnixDatagramServer, ForkingUnixStreamServer } from "./src/forking_servers.ts";
export {
  ThreadingTCPServer,
  ThreadingUDPServer,
  ThreadingUnixDatagramServer,
  ThreadingUnixStreamServer,
} from "./src/threading_servers.ts";
export { Lock, type LockOptions, Mutex } from "./src/mutex.ts";

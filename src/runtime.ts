/**
 * The seam between the core and the runtimes: what every adapter in `runtimes/` implements, and all that the core knows of them.
 *
 * @module
 */
import type { Address, AddressFamily } from "./address.ts";
import type { SocketError } from "./errors.ts";
import type { HandlerLimits } from "./limits.ts";
import type { ThreadLife } from "./thread_life.ts";
import type { TlsCertificate, TlsInfo, TlsVersion } from "./tls.ts";

/** What a runtime, in this version and on this operating system, can do. The core reads it and never guesses. */
export interface Capabilities {
  /** `abort()` reaches a TCP peer as a reset; without it the peer sees an ordinary end of the stream. */
  readonly reset: boolean;
  /** Several listeners can share a TCP port (SO_REUSEPORT). `true`, or what would make it work. */
  readonly reusePort: true | string;
  /** Datagrams are spread over the sockets that share a UDP port (SO_REUSEPORT). `true`, or what would make it work. */
  readonly reusePortUdp: true | string;
  /** An IPv6 listener can be kept from taking IPv4 connections as well (IPV6_V6ONLY). `true`, or what would make it work. */
  readonly ipv6Only: true | string;
  /** The idle time before the first keep-alive probe can be set (TCP_KEEPIDLE). `true`, or what would make it work. */
  readonly keepAliveDelay: true | string;
  /** The kernel's buffers of a datagram socket can be set (SO_RCVBUF, SO_SNDBUF). `true`, or what would make it work. */
  readonly bufferSizes: true | string;
  /** There are Unix datagram sockets. `true`, or what would make it work. */
  readonly unixDatagram: true | string;
  /** Unix sockets can have abstract names, `\0name`. `true`, or what would make it work. */
  readonly abstractNames: true | string;
  /** Connections can be secured by TLS. `true`, or what would make it work. */
  readonly tls: true | string;
  /** `tls.sni` can have keys of another kind (EC, RSA) than `tls.key`. `true`, or what would make it work. */
  readonly tlsKeyKinds: true | string;
  /**
   * An end of the stream that TLS vouches for (close_notify) is told from one that anybody on the way could have made; without it
   * both look like an ordinary end. `true`, or what would make it work.
   */
  readonly tlsTruncation: true | string;
  /** Handlers and servers can run in threads. `true`, or what would make it work. */
  readonly threads: true | string;
  /** Handlers and servers can run in child processes. `true`, or what would make it work. */
  readonly processes: true | string;
  /** Threads that can run at the same time. */
  readonly cores: number;
  /** A thread whose objects need too much memory ends alone, and not the process with it. `true`, or what would make it work. */
  readonly threadMemory: true | string;
  /** The longest path of a Unix socket, in bytes (`sun_path` less its terminating NUL). */
  readonly socketPathLength: number;
}

/** What listeners and datagram sockets have in common. The names are those of the servers' fields. */
export interface SocketOptions {
  /** The address; port 0 asks for a free one. */
  readonly address: Address;
  /** Resolves a host name to an address of this family only; `null` takes what the system prefers. */
  readonly addressFamily: AddressFamily | null;
  /** Connections or datagrams that may wait to be taken. */
  readonly requestQueueSize: number;
  /** Replaces a Unix socket's file that nobody has open any more; lets UDP sockets share a port (SO_REUSEADDR). */
  readonly allowReuseAddress: boolean;
  /** Lets other sockets share the port (SO_REUSEPORT). */
  readonly allowReusePort: boolean;
  /** Keeps an IPv6 socket from taking IPv4 as well (IPV6_V6ONLY). */
  readonly ipv6Only: boolean;
  /** The permissions of a Unix socket's file. */
  readonly mode: number;
}

/** What to listen on, and how. */
export interface ListenOptions extends SocketOptions {
  /** Sends small writes at once (TCP_NODELAY) on accepted connections. */
  readonly noDelay: boolean;
  /** Probes idle accepted connections; a number is the idle time before the first probe, in milliseconds. */
  readonly keepAlive: boolean | number;
  /** An inherited descriptor to listen on in place of binding the address; `null` binds it. */
  readonly fd: number | null;
}

/** Where to exchange datagrams, and how. */
export interface BindOptions extends SocketOptions {
  /** Bytes kept of a datagram; what is longer is cut there. */
  readonly maxPacketSize: number;
  /** Allows sending to a broadcast address (SO_BROADCAST). */
  readonly broadcast: boolean;
  /** The kernel's receive buffer in bytes (SO_RCVBUF); `null` leaves it as it is. */
  readonly receiveBufferSize: number | null;
  /** The kernel's send buffer in bytes (SO_SNDBUF); `null` leaves it as it is. */
  readonly sendBufferSize: number | null;
}

/** Whom to connect to. */
export interface ConnectOptions {
  /** The listener's address. */
  readonly address: Address;
  /** Sends small writes at once (TCP_NODELAY). */
  readonly noDelay: boolean;
  /** Gives up when it fires: frees the socket, and rejects with anything. A connection that comes all the same is the caller's to abort. */
  readonly signal: AbortSignal;
}

/** A socket that accepts connections. */
export interface Listener {
  /** The address it is bound to, with the real port. */
  readonly address: Address;
  /** Connections that were refused because `requestQueueSize` others were waiting already; where the kernel keeps the queue, 0. */
  readonly refused: number;
  /** Connections that wait for `accept()`; where the kernel keeps the queue, 0. */
  readonly queued: number;
  /**
   * What `as` makes of the next connection, or of `null` when {@linkcode Listener.interrupt} or {@linkcode Listener.close} ends the wait.
   * At most one call waits at a time. Without a promise when one is waiting already.
   */
  accept<T>(as: (connection: RawConnection | null) => T): T | Promise<T>;
  /** Ends a waiting `accept()` with `null`. Connections that come meanwhile wait for the next `accept()`. */
  interrupt(): void;
  /** Stops listening; connections that wait already, those in the kernel's queue included, can still be accepted. */
  stop(): Promise<void>;
  /** Stops listening, aborts the connections that nobody accepted, and resolves once the address is free. */
  close(): Promise<void>;
  /** Leaves the process free to exit while it listens, until `ref()`. */
  unref(): void;
  /** Keeps the process running while it listens, as it does from the beginning. */
  ref(): void;
}

/** Who waits for the next chunk of a stream. */
export interface Receiver {
  /** The next chunk, which the receiver owns, or `null` at the end of the stream. */
  received(chunk: Uint8Array | null): void;
  /** There will be none: the connection was lost, or closed here. */
  failed(error: unknown): void;
}

/** A connection as an adapter hands it over. The core wraps it in a `Connection`. */
export interface RawConnection {
  /** This side's address. */
  readonly localAddress: Address;
  /** The peer's address. */
  readonly remoteAddress: Address;
  /** What the TLS handshake has agreed on, `null` without TLS. */
  readonly tls: TlsInfo | null;
  /** Called once, when the connection is gone in both directions: with the reason when it was lost, `null` when it ended in order. */
  onclose: ((error: SocketError | null) => void) | null;
  /** Bytes received so far. */
  readonly bytesRead: number;
  /** Bytes sent so far: of those written, the ones that the system has taken. It grows whenever the system takes some. */
  readonly bytesWritten: number;
  /** Bytes written that the system has not taken yet. */
  readonly unsent: number;
  /** Whether a receiver is waiting. */
  readonly reading: boolean;
  /** Whether the peer is known to have ended its sending side. */
  readonly readEnded: boolean;
  /**
   * The next chunk, which the caller owns, or `null` at the end of the stream, if it is there already; `undefined` when `receiver` will be
   * told, later and once. At most one waits at a time. Not a promise: of those a program needs none when it acts on each chunk at once.
   *
   * Where that saves something, the chunk is put into `into`, if there is one and it fits, and is a view of it then.
   *
   * @throws {SocketError} When the connection is lost or was closed here.
   * @throws {TypeError} When another waits.
   */
  receive(receiver: Receiver, into?: Uint8Array): Uint8Array | null | undefined;
  /**
   * Sends bytes, after all that was sent before. Returns nothing when they have been taken, else a promise; until it resolves
   * the bytes must not be changed. Its rejection counts as handled (see `Connection.write`).
   */
  write(bytes: Uint8Array): void | Promise<void>;
  /** The same for text, as UTF-8: where the runtime has a faster way than to have it encoded first. */
  writeText?(text: string): void | Promise<void>;
  /** Ends the sending side (FIN) once what was written has left. */
  closeWrite(): void | Promise<void>;
  /** Closes both sides once what was written has left. */
  close(): void;
  /** Closes at once: what has not left is dropped, and the peer sees a reset where the runtime can. */
  abort(): void;
  /**
   * Lets the stream begin with these bytes: they were read before, what came before them was none of it, and isn't counted. Nobody may be
   * reading.
   */
  beginWith(bytes: Uint8Array): void;
  /** From now on notices the peer's end also while nobody reads, as far as bounded memory allows. */
  watch(): void;
  /**
   * Calls back once what has arrived for the connection has been delivered. Left out where {@linkcode Runtime.afterPoll} tells: it is for
   * bytes that come by way of somebody else, as a worker's do.
   */
  afterArrivals?(callback: () => void): void;
  /** Sets or clears TCP_NODELAY. */
  setNoDelay(on: boolean): void;
  /** Sets or clears SO_KEEPALIVE; a number is the idle time before the first probe, in milliseconds. */
  setKeepAlive(on: boolean | number): void;
  /** Leaves the process free to exit while the connection is open, until `ref()`. */
  unref(): void;
  /** Keeps the process running while the connection is open, as it does from the beginning. */
  ref(): void;
}

/** What TLS is to be like: the options of a server or of a client, checked and complete. */
export interface TlsSettings {
  /** Whether this side answers the handshake or begins it. */
  readonly isServer: boolean;
  /** This side's certificate; a client may have none. */
  readonly certificate: TlsCertificate | null;
  /** The server's certificates for further host names, by the name in small letters, which may begin with `*.`. */
  readonly sni: ReadonlyMap<string, TlsCertificate>;
  /** Application protocols, the preferred one first. */
  readonly alpnProtocols: readonly string[];
  /** Who vouches for the peer; for a client without any, whoever the runtime trusts. */
  readonly ca: readonly string[];
  /** Whether clients are to show a certificate. */
  readonly clientCertificate: "none" | "request" | "require";
  /** The oldest version to speak. */
  readonly minVersion: TlsVersion;
  /** The server's name; a client must have one to verify the server. */
  readonly servername: string | null;
  /** Whether a client verifies the server. */
  readonly verifyServer: boolean;
}

/** Certificates that have been read, for any number of handshakes. */
export interface TlsContext {
  /**
   * Does the handshake. `raw` belongs to the connection that this resolves with; what it has received and nobody has read is the
   * beginning of the peer's handshake, behind `begun`, which was read from it before. Aborting `raw` ends it. When it fails, `raw` is
   * closed.
   */
  secure(raw: RawConnection, begun?: Uint8Array | null): Promise<RawConnection>;
}

/** A datagram as an adapter hands it over. The core makes a `Datagram` of it. */
export interface RawDatagram {
  /** The bytes, which the receiver owns. */
  readonly data: Uint8Array;
  /** Who sent it; `null` when the sender has no address. */
  readonly address: Address | null;
  /** Whether it was longer than `maxPacketSize` and cut there. */
  readonly truncated: boolean;
}

/** A datagram socket as an adapter hands it over. The core wraps it in a `DatagramSocket`. */
export interface RawDatagramSocket {
  /** The address it is bound to, with the real port. */
  readonly address: Address;
  /** Datagrams that were dropped because `requestQueueSize` others were waiting already; where the kernel keeps the queue, 0. */
  readonly dropped: number;
  /** Datagrams that wait for `receive()`; where the kernel keeps the queue, 0. */
  readonly queued: number;
  /**
   * What `as` makes of the next datagram, or of `null` when {@linkcode RawDatagramSocket.interrupt} or {@linkcode RawDatagramSocket.close} ends the wait.
   * At most one call waits at a time. Without a promise when one is waiting already. A wait may go on with the next datagram when what was
   * made of one is {@linkcode HANDLED}.
   */
  receive<T>(as: (datagram: RawDatagram | null) => T): T | Promise<T>;
  /** Ends a waiting `receive()` with `null`. */
  interrupt(): void;
  /** Sends a datagram. Returns nothing when the kernel has taken it, else a promise, whose rejection counts as handled. */
  send(bytes: Uint8Array, to: Address): void | Promise<void>;
  /** Joins or leaves a multicast group. */
  setMembership(join: boolean, group: string, interfaceAddress: string | undefined): Promise<void>;
  /**
   * Ends a waiting `receive()`, sends what `send()` was given and the kernel had no room for, closes the socket, and resolves once the
   * address is free. What is sent from then on is `ECONNABORTED`, and so is a datagram whose host is still being looked up.
   */
  close(): Promise<void>;
  /**
   * Leaves the process free to exit while the socket is open, until `ref()`.
   *
   * @throws {UnsupportedError} When the runtime can't.
   */
  unref(): void;
  /** Keeps the process running while the socket is open, as it does from the beginning. */
  ref(): void;
}

/** What a worker runs. */
export interface WorkerStart {
  /** What the module exports: a class that handles requests, or a function that makes a server. */
  readonly entry: "handler" | "server";
  /** The URL of the module; a fragment names the export, `default` without one. */
  readonly module: string;
  /** The address that the server is bound to, or is to bind. */
  readonly serverAddress: Address;
  /** The server's `data`. */
  readonly data: unknown;
  /** The limits that a worker with a handler keeps. JSON makes `null` of an `Infinity`. */
  readonly limits?: HandlerLimits;
}

/** What a worker thread is started with; it is cloned, but what it shares in memory stays shared. */
export interface ThreadOptions {
  /** What it runs. */
  readonly start: WorkerStart;
  /** The ring from the server to the thread. */
  readonly toThread: SharedArrayBuffer;
  /** The ring back. */
  readonly fromThread: SharedArrayBuffer;
  /** Who it is among the threads. */
  readonly life: ThreadLife;
}

/** A worker thread. */
export interface Thread {
  /** Its thread id. */
  readonly id: number;
  /** Resolves when its module is loaded; rejects with what loading threw. */
  readonly ready: Promise<void>;
  /** Resolves when the thread has ended: with the error that ended it, or what its exit status was. */
  readonly exited: Promise<Error>;
  /** Resolves when none of its code runs any more. On Deno, one that computes goes on with that after it was ended. */
  readonly stopped: Promise<void>;
  /** Whether it keeps the process running. */
  keepAlive(on: boolean): void;
  /** Ends it at once. */
  terminate(): void;
}

/** What a child process is started with. */
export interface ProcessOptions {
  /** What it runs; JSON must be able to carry the data. */
  readonly start: WorkerStart;
  /** Gets the frames that it sends. */
  onFrame(channel: number, type: number, payload: Uint8Array): void;
}

/** A child process. */
export interface ChildProcess {
  /** Its process id; -1 when it could not be started. */
  readonly pid: number;
  /** Resolves when its module is loaded; rejects with what loading threw. */
  readonly ready: Promise<void>;
  /** Resolves when the process has ended, with what its exit status was or which signal ended it. */
  readonly exited: Promise<Error>;
  /** Sends it a frame. */
  send(channel: number, type: number, payload?: Uint8Array): void;
  /** Whether it keeps this process running; it does from the beginning. */
  keepAlive(on: boolean): void;
  /** Ends it at once. */
  terminate(): void;
}

/** A signal that asks a program to do something, in the names of signal(7). */
export type Signal = "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGQUIT" | "SIGUSR1" | "SIGUSR2";
/** A named place of events, `node:diagnostics_channel`'s. */
export interface Channel {
  /** Whether anybody listens: only then is there anything to publish. */
  readonly hasSubscribers: boolean;
  /** Tells those who listen. What they throw reaches nobody here. */
  publish(message: unknown): void;
}

/** A JavaScript runtime's sockets, threads and processes. */
export interface Runtime {
  /** The runtime's name. */
  readonly name: "deno" | "bun" | "node" | "memory";
  /** What it can do. */
  readonly capabilities: Capabilities;
  /** Binds an address and listens on it. */
  listen(options: ListenOptions): Promise<Listener>;
  /** Connects to a listener. */
  connect(options: ConnectOptions): Promise<RawConnection>;
  /**
   * Reads the certificates and checks them.
   *
   * @throws {SocketError} As the rejection, when a file can't be read.
   * @throws {TypeError} As the rejection, when a text is no certificate or no key, or the two don't fit.
   */
  tls(settings: TlsSettings): Promise<TlsContext>;
  /** Binds an address for datagrams. */
  bind(options: BindOptions): Promise<RawDatagramSocket>;
  /** Starts a thread. */
  spawnThread(options: ThreadOptions): Thread;
  /** Starts a process. */
  spawnProcess(options: ProcessOptions): ChildProcess;
  /** The process id. */
  pid(): number;
  /** An environment variable; `undefined` when it is not set, or may not be read. */
  environment(name: string): string | undefined;
  /** Removes an environment variable, so that children don't have it. */
  unsetEnvironment(name: string): void;
  /** Keeps an inherited descriptor from programs that this one runs (FD_CLOEXEC): where the runtime doesn't do so by itself. */
  setCloseOnExec?(fd: number): void;
  /** Calls back whenever a signal comes, in place of what it does by default; returns what ends that. It keeps no process running. */
  onSignal(signal: Signal, callback: () => void): () => void;
  /** Calls back when the events that the runtime has at hand have been dealt with, where it can tell; else at once. */
  afterEvents(callback: () => void): void;
  /**
   * Calls back once the runtime has asked the system for events and has delivered them: what had arrived when this was called has reached
   * its receiver then.
   */
  afterPoll(callback: () => void): void;
  /** Calls back once, in about `ms` milliseconds, and keeps no process running until then. `clearTimeout()` takes what it returns. */
  setIdleTimer(callback: () => void, ms: number): unknown;
  /** Microseconds of the system's monotonic clock (CLOCK_MONOTONIC), which all processes share; `performance.now()` begins with each. */
  monotonicMicroseconds(): Promise<number>;
  /**
   * Writes to standard error. Resolves when the text has left or never can, as when nobody reads it any more; neither throws nor rejects.
   * A reader that takes nothing does not hold up the event loop.
   */
  print(text: string): Promise<void>;
  /**
   * Keeps the program from being ended by what it prints itself when the reader of its standard output or standard error is gone; on
   * some runtimes that would be an error that nobody catches.
   */
  guardOutput(): void;
  /** The channel of this name, always the same one. */
  channel(name: string): Channel;
}

let running: Runtime | null = null;

/** Makes `runtime` the one that servers use when they are given none; `mod.ts` calls it with the running one. */
export function setRuntime(runtime: Runtime): void {
  running = runtime;
}

/** {@linkcode Runtime.afterPoll} of the running runtime; without one, as in a test of a file alone, in a later turn. */
export function afterPoll(callback: () => void): void {
  if (running === null) setTimeout(callback, 0);
  else running.afterPoll(callback);
}

/** {@linkcode Runtime.setIdleTimer} of the running runtime; without one, an ordinary timer. */
export function setIdleTimer(callback: () => void, ms: number): unknown {
  return running === null ? setTimeout(callback, ms) : running.setIdleTimer(callback, ms);
}

/** Calls back once what has arrived for a connection has been delivered: for a deadline, which must not pass over it. */
export function afterArrivals(raw: RawConnection, callback: () => void): void {
  if (raw.afterArrivals === undefined) afterPoll(callback);
  else raw.afterArrivals(callback);
}

/** The runtime that `mod.ts` has set. */
export function getRuntime(): Runtime {
  if (running === null) throw new Error("no runtime is set: import the package's mod.ts, or pass one as `runtime`");
  return running;
}

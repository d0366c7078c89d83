/**
 * The seam between the core and the runtimes: what every adapter in `runtimes/` implements, and all that the core knows of them.
 *
 * @module
 */
import type { Address, AddressFamily, InetAddress } from "./address.ts";
import type { SocketError } from "./errors.ts";

/** What a runtime, in this version and on this operating system, can do. The core reads it and never guesses. */
export interface Capabilities {
  /** `abort()` reaches a TCP peer as a reset; without it the peer sees an ordinary end of the stream. */
  readonly reset: boolean;
  /** Several listeners can share a TCP port (SO_REUSEPORT). `true`, or what would make it work. */
  readonly reusePort: true | string;
  /** An IPv6 listener can be kept from taking IPv4 connections as well (IPV6_V6ONLY). `true`, or what would make it work. */
  readonly ipv6Only: true | string;
  /** The idle time before the first keep-alive probe can be set (TCP_KEEPIDLE). `true`, or what would make it work. */
  readonly keepAliveDelay: true | string;
}

/** What to listen on, and how. */
export interface ListenOptions {
  /** The address; port 0 asks for a free one. */
  readonly address: InetAddress;
  /** Resolves a host name to an address of this family only; `null` takes what the system prefers. */
  readonly family: AddressFamily | null;
  /** Connections that may wait to be accepted. */
  readonly backlog: number;
  /** Lets other listeners share the port. */
  readonly reusePort: boolean;
  /** Keeps an IPv6 listener from taking IPv4 connections. */
  readonly ipv6Only: boolean;
  /** Sends small writes at once (TCP_NODELAY) on accepted connections. */
  readonly noDelay: boolean;
  /** Probes idle accepted connections; a number is the idle time before the first probe, in milliseconds. */
  readonly keepAlive: boolean | number;
}

/** Whom to connect to. */
export interface ConnectOptions {
  /** The listener's address. */
  readonly address: InetAddress;
  /** Sends small writes at once (TCP_NODELAY). */
  readonly noDelay: boolean;
}

/** A socket that accepts connections. */
export interface Listener {
  /** The address it is bound to, with the real port. */
  readonly address: Address;
  /** Connections that were refused because `backlog` others were waiting already; where the kernel keeps the queue, 0. */
  readonly refused: number;
  /**
   * The next connection, or `null` when {@linkcode Listener.interrupt} or {@linkcode Listener.close} ends the wait.
   * At most one call waits at a time.
   */
  accept(): Promise<RawConnection | null>;
  /** Ends a waiting `accept()` with `null`. Connections that come meanwhile wait for the next `accept()`. */
  interrupt(): void;
  /** Stops listening, aborts the connections that nobody accepted, and resolves once the address is free. */
  close(): Promise<void>;
}

/** A connection as an adapter hands it over. The core wraps it in a `Connection`. */
export interface RawConnection {
  /** This side's address. */
  readonly localAddress: Address;
  /** The peer's address. */
  readonly remoteAddress: Address;
  /** Called once, when the connection is gone in both directions: with the reason when it was lost, `null` when it ended in order. */
  onclose: ((error: SocketError | null) => void) | null;
  /** The next chunk, which the caller owns, or `null` at the end of the stream. At most one call waits at a time. */
  read(): Promise<Uint8Array | null>;
  /** The same for a `for await` loop: resolving the loop's own result saves a promise and a turn for every chunk. */
  next(): Promise<IteratorResult<Uint8Array>>;
  /**
   * Sends bytes, after all that was sent before. Returns nothing when they have been taken, else a promise; until it resolves
   * the bytes must not be changed. Its rejection counts as handled (see `Connection.write`).
   */
  write(bytes: Uint8Array): void | Promise<void>;
  /** Ends the sending side (FIN) once what was written has left. */
  closeWrite(): void | Promise<void>;
  /** Closes both sides once what was written has left. */
  close(): void;
  /** Closes at once: what has not left is dropped, and the peer sees a reset where the runtime can. */
  abort(): void;
  /** From now on notices the peer's end also while nobody reads, as far as bounded memory allows. */
  watch(): void;
  /** Sets or clears TCP_NODELAY. */
  setNoDelay(on: boolean): void;
  /** Sets or clears SO_KEEPALIVE; a number is the idle time before the first probe, in milliseconds. */
  setKeepAlive(on: boolean | number): void;
}

/** A JavaScript runtime's sockets. */
export interface Runtime {
  /** The runtime's name. */
  readonly name: "deno" | "bun" | "node" | "memory";
  /** What it can do. */
  readonly capabilities: Capabilities;
  /** Binds an address and listens on it. */
  listen(options: ListenOptions): Promise<Listener>;
  /** Connects to a listener. */
  connect(options: ConnectOptions): Promise<RawConnection>;
}

let running: Runtime | null = null;

/** Makes `runtime` the one that servers use when they are given none; `mod.ts` calls it with the running one. */
export function setRuntime(runtime: Runtime): void {
  running = runtime;
}

/** The runtime that `mod.ts` has set. */
export function getRuntime(): Runtime {
  if (running === null) throw new Error("no runtime is set: import the package's mod.ts, or pass one as `runtime`");
  return running;
}

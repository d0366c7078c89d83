import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import { checkTimeout } from "./deadline.ts";
import type { EndReason } from "./end_reason.ts";
import { Networks } from "./networks.ts";

/**
 * The limits of a stream server: fields of {@linkcode TCPServer}, options of the same names. They may be changed while the server runs,
 * but for `allow` and `deny`. `Infinity` switches a limit off, or `minReadRate: 0`.
 */
export interface ConnectionLimits {
  /**
   * Connections at once: 16,384 by default. Each costs memory and a descriptor, so a bound there must be; lower it where handlers need
   * much. `maxActiveRequests`, when that is less, holds too.
   */
  maxConnections: number;
  /**
   * What becomes of a connection beyond `maxConnections`. With `"wait"`, the default, the server stops accepting until one ends, and it
   * waits in the queue; `stats.paused` counts that. With `"refuse"` it is aborted, so that its descriptor is free at once,
   * or in a flood of them soon.
   */
  whenFull: "wait" | "refuse";
  /**
   * Connections at once from one IPv4 address or one IPv6 /64, which is what one subscriber has (RFC 6177); those beyond are aborted.
   * `Infinity` by default, since behind a NAT, or a load balancer without `proxyProtocol`, everybody has the same address.
   */
  maxConnectionsPerAddress: number;
  /**
   * Connections in a second from one IPv4 address or one IPv6 /64; those beyond are aborted. So many may come at once, and then one
   * each time that as much of a second has passed: 0.1 is one in ten seconds. `Infinity` by default, for the same reason.
   */
  maxConnectionRatePerAddress: number;
  /**
   * The networks that connections may come from, in CIDR notation (RFC 4632); `null`, the default, for everywhere. A rule for an IPv4
   * address holds on a dual-stack listener too.
   */
  allow: readonly string[] | null;
  /** The networks that they may not come from, even when `allow` lets them: none by default. */
  deny: readonly string[];
  /**
   * Milliseconds in which nothing was read or written until a connection is aborted: 300,000 by default, five minutes, after which many
   * a NAT or load balancer has forgotten it too. `Infinity` on Unix sockets, whose peers can't vanish without a word. Raise it for
   * handlers that compute for longer, and for protocols with long silences.
   */
  idleTimeout: number;
  /** Milliseconds that a connection may last in all: `Infinity` by default, as only you know how long your requests take. */
  requestTimeout: number;
  /**
   * Bytes in a second that a peer has to send as long as it sends anything and the handler waits for it, against those that trickle in
   * order to hold a handler; they are aborted. 0 by default, which asks for nothing: a person at a keyboard is slow too.
   */
  minReadRate: number;
  /** Milliseconds over which `minReadRate` is measured, from the first byte on: 5000 by default. */
  readRateWindow: number;
  /** Milliseconds from its beginning in which a connection may be as slow as it likes: 5000 by default, for greetings and handshakes. */
  readRateGrace: number;
  /**
   * Milliseconds in which a peer took nothing of what waits for it until it is aborted: 60,000 by default. One that takes a little is
   * left alone, however long a write takes.
   */
  writeTimeout: number;
  /**
   * Bytes that may wait for one peer when the handler writes more; beyond, it is aborted. 16 MiB by default. What a handler that
   * awaits its writes has in its hands doesn't count, however large one write is.
   */
  maxBackpressure: number;
  /** The same for all of the server's connections together, 256 MiB by default: the one that most waits for is aborted. */
  maxTotalBackpressure: number;
}

/** The limits that need to know what the handler is waiting for: where a worker runs it, the worker keeps them. */
export type HandlerLimits = Pick<
  ConnectionLimits,
  "minReadRate" | "readRateWindow" | "readRateGrace" | "maxBackpressure" | "maxTotalBackpressure"
>;

/** These limits of a server, for its workers. */
export function handlerLimits(server: object): HandlerLimits {
  const {
    minReadRate = 0,
    readRateWindow = Infinity,
    readRateGrace = Infinity,
    maxBackpressure = Infinity,
    maxTotalBackpressure = Infinity,
  } = server as Partial<HandlerLimits>;
  return { minReadRate, readRateWindow, readRateGrace, maxBackpressure, maxTotalBackpressure };
}

/** Ends a connection for a reason. */
export type EndConnection = (connection: Connection, reason: EndReason) => void;

/** Checks the limits before anything is bound. */
export function checkLimits(limits: ConnectionLimits): void {
  for (const name of ["maxConnections", "maxConnectionsPerAddress"] as const) {
    const value = limits[name];
    if (value === Infinity || (Number.isInteger(value) && value >= 1)) continue;
    throw new RangeError(`${name} must be an integer of 1 or more, or Infinity, got ${String(value)}`);
  }
  for (const name of ["idleTimeout", "requestTimeout", "readRateWindow", "writeTimeout"] as const) {
    checkTimeout(name, limits[name]);
    if (limits[name] === 0) throw new RangeError(`${name} must be more than 0; Infinity switches it off`);
  }
  checkTimeout("readRateGrace", limits.readRateGrace);
  const { whenFull, minReadRate, maxConnectionRatePerAddress: rate } = limits;
  if (whenFull !== "wait" && whenFull !== "refuse") {
    throw new TypeError(`whenFull must be "wait" or "refuse", got ${String(whenFull)}`);
  }
  if (!(rate > 0)) throw new RangeError(`maxConnectionRatePerAddress must be a number above 0, or Infinity, got ${String(rate)}`);
  if (!(minReadRate >= 0 && minReadRate < Infinity)) {
    throw new RangeError(`minReadRate must be a number of bytes per second, 0 or more, got ${String(minReadRate)}`);
  }
  for (const name of ["maxBackpressure", "maxTotalBackpressure"] as const) {
    if (!(limits[name] >= 0)) throw new RangeError(`${name} must be a number of bytes, or Infinity, got ${String(limits[name])}`);
  }
  new AccessList(limits);
}

/** Which addresses may connect. */
export class AccessList {
  #allow: Networks | null;
  #deny: Networks | null;

  /** @param limits `allow` and `deny`. */
  constructor({ allow, deny }: Pick<ConnectionLimits, "allow" | "deny">) {
    this.#allow = allow === null ? null : new Networks("allow", allow);
    const denied = new Networks("deny", deny);
    this.#deny = deny.length === 0 ? null : denied;
  }

  /** Whether this one may; a Unix socket's peers have no address, and its file decides on them. */
  admits(address: Address): boolean {
    if (!("hostname" in address)) return true;
    if (this.#deny !== null && this.#deny.has(address.hostname)) return false;
    return this.#allow === null || this.#allow.has(address.hostname);
  }
}

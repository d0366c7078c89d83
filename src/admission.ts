import type { Address } from "./address.ts";
import type { EndReason } from "./end_reason.ts";
import { AccessList, type ConnectionLimits } from "./limits.ts";
import { networkOf } from "./networks.ts";
import { LONGEST, Timer, type TimerWheel } from "./timer_wheel.ts";

/** Decides which connections come in: by their address, and by how many have come from there. */
export class Admission {
  #limits: ConnectionLimits;
  #access: AccessList;
  #wheel: TimerWheel;
  #visitors = new Map<string | bigint, Visitor>();

  /**
   * @param limits The limits, which may change meanwhile but for `allow` and `deny`.
   * @param wheel Tells the time, and when a visitor can be forgotten.
   */
  constructor(limits: ConnectionLimits, wheel: TimerWheel) {
    this.#limits = limits;
    this.#access = new AccessList(limits);
    this.#wheel = wheel;
  }

  /** How many visitors are remembered. */
  get size(): number {
    return this.#visitors.size;
  }

  /**
   * Lets a connection in, or says why not.
   *
   * @param address Where it comes from.
   * @param active How many connections there are.
   * @returns The visitor, with whom to `leave()`, or the reason to refuse it.
   */
  enter(address: Address, active: number): Visitor | EndReason {
    const { whenFull, maxConnections, maxConnectionRatePerAddress: rate, maxConnectionsPerAddress: most } = this.#limits;
    if (!this.#access.admits(address)) return "denied";
    const full = whenFull === "refuse" && active >= maxConnections;
    // Of most servers' visitors nobody keeps books.
    const counted = "hostname" in address && (rate < Infinity || most < Infinity);
    const visitor = counted ? this.#visitor(networkOf(address.hostname)) : ANYBODY;
    let refused: EndReason | null = null;
    if (counted && rate < Infinity && !visitor.take(this.#wheel.now, rate)) refused = "connection rate";
    else if (counted && visitor.active >= most) refused = "max connections per address";
    else if (full) refused = "max connections";
    visitor.active++;
    if (refused === null) return visitor;
    this.leave(visitor);
    return refused;
  }

  /** A connection of the visitor's is over. */
  leave(visitor: Visitor): void {
    visitor.active--;
    if (visitor.active > 0 || visitor === ANYBODY) return;
    const rate = this.#limits.maxConnectionRatePerAddress;
    this.#wheel.stop(visitor);
    if (rate === Infinity) return visitor.expire();
    // By then it may send as many as one that has never come.
    this.#wheel.start(visitor, Math.min(1000 * Math.max(1, 1 / rate), LONGEST));
  }

  #visitor(network: string | bigint): Visitor {
    let visitor = this.#visitors.get(network);
    if (visitor === undefined) this.#visitors.set(network, visitor = new Visitor(network, this.#visitors));
    return visitor;
  }
}

/** A network from which connections have come. */
export class Visitor extends Timer {
  /** Connections that are there. */
  active = 0;
  #network: string | bigint;
  #all: Map<string | bigint, Visitor>;
  /** Connections that may come now: a token bucket. */
  #tokens = Infinity;
  #filled = 0;

  /**
   * @param network The network.
   * @param all Where it is remembered.
   */
  constructor(network: string | bigint, all: Map<string | bigint, Visitor>) {
    super();
    this.#network = network;
    this.#all = all;
  }

  /** Takes a token, if there is one. */
  take(now: number, rate: number): boolean {
    this.#tokens = Math.min(Math.max(1, rate), this.#tokens + (now - this.#filled) / 1000 * rate);
    this.#filled = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  /** Forgets it, unless somebody has come again. */
  override expire(): void {
    if (this.active === 0) this.#all.delete(this.#network);
  }
}

/** Whoever needn't be counted. */
const ANYBODY = new Visitor("", new Map());

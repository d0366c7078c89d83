import type { Visitor } from "./admission.ts";
import type { Connection } from "./connection.ts";
import type { EndReason } from "./end_reason.ts";
import type { ConnectionLimits, EndConnection, HandlerLimits } from "./limits.ts";
import type { RawConnection } from "./runtime.ts";
import { HELD_UP_MS, Timer, type TimerWheel } from "./timer_wheel.ts";

/** The limits that hold while a connection is served. */
export type WatchedLimits = HandlerLimits & Pick<ConnectionLimits, "idleTimeout" | "requestTimeout" | "writeTimeout">;

/** A connection is looked at so often in the time that it is given for something. */
const LOOKS = 4;
/** Milliseconds between two looks at least: the timers of the runtimes are a millisecond or two late themselves. */
const SHORTEST = 5;
/** A time that has not come. */
const NEVER = -1;

/** Watches over the connections of one server, or of one worker. */
export class Watcher {
  readonly limits: WatchedLimits;
  readonly wheel: TimerWheel;
  readonly end: EndConnection;
  /** The connections whose peers don't keep up, and what waits for them in all. */
  #behind = new Set<ConnectionWatch>();
  #total = 0;

  /**
   * @param limits The limits, which may change meanwhile.
   * @param wheel Tells when to look at a connection.
   * @param end Ends a connection that has exceeded one.
   */
  constructor(limits: WatchedLimits, wheel: TimerWheel, end: EndConnection) {
    this.limits = limits;
    this.wheel = wheel;
    this.end = end;
  }

  /** What waits for a connection's peer has changed; ends the connection that most waits for while it is too much in all. */
  count(watch: ConnectionWatch, backlog: number): void {
    this.#total += backlog - watch.backlog;
    watch.backlog = backlog;
    if (backlog === 0) this.#behind.delete(watch);
    else this.#behind.add(watch);
    if (this.#total <= this.limits.maxTotalBackpressure || backlog === 0) return;
    // Some may have caught up unseen.
    for (const other of this.#behind) other.catchUp();
    while (this.#total > this.limits.maxTotalBackpressure) {
      let worst = watch;
      for (const other of this.#behind) if (other.backlog > worst.backlog) worst = other;
      worst.end("backpressure");
    }
  }
}

/**
 * Watches over one connection. It looks now and then at what the connection has counted; reading and writing cost nothing beyond the
 * counting.
 */
export class ConnectionWatch extends Timer {
  /** Bytes that were waiting for the peer when the handler wrote more, as far as the peer has not caught up since. */
  backlog = 0;
  /** Who opened it, for the server to count; a worker counts nobody. */
  readonly visitor: Visitor | null;
  #watcher: Watcher;
  #raw: RawConnection;
  #connection: Connection | null = null;
  #since: number;
  /** Whether somebody else watches how fast the peer sends. */
  #relayed = false;
  #over = false;
  /** What was counted at the last look. */
  #read = 0;
  #written = 0;
  /** When that was last seen to change. */
  #active: number;
  /** Since when the peer takes nothing. */
  #stuck = NEVER;
  /** Since when the peer sends, and what it had sent before. */
  #burst = NEVER;
  #burstFrom = 0;

  /**
   * @param watcher Whose limits hold.
   * @param raw What to watch over.
   * @param visitor Who opened it.
   */
  constructor(watcher: Watcher, raw: RawConnection, visitor: Visitor | null = null) {
    super();
    this.visitor = visitor;
    this.#watcher = watcher;
    this.#raw = raw;
    this.#since = this.#active = Math.ceil(watcher.wheel.now);
  }

  /** Begins to look at the connection that was made of it. */
  begin(connection: Connection): void {
    this.#connection = connection;
    // A connection can be lost while it waits to be accepted.
    if (!this.#over) this.#lookAgain(this.#since);
  }

  /** Bytes that wait for the peer. */
  get unsent(): number {
    return this.#over ? 0 : this.#raw.unsent;
  }

  /** TLS is spoken on it from now on. */
  upgraded(raw: RawConnection): void {
    this.#raw = raw;
    this.#read = raw.bytesRead;
    this.#written = raw.bytesWritten;
    this.#burst = NEVER;
  }

  /** The handler runs in a worker, which knows when it waits for the peer. */
  relayed(): void {
    this.#relayed = true;
  }

  /** So many bytes were written, and the system has not taken them all at once. */
  wrote(size: number): void {
    const backlog = this.#raw.unsent - size;
    if (this.#over || (backlog <= 0 && this.backlog === 0)) return;
    if (backlog > this.#watcher.limits.maxBackpressure) this.end("backpressure");
    else this.#watcher.count(this, Math.max(0, backlog));
  }

  /** Corrects the backlog, which the peer works off unseen. */
  catchUp(): void {
    if (this.backlog > this.#raw.unsent) this.#watcher.count(this, this.#raw.unsent);
  }

  /** The connection is gone. */
  ended(): void {
    this.#over = true;
    this.#watcher.wheel.stop(this);
    if (this.backlog > 0) this.#watcher.count(this, 0);
  }

  /** Ends the connection. */
  end(reason: EndReason): void {
    this.ended();
    this.#watcher.end(this.#connection!, reason);
  }

  /** The wheel's call. */
  override expire(now: number): void {
    const late = this.late(now);
    if (late > HELD_UP_MS) this.#forgive(late);
    const reason = this.#look(now);
    if (reason === null) return this.#lookAgain(now);
    if (reason === "deadline") return this.end(reason);
    // What the peer has sent or taken meanwhile may not have been seen yet.
    const confirm = (): void => {
      if (this.#over) return;
      const confirmed = this.#look(now);
      if (confirmed === null) this.#lookAgain(now);
      else this.end(confirmed);
    };
    if (this.#raw.afterArrivals === undefined) this.#watcher.wheel.afterPoll(confirm);
    else this.#raw.afterArrivals(confirm);
  }

  #look(now: number): EndReason | null {
    const { idleTimeout, requestTimeout, writeTimeout } = this.#watcher.limits;
    const { bytesRead, bytesWritten, unsent } = this.#raw;
    this.catchUp();
    if (now - this.#since >= requestTimeout) return "deadline";
    const wrote = bytesWritten !== this.#written;
    if (unsent === 0) this.#stuck = NEVER;
    else if (wrote || this.#stuck === NEVER) this.#stuck = now;
    else if (now - this.#stuck >= writeTimeout) return "write timeout";
    if (wrote || bytesRead !== this.#read) this.#active = now;
    else if (now - this.#active >= idleTimeout) return "idle";
    if (this.#tooSlow(now, bytesRead)) return "too slow";
    this.#read = bytesRead;
    this.#written = bytesWritten;
    return null;
  }

  #tooSlow(now: number, bytesRead: number): boolean {
    const { minReadRate, readRateWindow, readRateGrace } = this.#watcher.limits;
    // While the handler is busy, the peer can't be blamed.
    if (minReadRate === 0 || this.#relayed || !this.#raw.reading) {
      this.#burst = NEVER;
      return false;
    }
    if (this.#burst === NEVER) {
      if (bytesRead === this.#read || now - this.#since < readRateGrace) return false;
      this.#burst = now;
      this.#burstFrom = this.#read;
      return false;
    }
    const elapsed = now - this.#burst;
    if (elapsed < readRateWindow) return false;
    if (bytesRead - this.#burstFrom < minReadRate * elapsed / 1000) return true;
    this.#burst = NEVER;
    return false;
  }

  /** This program was held up so long, and could not see what the peer did. */
  #forgive(ms: number): void {
    this.#active += ms;
    if (this.#stuck !== NEVER) this.#stuck += ms;
    if (this.#burst !== NEVER) this.#burst += ms;
  }

  #lookAgain(now: number): void {
    const next = Math.min(this.#often, this.#since + this.#watcher.limits.requestTimeout - now);
    if (next < Infinity) this.#watcher.wheel.start(this, Math.max(0, next));
  }

  /** Milliseconds from one look to the next. */
  get #often(): number {
    const { idleTimeout, writeTimeout, minReadRate, readRateWindow } = this.#watcher.limits;
    return Math.max(SHORTEST, Math.min(idleTimeout, writeTimeout, minReadRate === 0 ? Infinity : readRateWindow) / LOOKS);
  }
}

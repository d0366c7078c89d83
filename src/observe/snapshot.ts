import { type Address, formatAddress } from "../address.ts";
import type { ActiveRequest } from "../base_server.ts";
import { Connection } from "../connection.ts";
import { Histogram } from "../histogram.ts";
import type { Replica } from "../replica.ts";
import type { ServerStats } from "../stats.ts";

/** What can be monitored: a server, or `Replicas`. */
export interface Monitored {
  /** Where it serves. */
  readonly serverAddress: Address;
  /** What it has counted. */
  readonly stats: ServerStats | (() => Promise<ServerStats>);
  /** Its unfinished requests. */
  readonly activeRequests?: ReadonlyMap<unknown, ActiveRequest>;
  /** Whether it is stopping. */
  readonly draining?: boolean;
  /** Its replicas. */
  readonly members?: readonly Replica[];
}

/** What `/stats.json` says: servers at one moment. */
export interface MonitorSnapshot {
  /** When, in milliseconds since the epoch. */
  readonly time: number;
  /** The servers, in the order in which they were given. */
  readonly servers: readonly ServerSnapshot[];
}

/** A server at one moment. */
export interface ServerSnapshot {
  /** Its address, as text. */
  readonly address: string;
  /** The name of its class. */
  readonly name: string;
  /** Whether it is stopping. */
  readonly draining: boolean;
  /** What it has counted since it was made. */
  readonly stats: ServerStats;
  /** What it did lately; `null` the first time that somebody looks after a while. */
  readonly recent: RecentStats | null;
  /** The unfinished requests that were taken first, ten at most. */
  readonly longest: readonly LongRequest[];
  /** Its replicas. */
  readonly replicas: readonly Replica[];
}

/** What a server did since the snapshot before this one: counts per second, times in milliseconds. */
export interface RecentStats {
  /** How many seconds these are. */
  readonly seconds: number;
  /** Requests taken, per second. */
  readonly accepted: number;
  /** Connections refused, per second. */
  readonly refused: number;
  /** Errors, per second. */
  readonly errors: number;
  /** Bytes received, per second. */
  readonly bytesRead: number;
  /** Bytes sent, per second. */
  readonly bytesWritten: number;
  /** Half of the requests that ended took less; `null` when none did. */
  readonly p50: number | null;
  /** 90 % took less. */
  readonly p90: number | null;
  /** 99 % took less. */
  readonly p99: number | null;
}

/** A request that has been going on for long. */
export interface LongRequest {
  /** Who sent it; `null` when the sender has no address. */
  readonly client: string | null;
  /** Milliseconds since it was taken. */
  readonly age: number;
  /** Bytes received from a connection. */
  readonly bytesRead: number;
  /** Bytes sent. */
  readonly bytesWritten: number;
}

/** Milliseconds for which a snapshot is good: however many look, servers are asked about once a second. */
const FRESH = 900;
/** Milliseconds after which a snapshot is too old to compare with. */
const STALE = 10_000;
const LONGEST = 10;

/** Takes snapshots of servers when somebody wants to see them, and at no other time. */
export class Sampler {
  #servers: readonly Monitored[];
  #last: MonitorSnapshot | null = null;
  #taking: Promise<MonitorSnapshot> | null = null;

  constructor(servers: readonly Monitored[]) {
    this.#servers = servers;
  }

  /** The servers as they are, or were less than a second ago. */
  take(): Promise<MonitorSnapshot> {
    const last = this.#last;
    if (last !== null && Math.abs(Date.now() - last.time) < FRESH) return Promise.resolve(last);
    return this.#taking ??= this.#take(last).finally(() => this.#taking = null);
  }

  async #take(last: MonitorSnapshot | null): Promise<MonitorSnapshot> {
    const all = await Promise.all(this.#servers.map((server) => statsOf(server)));
    const time = Date.now();
    const seconds = last === null || time - last.time > STALE ? 0 : (time - last.time) / 1000;
    const servers = this.#servers.map((server, i) => {
      const stats = all[i]!;
      return {
        address: formatAddress(server.serverAddress),
        name: server.constructor.name,
        draining: server.draining ?? false,
        stats,
        recent: seconds > 0 ? compare(last!.servers[i]!.stats, stats, seconds) : null,
        longest: longest(server.activeRequests, time),
        replicas: (server.members ?? []).map(({ index, kind, id, state, restarts, pause }) => ({
          index,
          kind,
          id,
          state,
          restarts,
          pause,
        })),
      };
    });
    return this.#last = { time, servers };
  }
}

/** What a server has counted, wherever it runs. */
export function statsOf(server: Monitored): ServerStats | Promise<ServerStats> {
  // The getter is asked once: it copies the histogram.
  const { stats } = server;
  // Replicas have a method, since they have to be asked.
  return typeof stats === "function" ? stats.call(server) : stats;
}

function compare(before: ServerStats, now: ServerStats, seconds: number): RecentStats {
  // Replicas that have died take their counts with them.
  const perSecond = (name: "accepted" | "refused" | "errors" | "bytesRead" | "bytesWritten") =>
    Math.max(0, now[name] - before[name]) / seconds;
  const { count, sum, buckets } = before.requestTime;
  const times = new Histogram();
  times.add(now.requestTime);
  times.add({ count: -count, sum: -sum, buckets: buckets.map(({ below, count }) => ({ below, count: -count })) });
  const percentile = (percent: number) => times.count > 0 ? times.percentile(percent) : null;
  return {
    seconds,
    accepted: perSecond("accepted"),
    refused: perSecond("refused"),
    errors: perSecond("errors"),
    bytesRead: perSecond("bytesRead"),
    bytesWritten: perSecond("bytesWritten"),
    p50: percentile(50),
    p90: percentile(90),
    p99: percentile(99),
  };
}

function longest(active: ReadonlyMap<unknown, ActiveRequest> | undefined, now: number): LongRequest[] {
  return [...active ?? []].sort(([, a], [, b]) => a.since - b.since).slice(0, LONGEST).map((
    [request, { clientAddress, since }],
  ) => ({
    client: clientAddress === null ? null : formatAddress(clientAddress),
    age: Math.max(0, now - since),
    bytesRead: request instanceof Connection ? request.bytesRead : 0,
    bytesWritten: request instanceof Connection ? request.bytesWritten : 0,
  }));
}

import { type EndCounts, noEnds } from "./end_reason.ts";
import { Histogram } from "./histogram.ts";

/** What a server has counted since it was made. */
export interface ServerStats {
  /** Requests taken: connections accepted, datagrams received. */
  readonly accepted: number;
  /** Of these, unfinished ones. */
  readonly active: number;
  /** Of these, the ones that `verifyRequest` turned away. */
  readonly rejected: number;
  /** Of these, the ones that were aborted when the server stopped. */
  readonly aborted: number;
  /** Errors in handlers and in the hooks around them, each of which went to `handleError`. */
  readonly errors: number;
  /**
   * Connections refused before there was a request: because `requestQueueSize` others were waiting (the kernel's own refusals can't be
   * counted), by a limit, for want of a PROXY protocol header, or because the TLS handshake failed; `ended` has them by reason.
   */
  readonly refused: number;
  /** Datagrams that were longer than `maxPacketSize` and cut there. */
  readonly truncated: number;
  /** Datagrams dropped because `requestQueueSize` others were waiting; what the kernel drops can't be counted. */
  readonly dropped: number;
  /** Times that the server took no further request because as many as allowed were in progress. */
  readonly paused: number;
  /** Requests that wait to be taken now; 0 where the kernel has them. */
  readonly queued: number;
  /** TLS handshakes under way; a connection is accepted when its handshake is done. */
  readonly handshaking: number;
  /** Bytes received in connections or datagrams; with TLS, as the handlers see them. */
  readonly bytesRead: number;
  /** Bytes sent, as far as the system has taken them. */
  readonly bytesWritten: number;
  /** Bytes that were written and wait for their peers now. */
  readonly unsent: number;
  /** Datagrams sent. */
  readonly datagramsSent: number;
  /** How connections ended, by reason. They add up to `accepted` less `active` and `refused`; datagrams are not among them. */
  readonly ended: Readonly<EndCounts>;
  /** Milliseconds from the taking of a request to its end. Of datagrams, one in 16 is timed and counts for 16. */
  readonly requestTime: Histogram;
  /** Worker threads that are running. */
  readonly threads: number;
  /** Child processes that are running. */
  readonly children: number;
  /** Threads and processes that were ended because they did not answer, see `BaseServer.workerGrace`. */
  readonly stuckWorkers: number;
}

/** What several servers have counted together; of those elsewhere, by way of JSON. */
export function sumStats(all: readonly ServerStats[]): ServerStats {
  const ended = noEnds();
  const requestTime = new Histogram();
  const numbers = {
    accepted: 0,
    active: 0,
    rejected: 0,
    aborted: 0,
    errors: 0,
    refused: 0,
    truncated: 0,
    dropped: 0,
    paused: 0,
    queued: 0,
    handshaking: 0,
    bytesRead: 0,
    bytesWritten: 0,
    unsent: 0,
    datagramsSent: 0,
    threads: 0,
    children: 0,
    stuckWorkers: 0,
  };
  for (const stats of all) {
    for (const name of Object.keys(numbers) as (keyof typeof numbers)[]) numbers[name] += stats[name];
    for (const reason of Object.keys(ended) as (keyof EndCounts)[]) ended[reason] += stats.ended[reason];
    requestTime.add(stats.requestTime);
  }
  return { ...numbers, ended, requestTime };
}

/**
 * What a server that is gone has counted: what it had at that moment alone is over. Connections that went with it count as reset.
 *
 * @param stats What it had counted, or is known to have counted.
 * @param connections Whether its requests were connections.
 */
export function statsOfTheGone(stats: ServerStats, connections: boolean): ServerStats {
  const { active, ended } = stats;
  const gone = { active: 0, queued: 0, handshaking: 0, unsent: 0, threads: 0, children: 0 };
  return { ...stats, ...gone, ended: connections ? { ...ended, reset: ended.reset + active } : ended };
}

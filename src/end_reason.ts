/**
 * Why a connection ended. Each that has ever come has exactly one, in `stats.ended`, `handleEnd()` and `connection.endReason`.
 *
 * In order:
 *
 * - `"handler done"`: the handler finished, while the peer was still there.
 * - `"peer closed"`: the peer ended its side, and the handler finished then.
 * - `"drained"`: the handler finished while the server was stopping.
 *
 * Not in order:
 *
 * - `"handler error"`: the handler, or a hook around it, threw.
 * - `"reset"`: the connection was lost: the peer reset it, the network gave it up, or what came was no TLS.
 * - `"rejected"`: `verifyRequest()` turned it away.
 * - `"aborted"`: the server stopped and the handler was not done in time.
 *
 * By a limit, while it was served:
 *
 * - `"idle"`: nothing was read or written for `idleTimeout`.
 * - `"deadline"`: it lasted longer than `requestTimeout`.
 * - `"too slow"`: the peer sent less than `minReadRate`.
 * - `"write timeout"`: the peer took nothing for `writeTimeout`.
 * - `"backpressure"`: more than `maxBackpressure` or `maxTotalBackpressure` waited for the peer.
 *
 * By a limit, before there was a request:
 *
 * - `"denied"`: `allow` and `deny` don't let the address in.
 * - `"max connections"`: there were `maxConnections`, and `whenFull` is `"refuse"`.
 * - `"max connections per address"`: there were `maxConnectionsPerAddress`.
 * - `"connection rate"`: they came faster than `maxConnectionRatePerAddress`.
 * - `"queue full"`: `requestQueueSize` others were waiting.
 *
 * By the peer, before there was a request:
 *
 * - `"bad proxy header"`: `proxyProtocol` asks for a header, and within `proxyTimeout` there was none, or none that was right.
 * - `"handshake failed"`: the two did not come to terms on TLS, or the peer went away or took longer than `handshakeTimeout`.
 */
export type EndReason =
  | "handler done"
  | "peer closed"
  | "drained"
  | "handler error"
  | "reset"
  | "rejected"
  | "aborted"
  | "idle"
  | "deadline"
  | "too slow"
  | "write timeout"
  | "backpressure"
  | "denied"
  | "max connections"
  | "max connections per address"
  | "connection rate"
  | "queue full"
  | "bad proxy header"
  | "handshake failed";

/** How many connections ended for each reason. */
export type EndCounts = Record<EndReason, number>;

/** No connection has ended yet. */
export function noEnds(): EndCounts {
  return {
    "handler done": 0,
    "peer closed": 0,
    "drained": 0,
    "handler error": 0,
    "reset": 0,
    "rejected": 0,
    "aborted": 0,
    "idle": 0,
    "deadline": 0,
    "too slow": 0,
    "write timeout": 0,
    "backpressure": 0,
    "denied": 0,
    "max connections": 0,
    "max connections per address": 0,
    "connection rate": 0,
    "queue full": 0,
    "bad proxy header": 0,
    "handshake failed": 0,
  };
}

/** Whether the connection ended in order; anything else that happens to it later is worth more than that. */
export function inOrder(reason: EndReason | null): boolean {
  return reason === "handler done" || reason === "peer closed" || reason === "drained";
}

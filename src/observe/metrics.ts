import type { ServerStats } from "../stats.ts";

/** A number of {@linkcode ServerStats} as metrics have it. */
export interface Metric {
  /** Its name behind `sockets.server.`; Prometheus has `_` for `.`, and the unit and `total` at the end. */
  readonly name: string;
  /** Whether it only grows. */
  readonly type: "counter" | "gauge";
  /** In what it is counted, as UCUM has it: bytes are `By`, and what has no unit is in braces. */
  readonly unit: string;
  /** What it is. */
  readonly help: string;
  /** The number. */
  value(stats: ServerStats): number;
}

/** Each number of the stats that stands alone. */
export const METRICS: readonly Metric[] = [
  {
    name: "requests.accepted",
    type: "counter",
    unit: "{request}",
    help: "Requests taken: connections accepted, datagrams received.",
    value: ({ accepted }) => accepted,
  },
  {
    name: "requests.active",
    type: "gauge",
    unit: "{request}",
    help: "Requests taken and not finished.",
    value: ({ active }) => active,
  },
  {
    name: "requests.rejected",
    type: "counter",
    unit: "{request}",
    help: "Requests that verifyRequest turned away.",
    value: ({ rejected }) => rejected,
  },
  {
    name: "requests.aborted",
    type: "counter",
    unit: "{request}",
    help: "Requests aborted because the server stopped.",
    value: ({ aborted }) => aborted,
  },
  {
    name: "requests.queued",
    type: "gauge",
    unit: "{request}",
    help: "Requests that wait to be taken, where the runtime has them.",
    value: ({ queued }) => queued,
  },
  { name: "errors", type: "counter", unit: "{error}", help: "Errors that went to handleError.", value: ({ errors }) => errors },
  {
    name: "connections.refused",
    type: "counter",
    unit: "{connection}",
    help: "Connections refused before there was a request.",
    value: ({ refused }) => refused,
  },
  {
    name: "pauses",
    type: "counter",
    unit: "{pause}",
    help: "Times that no further request was taken as the server was full.",
    value: ({ paused }) => paused,
  },
  { name: "received", type: "counter", unit: "By", help: "Bytes received.", value: ({ bytesRead }) => bytesRead },
  {
    name: "sent",
    type: "counter",
    unit: "By",
    help: "Bytes sent, as far as the system has taken them.",
    value: ({ bytesWritten }) => bytesWritten,
  },
  { name: "unsent", type: "gauge", unit: "By", help: "Bytes written that wait for their peers.", value: ({ unsent }) => unsent },
  {
    name: "datagrams.sent",
    type: "counter",
    unit: "{datagram}",
    help: "Datagrams sent.",
    value: ({ datagramsSent }) => datagramsSent,
  },
  {
    name: "datagrams.truncated",
    type: "counter",
    unit: "{datagram}",
    help: "Datagrams cut at maxPacketSize.",
    value: ({ truncated }) => truncated,
  },
  {
    name: "datagrams.dropped",
    type: "counter",
    unit: "{datagram}",
    help: "Datagrams dropped because the queue was full.",
    value: ({ dropped }) => dropped,
  },
  { name: "threads", type: "gauge", unit: "{thread}", help: "Worker threads that are running.", value: ({ threads }) => threads },
  {
    name: "children",
    type: "gauge",
    unit: "{process}",
    help: "Child processes that are running.",
    value: ({ children }) => children,
  },
  {
    name: "workers.stuck",
    type: "counter",
    unit: "{worker}",
    help: "Threads and processes ended because they did not answer.",
    value: ({ stuckWorkers }) => stuckWorkers,
  },
];

import { type Address, formatAddress } from "../address.ts";
import type { BaseServer } from "../base_server.ts";
import { Connection } from "../connection.ts";
import { type EndReason, inOrder } from "../end_reason.ts";
import { METRICS } from "./metrics.ts";

/** Attributes of spans and metrics. */
export interface Attributes {
  /** What an attribute says. */
  [name: string]: string | number | undefined;
}

/** What is used of a `Span` of `@opentelemetry/api`. */
export interface Span {
  /** Sets attributes. */
  setAttributes(attributes: Attributes): unknown;
  /** Sets the status: 2 is an error. */
  setStatus(status: { code: number; message?: string }): unknown;
  /** Records what was thrown. */
  recordException(error: Error | string): void;
  /** Ends it. */
  end(): void;
}

/** What is used of a `Tracer` of `@opentelemetry/api`. */
export interface Tracer {
  /** Starts a span below the one of `context` and calls `body` with it as the active one. */
  startActiveSpan<T>(
    name: string,
    options: { kind: number; attributes: Attributes },
    context: unknown,
    body: (span: Span) => T,
  ): T;
  /** The same below the active span. */
  startActiveSpan<T>(name: string, options: { kind: number; attributes: Attributes }, body: (span: Span) => T): T;
}

/** What a metric is, beside its name. */
export interface MetricOptions {
  /** In what it is counted. */
  unit: string;
  /** What it is. */
  description: string;
}

/** What is used of a `Meter` of `@opentelemetry/api`. */
export interface Meter {
  /** Makes a metric that only grows and is asked for. */
  // deno-lint-ignore no-explicit-any
  createObservableCounter(name: string, options: MetricOptions): any;
  /** Makes one that goes up and down and is asked for. */
  // deno-lint-ignore no-explicit-any
  createObservableUpDownCounter(name: string, options: MetricOptions): any;
  /** Makes a histogram. */
  createHistogram(name: string, options: MetricOptions): { record(value: number, attributes: Attributes): void };
  /** Asks `callback` for several metrics at once. */
  // deno-lint-ignore no-explicit-any
  addBatchObservableCallback(callback: (observed: Observed) => void, metrics: any[]): void;
  /** Does so no more. */
  // deno-lint-ignore no-explicit-any
  removeBatchObservableCallback(callback: (observed: Observed) => void, metrics: any[]): void;
}

/** What a callback tells metrics to. */
export interface Observed {
  /** Tells a metric. */
  // deno-lint-ignore no-explicit-any
  observe(metric: any, value: number, attributes?: Attributes): void;
}

/** What {@linkcode instrument} is given; each part is optional. */
export interface Instruments<R = Connection> {
  /** Makes the spans: `trace.getTracer("my-service")`. */
  tracer?: Tracer;
  /** Makes the metrics: `metrics.getMeter("my-service")`. */
  meter?: Meter;
  /**
   * The context that a request's span is to be below, as where it comes with the request; the active one by default, which is the one
   * that `serveForever()` was called in.
   */
  parentContext?: (request: R, clientAddress: Address | null) => unknown;
}

/** `SpanKind.SERVER`. */
const SERVER = 1;
/** `SpanStatusCode.ERROR`. */
const ERROR = 2;

/**
 * Reports a server to OpenTelemetry: its stats as metrics, and a span for each request, active while its handler runs.
 *
 * Nothing is imported: it uses the tracer and the meter that it is given. A connection's span lasts until its end and has its reason,
 * and so has a datagram's until its handler is done. A handler in a thread or a process is in another program's memory, where the span
 * is not active. The metrics are those of `@sockets/server/prometheus`, with dots: `sockets.server.requests.accepted`.
 *
 * @param server The server.
 * @param instruments `tracer` and `meter`.
 * @returns A function that ends it; spans that have begun still end.
 *
 * @example
 * ```ts
 * import { metrics, trace } from "@opentelemetry/api";
 * import { serve } from "@sockets/server";
 * import { instrument } from "@sockets/server/otel";
 *
 * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.write("hello\n"));
 * instrument(server, { tracer: trace.getTracer("greeter"), meter: metrics.getMeter("greeter") });
 * await server.serverClose();
 * ```
 */
export function instrument<R>(server: BaseServer<R>, instruments: Instruments<R>): () => void {
  const { tracer, meter } = instruments;
  const restore = tracer === undefined && meter === undefined ? [] : [watchRequests(server, instruments)];
  if (meter !== undefined) restore.push(observeStats(server, meter));
  return () => {
    for (const end of restore.splice(0)) end();
  };
}

/** A request under way. */
interface Tracked {
  readonly span: Span | null;
  readonly begun: number;
  error: unknown;
}

/** Wraps the hooks that a request begins and ends with. */
function watchRequests<R>(server: BaseServer<R>, { tracer, meter, parentContext }: Instruments<R>): () => void {
  const { processRequest, handleEnd } = server;
  const tracked = new Map<R, Tracked>();
  const durations = meter?.createHistogram("sockets.server.request.duration", {
    unit: "s",
    description: "Time from the handling of a request to its end.",
  });

  const end = (request: R, reason: EndReason) => {
    const record = tracked.get(request);
    if (record === undefined) return;
    tracked.delete(request);
    const { span, begun, error } = record;
    const failed = inOrder(reason) ? {} : { "error.type": reason };
    durations?.record((performance.now() - begun) / 1000, { ...addressOf(server.serverAddress, "server"), ...failed });
    if (span === null) return;
    if (request instanceof Connection) {
      span.setAttributes({
        "sockets.end_reason": reason,
        "sockets.received_bytes": request.bytesRead,
        "sockets.sent_bytes": request.bytesWritten,
      });
    }
    if (!inOrder(reason)) {
      span.setAttributes(failed);
      span.setStatus({ code: ERROR, message: error instanceof Error ? error.message : reason });
      if (reason === "handler error" && error !== undefined) span.recordException(error instanceof Error ? error : String(error));
    }
    span.end();
  };

  const run = (request: R, clientAddress: Address | null, span: Span | null): void | Promise<void> => {
    const record: Tracked = { span, begun: performance.now(), error: undefined };
    tracked.set(request, record);
    // handleEnd() tells of a connection's end, and the reason.
    const done = () => request instanceof Connection ? undefined : end(request, "handler done");
    const failed = (error: unknown) => {
      record.error = error;
      if (!(request instanceof Connection)) end(request, "handler error");
      throw error;
    };
    try {
      const processed = processRequest.call(server, request, clientAddress);
      return processed === undefined ? done() : processed.then(done, failed);
    } catch (error) {
      failed(error);
    }
  };

  server.processRequest = (request, clientAddress) => {
    if (tracer === undefined) return run(request, clientAddress, null);
    const { transport } = server.serverAddress;
    const options = {
      kind: SERVER,
      attributes: {
        "network.transport": transport === "unixgram" ? "unix" : transport,
        ...addressOf(server.serverAddress, "server"),
        ...addressOf(clientAddress, "client"),
      },
    };
    const body = (span: Span) => run(request, clientAddress, span);
    const name = `${server.constructor.name} request`;
    return parentContext === undefined
      ? tracer.startActiveSpan(name, options, body)
      : tracer.startActiveSpan(name, options, parentContext(request, clientAddress), body);
  };
  server.handleEnd = (request, clientAddress, reason) => {
    if (request !== null) end(request, reason);
    handleEnd.call(server, request, clientAddress, reason);
  };
  return () => {
    // The other hook stays, for the requests that have begun.
    server.processRequest = processRequest;
  };
}

/** Has the meter ask the stats, once for all metrics. */
function observeStats<R>(server: BaseServer<R>, meter: Meter): () => void {
  const metrics = METRICS.map((metric) => {
    const create = metric.type === "counter" ? "createObservableCounter" : "createObservableUpDownCounter";
    return {
      value: metric.value,
      metric: meter[create](`sockets.server.${metric.name}`, { unit: metric.unit, description: metric.help }),
    };
  });
  const ends = meter.createObservableCounter("sockets.server.connections.ended", {
    unit: "{connection}",
    description: "Connections that have ended, by reason.",
  });
  const observe = (observed: Observed) => {
    const { stats } = server;
    const attributes = addressOf(server.serverAddress, "server");
    for (const { metric, value } of metrics) observed.observe(metric, value(stats), attributes);
    for (const [reason, count] of Object.entries(stats.ended)) observed.observe(ends, count, { ...attributes, reason });
  };
  const observables = [...metrics.map(({ metric }) => metric), ends];
  meter.addBatchObservableCallback(observe, observables);
  return () => meter.removeBatchObservableCallback(observe, observables);
}

/** An address as OpenTelemetry's conventions have it: a path is an address too. */
function addressOf(address: Address | null, side: "server" | "client"): Attributes {
  if (address === null) return {};
  if ("path" in address) return { [`${side}.address`]: formatAddress(address).replace(/^unix(gram)?:/, "") };
  return { [`${side}.address`]: address.hostname, [`${side}.port`]: address.port };
}

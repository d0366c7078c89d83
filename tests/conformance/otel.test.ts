/** `instrument()`, with OpenTelemetry's own SDK at the other end. */
import { assert, assertEquals } from "@std/assert";
import { type Context, context, createContextKey, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  type MetricData,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  bind,
  type Datagram,
  getRuntime,
  type TCPServer,
} from "@sockets/server";
import { instrument } from "@sockets/server/otel";
import { after, test } from "node:test";
import { type Adapter, adapters } from "./adapters.ts";
import { until } from "./serving.ts";

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
const exporter = new InMemorySpanExporter();
const tracer = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).getTracer("test");

// Connections in memory don't keep the program running; some test runners don't either.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

/** Echoes, and throws when it reads an `x`; its own work is a span of its own. */
class Moody extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) {
      await tracer.startActiveSpan("work", async (span) => {
        try {
          if (chunk[0] === 120) throw new Error("a handler's own");
          await this.request.write(chunk);
        } finally {
          span.end();
        }
      });
    }
  }
}

async function serving(adapter: Adapter, use: (server: TCPServer) => Promise<void>): Promise<void> {
  const Server = adapter.transport === "tcp" ? AsyncTCPServer : AsyncUnixStreamServer;
  const server = new Server(adapter.freshAddress(), Moody, { runtime: adapter.runtime });
  server.handleError = () => {};
  await server.activate();
  const served = server.serveForever();
  exporter.reset();
  try {
    await use(server);
  } finally {
    await server.shutdown({ drain: 0 });
    await served;
    await server.serverClose();
  }
}

async function ask(adapter: Adapter, server: TCPServer, text: string): Promise<void> {
  const client = await adapter.open(server);
  await client.write(text);
  await client.read(text.length);
  await client.end().catch(() => {});
  await client.readAll();
  await until(() => server.stats.active === 0);
}

const named = (name: string): ReadableSpan[] => exporter.getFinishedSpans().filter((span) => span.name === name);

for (const adapter of adapters) {
  const { runtime, transport } = adapter;
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport}: otel: ${name}`, body);
  const spanName = transport === "tcp" ? "AsyncTCPServer request" : "AsyncUnixStreamServer request";

  it("each connection is a span until its end, and the handler's own spans are below it", () =>
    serving(adapter, async (server) => {
      instrument(server, { tracer });
      await ask(adapter, server, "hello");
      const [span, ...more] = named(spanName);
      assertEquals([span!.kind, more.length], [SpanKind.SERVER, 0]);
      const { attributes, status } = span!;
      assertEquals(attributes["network.transport"], transport);
      assertEquals([attributes["sockets.received_bytes"], attributes["sockets.sent_bytes"]], [5, 5]);
      assertEquals([attributes["sockets.end_reason"], status.code], ["peer closed", SpanStatusCode.UNSET]);
      if (transport === "tcp") assertEquals(attributes["client.address"], "127.0.0.1");
      for (const work of named("work")) assertEquals(work.parentSpanContext?.spanId, span!.spanContext().spanId);
      assert(named("work").length > 0);
    }));

  it("a failed request is a span with the error", () =>
    serving(adapter, async (server) => {
      instrument(server, { tracer });
      await ask(adapter, server, "x");
      const [span] = named(spanName);
      assertEquals(span!.status, { code: SpanStatusCode.ERROR, message: "a handler's own" });
      assertEquals(span!.attributes["error.type"], "handler error");
      assertEquals(span!.events.map(({ name, attributes }) => [name, attributes!["exception.message"]]), [
        ["exception", "a handler's own"],
      ]);
    }));

  it("a request's span is below the one that its parentContext has", () =>
    serving(adapter, async (server) => {
      const parent = tracer.startSpan("parent");
      instrument(server, { tracer, parentContext: (): Context => trace.setSpan(context.active(), parent) });
      await ask(adapter, server, "hello");
      assertEquals(named(spanName)[0]!.parentSpanContext?.spanId, parent.spanContext().spanId);
      assertEquals(named(spanName)[0]!.spanContext().traceId, parent.spanContext().traceId);
    }));

  it("what is active stays as it was where no span is", () =>
    serving(adapter, async (server) => {
      const key = createContextKey("mine");
      instrument(server, { tracer });
      await context.with(context.active().setValue(key, 1), async () => {
        await ask(adapter, server, "hello");
        assertEquals([context.active().getValue(key), trace.getActiveSpan()], [1, undefined]);
      });
    }));

  it("the stats are metrics, and the time of requests a histogram", () =>
    serving(adapter, async (server) => {
      const { meter, collect, shutdown } = metering();
      const stop = instrument(server, { meter });
      for (const text of ["aa", "bb", "x"]) await ask(adapter, server, text);
      const metrics = await collect();
      assertEquals(metrics.get("sockets.server.requests.accepted"), 3);
      assertEquals(metrics.get("sockets.server.requests.active"), 0);
      assertEquals(metrics.get("sockets.server.received"), 5);
      assertEquals(metrics.get("sockets.server.sent"), 4);
      assertEquals(metrics.get("sockets.server.errors"), 1);
      assertEquals(metrics.get("sockets.server.connections.ended peer closed"), 2);
      assertEquals(metrics.get("sockets.server.connections.ended handler error"), 1);
      assertEquals(metrics.get("sockets.server.request.duration"), 3);
      stop();
      await ask(adapter, server, "cc");
      assertEquals((await collect()).get("sockets.server.request.duration"), 3);
      await shutdown();
    }));

  it("once it is ended there are no more spans", () =>
    serving(adapter, async (server) => {
      const stop = instrument(server, { tracer });
      const before = await adapter.open(server);
      await before.write("aa");
      await before.read(2);
      stop();
      await before.end();
      await before.readAll();
      await until(() => server.stats.active === 0);
      await ask(adapter, server, "bb");
      assertEquals(named(spanName).length, 1);
    }));
}

test(`${getRuntime().name}: otel: each datagram is a span until its handler is done`, async () => {
  class Echo extends BaseRequestHandler<Datagram> {
    override async handle(): Promise<void> {
      if (this.request.data[0] === 120) throw new Error("a handler's own");
      await this.request.reply(this.request.data);
    }
  }
  const server = new AsyncUDPServer("udp://127.0.0.1:0", Echo);
  server.handleError = () => {};
  await server.activate();
  const served = server.serveForever();
  exporter.reset();
  instrument(server, { tracer });
  const client = await bind("udp://127.0.0.1:0");
  await client.send("hello", server.serverAddress);
  await client.receive();
  await client.send("x", server.serverAddress);
  await until(() => named("AsyncUDPServer request").length === 2);
  const spans = named("AsyncUDPServer request");
  assertEquals(spans.map(({ status }) => status.code), [SpanStatusCode.UNSET, SpanStatusCode.ERROR]);
  assertEquals(spans[0]!.attributes["network.transport"], "udp");
  await client.close();
  await server.shutdown();
  await served;
  await server.serverClose();
});

/** A meter, and what it has measured by the name and, where there is one, the reason; of a histogram, the count. */
function metering() {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ readers: [reader] });
  return {
    meter: provider.getMeter("test"),
    async collect(): Promise<Map<string, number>> {
      const { resourceMetrics } = await reader.collect();
      const values = new Map<string, number>();
      const metrics: MetricData[] = resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
      for (const { descriptor: { name }, dataPoints } of metrics) {
        for (const { attributes, value } of dataPoints) {
          const key = attributes.reason === undefined ? name : `${name} ${attributes.reason}`;
          const count = typeof value === "number" ? value : (value as { count: number }).count;
          values.set(key, (values.get(key) ?? 0) + count);
        }
      }
      return values;
    },
    shutdown: () => provider.shutdown(),
  };
}

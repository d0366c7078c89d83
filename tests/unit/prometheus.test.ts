/** Prometheus's text, read by a parser that is as strict as the format's description. */
import { assert, assertEquals } from "@std/assert";
import { AsyncTCPServer, BaseRequestHandler, type HistogramBucket } from "@sockets/server";
import { type Counted, prometheus } from "@sockets/server/prometheus";
import { connectTo, memory } from "@sockets/server/testing";
import { after, test } from "node:test";
import { until } from "../conformance/serving.ts";

// Connections in memory don't keep the program running; some test runners don't either.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** A metric: its lines must stand together, the help and the type before the samples. */
interface Family {
  type: string;
  samples: Sample[];
}

/** Text exposition format, version 0.0.4. */
function parse(text: string): Map<string, Family> {
  assert(text.endsWith("\n"), "the last line must end with a line feed");
  const families = new Map<string, Family>();
  let current = "";
  const seen = new Set<string>();
  for (const line of text.slice(0, -1).split("\n")) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (?:[^\\]|\\\\|\\n)+$/.exec(line);
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line);
    if (help) {
      current = help[1]!;
      assert(!families.has(current), `${current} comes twice`);
      families.set(current, { type: "", samples: [] });
    } else if (type) {
      assertEquals(type[1], current);
      const family = families.get(current)!;
      assertEquals([family.type, family.samples.length], ["", 0]);
      family.type = type[2]!;
    } else {
      const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (\S+)$/.exec(line);
      assert(sample !== null, `no line of the format: ${line}`);
      const [, name, labels, value] = sample;
      assert(!seen.has(`${name}{${labels}}`), `twice the same sample: ${line}`);
      seen.add(`${name}{${labels}}`);
      const family = families.get(current)!;
      const suffixes = family.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
      assert(suffixes.some((suffix) => name === current + suffix), `${name} stands among ${current}`);
      assert(/^(\+Inf|-Inf|NaN|[-+]?\d+(\.\d+)?(e[-+]?\d+)?)$/.test(value!), `no number: ${value}`);
      family.samples.push({ name: name!, labels: labelsOf(labels!), value: Number(value) });
    }
  }
  return families;
}

function labelsOf(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;
  while (label.lastIndex < text.length) {
    const found = label.exec(text);
    assert(found !== null, `no labels: ${text}`);
    labels[found[1]!] = found[2]!.replace(/\\(.)/g, (_, escaped) => escaped === "n" ? "\n" : escaped);
  }
  return labels;
}

/** A server that has answered three, failed once and has one that goes on. */
async function busy(use: (server: AsyncTCPServer) => void | Promise<void>): Promise<void> {
  class Moody extends BaseRequestHandler {
    override async handle(): Promise<void> {
      for await (const chunk of this.request) {
        if (chunk[0] === 120) throw new Error("x");
        await this.request.write(chunk);
      }
    }
  }
  const server = new AsyncTCPServer("tcp://127.0.0.1:0", Moody, { runtime: memory });
  server.handleError = () => {};
  await server.activate();
  const serving = server.serveForever();
  for (const text of ["aa", "bb", "cc", "x"]) {
    const client = await connectTo(server);
    await client.write(text);
    await client.read();
    await client.closeWrite();
    await client.read();
    await client.close();
  }
  const client = await connectTo(server);
  await client.write("dd");
  await client.read();
  // The client may know that its request is over before the server does.
  await until(() => server.stats.active === 1);
  await use(server);
  await client.close();
  await server.shutdown({ drain: 10_000 });
  await serving;
  await server.serverClose();
}

function valueOf(families: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const { samples } = families.get(`sockets_server_${name}`)!;
  const found = samples.filter(({ labels: own }) => Object.entries(labels).every(([name, value]) => own[name] === value));
  assertEquals(found.length, 1);
  return found[0]!.value;
}

test("prometheus(): what a server has counted, in the text format", () =>
  busy((server) => {
    const families = parse(prometheus(server));
    assertEquals(valueOf(families, "requests_accepted_total"), 5);
    assertEquals(valueOf(families, "requests_active"), 1);
    assertEquals(valueOf(families, "errors_total"), 1);
    assertEquals(valueOf(families, "received_bytes_total"), 9);
    assertEquals(valueOf(families, "sent_bytes_total"), 8);
    assertEquals(valueOf(families, "connections_ended_total", { reason: "peer closed" }), 3);
    assertEquals(valueOf(families, "connections_ended_total", { reason: "handler error" }), 1);
    assertEquals(valueOf(families, "connections_ended_total", { reason: "idle" }), 0);
    for (const [name, { type, samples }] of families) {
      assert(type !== "" && samples.length > 0, name);
      assertEquals(type === "counter", name.endsWith("_total"), name);
    }
  }));

test("prometheus(): the time of requests is a histogram in seconds, whose buckets add up", () =>
  busy(({ serverAddress, stats }) => {
    const { type, samples } = parse(prometheus({ serverAddress, stats })).get("sockets_server_request_duration_seconds")!;
    assertEquals(type, "histogram");
    const buckets = samples.filter(({ name }) => name.endsWith("_bucket"));
    const bounds = buckets.map(({ labels }) => Number(labels.le!.replace("+Inf", "Infinity")));
    assertEquals(bounds, [...bounds].sort((a, b) => a - b));
    assertEquals(buckets.at(-1)!.labels.le, "+Inf");
    const counts = buckets.map(({ value }) => value);
    assertEquals(counts, [...counts].sort((a, b) => a - b));
    const rest = Object.fromEntries(
      samples.filter((sample) => !buckets.includes(sample)).map(({ name, value }) => [name, value]),
    );
    assertEquals(rest, {
      sockets_server_request_duration_seconds_sum: stats.requestTime.sum / 1000,
      sockets_server_request_duration_seconds_count: 4,
    });
    assertEquals(counts.at(-1), 4);
    bounds.forEach((bound, i) => {
      const below = stats.requestTime.buckets.filter(({ below }: HistogramBucket) => below <= bound * 1000);
      assertEquals(counts[i], below.reduce((sum, { count }) => sum + count, 0));
    });
  }));

test("prometheus(): several servers share each metric, by their address; any address can stand in a label", () =>
  busy((server) => {
    const path = '/tmp/a "b" \\c\nd{},=';
    const other: Counted = { serverAddress: { transport: "unix", path }, stats: server.stats };
    const families = parse(prometheus([server, other]));
    const { samples } = families.get("sockets_server_requests_accepted_total")!;
    assertEquals(samples.map(({ labels }) => labels.server!.replace(/\d+$/, "PORT")), [
      "tcp://127.0.0.1:PORT",
      `unix:${path.replace("\n", "\\x0a")}`,
    ]);
    assertEquals(
      valueOf(families, "connections_ended_total", { server: `unix:${path.replace("\n", "\\x0a")}`, reason: "peer closed" }),
      3,
    );
  }));

test("prometheus(): stats that came as JSON do too", () =>
  busy(({ serverAddress, stats }) => {
    const counted = { serverAddress, stats: JSON.parse(JSON.stringify(stats)) };
    assertEquals(prometheus(counted), prometheus({ serverAddress, stats }));
  }));

import { type Address, formatAddress } from "../address.ts";
import type { HistogramBucket } from "../histogram.ts";
import type { ServerStats } from "../stats.ts";
import { METRICS } from "./metrics.ts";

/** Something that counts: a server, or what `Replicas.stats()` gave together with the address. */
export interface Counted {
  /** The address that its samples are labelled with. */
  readonly serverAddress: Address;
  /** What it has counted. */
  readonly stats: ServerStats;
}

/** The buckets' bounds in milliseconds, a quarter to four apart: each is a bound of a bucket that the histogram has. */
const BOUNDS = Array.from({ length: 14 }, (_, i) => 2 ** (2 * i - 6));

/** The media type of {@linkcode prometheus}'s text: the text exposition format, version 0.0.4. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/**
 * What servers have counted in Prometheus's text exposition format, version 0.0.4, each sample labelled with the server's address.
 *
 * The names begin with `sockets_server_`. How connections ended is `sockets_server_connections_ended_total` with the label `reason`;
 * the time of requests is the histogram `sockets_server_request_duration_seconds`.
 *
 * @param servers A server or several, or `{ serverAddress, stats }` as of {@linkcode Replicas}.
 * @returns The text, of the media type {@linkcode PROMETHEUS_TYPE}.
 *
 * @example
 * ```ts
 * import { serve } from "@sockets/server";
 * import { prometheus } from "@sockets/server/prometheus";
 *
 * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.write("hello\n"));
 * console.log(prometheus(server));
 * await server.serverClose();
 * ```
 */
export function prometheus(servers: Counted | readonly Counted[]): string {
  const all = (Array.isArray(servers) ? servers as readonly Counted[] : [servers as Counted])
    .map(({ serverAddress, stats }) => ({ server: `server="${escape(formatAddress(serverAddress))}"`, stats }));
  const families = METRICS.map(({ name: dotted, type, unit, help, value }) => {
    const name = dotted.replaceAll(".", "_") + (unit === "By" ? "_bytes" : "") + (type === "counter" ? "_total" : "");
    return family(name, type, help, all.map(({ server, stats }) => sample(name, server, value(stats))));
  });
  families.push(
    family(
      "connections_ended_total",
      "counter",
      "Connections that have ended, by reason.",
      all.flatMap(({ server, stats }) =>
        Object.entries(stats.ended).map(([reason, count]) =>
          sample("connections_ended_total", `${server},reason="${reason}"`, count)
        )
      ),
    ),
    family(
      "request_duration_seconds",
      "histogram",
      "Time from the taking of a request to its end.",
      all.flatMap(({ server, stats: { requestTime } }) => [
        ...cumulative(requestTime.buckets).map(([ms, count]) =>
          sample("request_duration_seconds_bucket", `${server},le="${ms === Infinity ? "+Inf" : ms / 1000}"`, count)
        ),
        sample("request_duration_seconds_sum", server, requestTime.sum / 1000),
        sample("request_duration_seconds_count", server, requestTime.count),
      ]),
    ),
  );
  return families.join("");
}

function family(name: string, type: string, help: string, samples: string[]): string {
  return `# HELP sockets_server_${name} ${help}\n# TYPE sockets_server_${name} ${type}\n${samples.join("")}`;
}

function sample(name: string, labels: string, value: number): string {
  return `sockets_server_${name}{${labels}} ${value}\n`;
}

/** How many values are below each bound. */
function cumulative(buckets: readonly HistogramBucket[]): [bound: number, count: number][] {
  let next = 0;
  let count = 0;
  return [...BOUNDS, Infinity].map((bound) => {
    // Of JSON, the last bucket's bound is null.
    for (; next < buckets.length && (buckets[next]!.below ?? Infinity) <= bound; next++) count += buckets[next]!.count;
    return [bound, count];
  });
}

/** A label's value: "the backslash, double-quote, and line feed characters have to be escaped". */
function escape(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

/** The load generators: our own, which are compiled when they are needed, and the tools of the protocols. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { compileC, needs, temporaryDirectory } from "./servers.mjs";

const portOf = (address) => address.replace(/^.*:/, "");

/**
 * A load is a function from an address and a duration in seconds to a `command`, and `parse`, which makes figures of what it prints.
 * `load.h` says what our own ones print.
 */
function own(source, args) {
  return (address, seconds) => ({
    command: [compileC(`bench/${source}`), ...args(address, seconds)],
    parse: (stdout) => Object.fromEntries(Object.entries(JSON.parse(stdout)).filter(([, value]) => value >= 0)),
  });
}

/** Messages of so many bytes, over connections of which each has so many on its way. */
export function echo(bytes, connections, depth) {
  return own("load.c", (address, seconds) => [portOf(address), connections, bytes, depth, seconds]);
}

/** Connections that are made, used for one line of so many bytes and closed, so many at once, for a duration or until there were `count`. */
export function anew(connections, count, bytes = 64) {
  const rest = count === undefined ? ["anew"] : ["anew", count];
  return own("load.c", (address, seconds) => [portOf(address), connections, bytes, 1, seconds, ...rest]);
}

/** Connections from another address than everybody else's, so many at once, each made anew when the server has ended it. */
export function flood(connections) {
  return own("flood_load.c", (address, seconds) => [portOf(address), connections, seconds]);
}

/** Datagrams of so many bytes, with a window of so many. */
export function datagrams(bytes, window) {
  return own("datagram_load.c", (address, seconds) => [address.replace(/^udp:.*:|^unixgram:/, ""), bytes, window, seconds]);
}

/** Bytes in one direction, over so many connections: `send` to the server, or `receive` from it. */
export function bulk(connections, direction) {
  return own("bulk_load.c", (address, seconds) => [portOf(address), connections, seconds, direction]);
}

/** Connections that stay open; ends when its input does. */
export function idle(connections) {
  return own("idle_load.c", (address) => [portOf(address), connections]);
}

/** Fifty clients of one command, `pipeline` at a time. */
export function redisBenchmark(test, pipeline) {
  return (address, seconds) => {
    needs("redis-benchmark");
    // It takes a number of requests; about what a server does in the time.
    const requests = Math.ceil(seconds * (pipeline === 1 ? 40_000 : 240_000));
    return {
      command: ["redis-benchmark", "-p", portOf(address), "-t", test, "-c", 50, "-n", requests, "-P", pipeline, "--csv"],
      parse(stdout) {
        const [, rate, , , p50, , p99] = stdout.trim().split("\n").at(-1).split(",").map((cell) =>
          Number(cell.replaceAll('"', ""))
        );
        return { messages: requests, messagesPerSecond: rate, p50: p50 * 1000, p99: p99 * 1000 };
      },
    };
  };
}

/** Requests for one file, over so many connections. */
export function wrk(connections) {
  const micros = { us: 1, ms: 1e3, s: 1e6 };
  return (address, seconds) => {
    needs("wrk");
    const url = `${address.replace("tcp:", "http:")}/file.txt`;
    return {
      // Whole seconds are all it takes.
      command: ["wrk", "-t", 1, "-c", connections, "-d", `${Math.max(1, Math.round(seconds))}s`, "--latency", url],
      parse(stdout) {
        const latency = (share) => {
          const [, value, unit] = new RegExp(`^\\s*${share}%\\s+([\\d.]+)(us|ms|s)$`, "m").exec(stdout);
          return value * micros[unit];
        };
        if (/Non-2xx/.test(stdout)) throw new Error(`wrk got errors:\n${stdout}`);
        return {
          messages: Number(/(\d+) requests in/.exec(stdout)[1]),
          messagesPerSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)[1]),
          p50: latency(50),
          p99: latency(99),
        };
      },
    };
  };
}

/** Queries, of which so many are on their way. */
export function dnsperf(window) {
  return (address, seconds) => {
    needs("dnsperf", "-h");
    const queries = join(temporaryDirectory(), "queries");
    writeFileSync(queries, "www.example.test A\nwww.example.test AAAA\nexample.test TXT\nnobody.example.test A\n");
    const duration = Math.max(1, Math.round(seconds));
    return {
      command: ["dnsperf", "-s", "127.0.0.1", "-p", portOf(address), "-d", queries, "-l", duration, "-q", window, "-e"],
      parse: (stdout) => ({
        messages: Number(/Queries completed:\s+(\d+)/.exec(stdout)[1]),
        messagesPerSecond: Number(/Queries per second:\s+([\d.]+)/.exec(stdout)[1]),
        lost: Number(/Queries lost:\s+(\d+)/.exec(stdout)[1]),
      }),
    };
  };
}

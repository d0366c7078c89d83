/** What is measured: which servers, under which loads. */
import { anew, bulk, datagrams, dnsperf, echo, flood, idle, redisBenchmark, wrk } from "./loads.mjs";
import { filesDirectory } from "./servers.mjs";

const SIZES = { "64 B": 64, "1 KiB": 1024, "64 KiB": 65_536 };
const CONNECTIONS = [64, 1, 1000];
const DEPTHS = [1, 16];

/** All sizes, numbers of connections and depths; the first is the one that stands for all, and is measured beside all peers. */
const [firstEcho, ...otherEchoes] = Object.entries(SIZES).flatMap(([size, bytes]) =>
  CONNECTIONS.flatMap((connections) =>
    DEPTHS.map((depth) => [`${size}, ${connections} connections, depth ${depth}`, echo(bytes, connections, depth)])
  )
);

const redisTests = { PING: "ping_mbulk", SET: "set", GET: "get", INCR: "incr", LPUSH: "lpush" };
const redisCases = Object.fromEntries(
  [1, 16].flatMap((pipeline) =>
    Object.entries(redisTests).map(([name, test]) => [`${name}, ${pipeline} at a time`, redisBenchmark(test, pipeline)])
  ),
);

/**
 * `ours` is this package's server, `peers` are what it is compared with; both are scripts for `serverCommand()`. `cases` are the loads,
 * of which a run that is not full takes the first. `address` is what a server is given to serve on, where it doesn't know by itself.
 * `spread` lets a server use all cores. `seconds` is how much longer than usual a load runs. `kind` is another way of measuring.
 */
export const WORKLOADS = {
  tcp: {
    title: "TCP echo",
    what: "Echo over TCP on the loopback. Depth is the number of messages that a connection has on their way.",
    ours: "ours.ts",
    peers: {
      "raw": "raw.ts",
      "forEach": "ours_for_each.ts",
      "StreamRequestHandler": "ours_handlers.ts echo",
      "node:net": "node_net.ts",
      "web streams": "web_streams.ts",
      "C": "epoll.c echo",
      "Go": "echo.go echo",
      "asyncio": "python_stream.py asyncio echo",
      "ThreadingTCPServer": "python_stream.py threading echo",
      "ForkingTCPServer": "python_stream.py forking echo",
    },
    cases: Object.fromEntries([firstEcho]),
  },
  sizes: {
    title: "TCP echo: sizes, connections, depths",
    what: "As TCP echo.",
    ours: "ours.ts",
    peers: { "raw": "raw.ts", "forEach": "ours_for_each.ts", "readInto": "ours_read_into.ts echo" },
    cases: Object.fromEntries(otherEchoes),
  },
  lines: {
    title: "Lines",
    what: "Echo of lines of 64 bytes through `rfile.readLine()` and `wfile.write()`; `raw` splits them by hand.",
    ours: "ours_handlers.ts lines",
    peers: { raw: "raw_handlers.ts lines" },
    cases: { "64 connections, depth 1": echo(64, 64, 1), "64 connections, depth 16": echo(64, 64, 16) },
  },
  connections: {
    title: "Connections",
    what: "Connections made, used for one line and closed by the server, 16 at once.",
    ours: "ours_handlers.ts once",
    peers: {
      "raw": "raw_handlers.ts once",
      "C": "epoll.c once",
      "Go": "echo.go once",
      "asyncio": "python_stream.py asyncio once",
      "ThreadingTCPServer": "python_stream.py threading once",
      "ForkingTCPServer": "python_stream.py forking once",
    },
    cases: { "": anew(16) },
  },
  bulk_in: {
    title: "Bulk to the server",
    what: "As much as the server reads, over 4 connections; a message is 64 KiB.",
    ours: "ours_handlers.ts sink",
    peers: { raw: "raw_handlers.ts sink", readInto: "ours_read_into.ts sink" },
    cases: { "": bulk(4, "send") },
  },
  bulk_out: {
    title: "Bulk from the server",
    what: "As much as the server writes, over 4 connections; a message is 64 KiB.",
    ours: "ours_handlers.ts source",
    peers: { raw: "raw_handlers.ts source" },
    cases: { "": bulk(4, "receive") },
  },
  idle: {
    kind: "idle",
    title: "Idle connections",
    what:
      "9,000 connections, or as many as the limit on descriptors lets be made, that have echoed one line and are silent: what the " +
      "server's resident memory grew by, for each.",
    ours: "ours.ts",
    peers: {
      "raw": "raw.ts",
      "node:net": "node_net.ts",
      "C": "epoll.c echo",
      "Go": "echo.go echo",
      "asyncio": "python_stream.py asyncio echo",
    },
    cases: { "": 9000 },
  },
  churn: {
    kind: "churn",
    title: "Churn",
    what:
      "Connections one after another, 16 at once, each used for one line: the server's resident memory after the first tenth, at " +
      "the end, and after 10 idle seconds.",
    ours: "ours_handlers.ts once",
    peers: { raw: "raw_handlers.ts once" },
    cases: { "100,000 connections": 100_000, "1,000,000 connections": 1_000_000 },
  },
  udp: {
    title: "UDP echo",
    what: "Echo over UDP on the loopback: 64 bytes, a window of 32 datagrams.",
    address: () => "udp://127.0.0.1:0",
    ours: "ours_datagram.ts",
    peers: { "raw": "raw_udp.ts", "UDPServer": "python_datagram.py" },
    cases: { "": datagrams(64, 32) },
  },
  unixgram: {
    title: "Unix datagram echo",
    what: "Echo over Unix datagrams: 64 bytes, a window of 32 datagrams.",
    address: (unusedPath) => `unixgram:${unusedPath}`,
    ours: "ours_datagram.ts",
    peers: { "raw": "raw_unix_datagram.ts", "UnixDatagramServer": "python_datagram.py" },
    cases: { "": datagrams(64, 32) },
  },
  threads: {
    title: "Echo through threads",
    what: "Echo over TCP through worker threads, to which the bytes are relayed: 64 connections × 64 bytes.",
    spread: true,
    ours: "ours_workers.ts threading echo",
    peers: { Async: "ours_workers.ts async echo" },
    cases: { "": echo(64, 64, 1) },
  },
  computing: {
    title: "A handler that computes",
    what: "A handler that computes for about 200 ms, always as much; four clients at once.",
    spread: true,
    seconds: 4,
    ours: "ours_workers.ts threading compute",
    peers: { Async: "ours_workers.ts async compute", Forking: "ours_workers.ts forking compute" },
    cases: { "": echo(64, 4, 1) },
  },
  processes: {
    title: "Connections through processes",
    what: "Connections made, used for one echo and closed, 16 at once, through child processes that are used again.",
    spread: true,
    ours: "ours_workers.ts forking once",
    peers: { ForkingTCPServer: "python_stream.py forking once" },
    cases: { "": anew(16) },
  },
  resp: {
    title: "The protocol of Redis",
    what: "`redis-benchmark` with 50 clients against `examples/resp.ts`.",
    ours: "examples/resp.ts",
    peers: { "redis-server": "redis-server" },
    cases: redisCases,
  },
  http: {
    title: "HTTP",
    what: "`wrk` with 64 connections, each for one request of a file of 1 KiB, against `examples/files.ts`.",
    address: () => `--listen tcp://127.0.0.1:0 --root ${filesDirectory()}`,
    ours: "examples/files.ts",
    peers: { "http.server": "http.server" },
    cases: { "": wrk(64) },
  },
  dns: {
    title: "DNS",
    what: "`dnsperf` with 32 queries on their way against `examples/dns.ts`.",
    address: () => "--listen udp://127.0.0.1:0",
    ours: "examples/dns.ts",
    peers: {},
    cases: { "": dnsperf(32) },
  },
  limits: {
    title: "What the limits cost",
    what: "Echo over TCP, 64 connections × 64 bytes, with every limit on connections switched on (`ours`), and all of them off.",
    ours: "ours.ts limited",
    peers: { unlimited: "ours.ts unlimited" },
    cases: { "": echo(64, 64, 1) },
  },
  attack: {
    kind: "attack",
    title: "Under attack",
    what:
      "One client echoes 64 bytes, and how long that takes while others attack is compared with how long it takes without them. " +
      "Attackers and client share a core, of which the client has all that it wants (SCHED_IDLE); the server has its own.",
    ours: "ours_handlers.ts attacked",
    peers: { raw: "raw_handlers.ts attacked" },
    cases: {
      "5,000 connections that are silent": idle(5000),
      "16 peers that send and never read": bulk(16, "send"),
    },
  },
  flood: {
    kind: "attack",
    title: "Under a flood of connections",
    what: "As Under attack, with a flood of connections from one address, 64 at once, each of which sends a byte. `ours` has " +
      "`maxConnectionRatePerAddress: 100` and refuses nearly all of them; the others answer them all.",
    ours: "ours_handlers.ts attacked 100",
    peers: { raw: "raw_handlers.ts attacked", unlimited: "ours_handlers.ts attacked" },
    cases: { "": flood(64) },
  },
  import: {
    kind: "import",
    title: "Import",
    what:
      "Starting a program that imports `mod.ts` and does nothing, beside one that is empty (`raw`). Bun and Node get both as " +
      "JavaScript, as JSR gives it to them, and Deno as TypeScript that it has compiled before.",
    ours: "import.ts",
    peers: { raw: "empty.ts" },
    cases: { "": null },
  },
};

/** What a short run takes; a full one takes all. */
export const SHORT = { workloads: ["tcp", "lines", "udp", "import"], runtimes: ["deno", "bun", "node"], peers: ["raw", "C"] };

/** What each peer is, for the reader of the results. */
export const PEERS = {
  "raw": "the runtime's own API",
  "forEach": "this package with that method in place of `for await`",
  "readInto": "this package with that method and one buffer for each connection",
  "StreamRequestHandler": "this package with `rfile` and `wfile`",
  "node:net": "that module in the same runtime",
  "web streams": "those of the runtime's connections",
  "C": "an epoll loop on one thread, the machine's limit",
  "Go": "`net`, a goroutine for each connection, on one thread",
  "asyncio": "a protocol of Python's `asyncio`",
  "ThreadingTCPServer": "that of Python's `socketserver`",
  "ForkingTCPServer": "that of Python's `socketserver`",
  "UDPServer": "that of Python's `socketserver`",
  "UnixDatagramServer": "that of Python's `socketserver`",
  "Async": "this package's own server on the event loop",
  "unlimited": "this package's own server without the limits",
  "Forking": "this package's own server with child processes",
  "redis-server": "Redis itself",
  "http.server": "Python's, on its `socketserver`",
};

import { type Address, formatAddress, toAddress } from "../address.ts";
import { AsyncTCPServer, AsyncUnixStreamServer } from "../async_servers.ts";
import { type Answer, GetHandler } from "./get_handler.ts";
import { PAGE, SCRIPT, STYLE } from "./monitor_page.ts";
import { prometheus, PROMETHEUS_TYPE } from "./prometheus.ts";
import { type Monitored, Sampler, statsOf } from "./snapshot.ts";

/** Options of {@linkcode monitor}. */
export interface MonitorOptions {
  /**
   * Where to show it: `tcp://127.0.0.1:0` by default, a free port that only this machine reaches. `unix:/path` is for this server's own
   * user, as the file's permissions have it. Whoever reaches another address sees everything: it asks for no password.
   */
  listen?: string | Address;
}

/** What the monitor's handlers know. */
interface MonitorData {
  readonly servers: readonly Monitored[];
  readonly sampler: Sampler;
  /** The host name that it listens on. */
  readonly hostname: string | null;
}

/**
 * Shows servers while they run: `/` is a live page for a browser, `/stats.json` the same as JSON ({@linkcode MonitorSnapshot}),
 * `/metrics` what {@linkcode prometheus} makes for a scrape. It is read-only, and costs nothing while nobody looks.
 *
 * The same in a terminal: `deno run -A jsr:@sockets/server/top unix:/run/my.sock`, with the monitor's address.
 *
 * A hundred clients are served at once. When there are more, the one that has been there longest without asking for anything has to leave,
 * so that nobody waits for those who only hold a connection; a request is to be there within five seconds.
 *
 * It answers GET and nothing else, and only to an IP address, `localhost` or the host name of `listen` in the request's Host header, so
 * that no web page elsewhere can read it through a name of its own.
 *
 * @param servers A server, `Replicas`, or several.
 * @param options `listen`: where.
 * @returns The running server of the monitor; `serverAddress` says where, `serverClose()` ends it.
 * @throws {TypeError} When `listen` is no address of connections.
 * @throws {SocketError} When the address can't be bound.
 *
 * @example
 * ```ts
 * import { formatAddress, serve } from "@sockets/server";
 * import { monitor } from "@sockets/server/monitor";
 *
 * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.write("hello\n"));
 * const watching = await monitor(server);
 * console.log(formatAddress(watching.serverAddress).replace("tcp:", "http:"));
 * await watching.serverClose();
 * await server.serverClose();
 * ```
 */
export async function monitor(
  servers: Monitored | readonly Monitored[],
  { listen = "tcp://127.0.0.1:0" }: MonitorOptions = {},
): Promise<AsyncTCPServer> {
  const address = toAddress(listen);
  if (address.transport !== "tcp" && address.transport !== "unix") {
    throw new TypeError(`listen must be a tcp or unix address, got ${formatAddress(address)}`);
  }
  const all = Array.isArray(servers) ? servers as readonly Monitored[] : [servers as Monitored];
  const data: MonitorData = {
    servers: all,
    sampler: new Sampler(all),
    hostname: address.transport === "tcp" ? address.hostname.toLowerCase() : null,
  };
  const Server = address.transport === "unix" ? AsyncUnixStreamServer : AsyncTCPServer;
  // The handler bounds how many there are, so that nobody waits for those who only hold a connection.
  const server = new Server(address, MonitorHandler, { data, maxConnections: 1000, requestTimeout: 30_000, shutdownTimeout: 0 });
  await server.activate();
  void server.serveForever();
  return server;
}

class MonitorHandler extends GetHandler {
  protected override async answer(path: string): Promise<Answer | null> {
    const { servers, sampler } = this.server.data as MonitorData;
    switch (path) {
      case "/":
        return { type: "text/html; charset=utf-8", body: PAGE };
      case "/monitor.css":
        return { type: "text/css; charset=utf-8", body: STYLE };
      case "/monitor.js":
        return { type: "text/javascript; charset=utf-8", body: SCRIPT };
      case "/stats.json":
        return { type: "application/json", body: JSON.stringify(await sampler.take()) };
      case "/metrics": {
        const stats = await Promise.all(servers.map((server) => statsOf(server)));
        const counted = servers.map(({ serverAddress }, i) => ({ serverAddress, stats: stats[i]! }));
        return { type: PROMETHEUS_TYPE, body: prometheus(counted) };
      }
    }
    return null;
  }

  protected override isOwnName(name: string): boolean {
    return super.isOwnName(name) || name === (this.server.data as MonitorData).hostname;
  }
}

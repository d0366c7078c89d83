/**
 * Servers seen while they run: {@linkcode monitor} shows them on a page, and the program `@sockets/server/top` in a terminal.
 *
 * ```sh
 * deno run -A jsr:@sockets/server/top unix:/run/my.sock          # every second, until Ctrl-C
 * deno run -A jsr:@sockets/server/top tcp://127.0.0.1:9001 --once
 * ```
 *
 * @module
 */
import "./mod.ts";

export { monitor, type MonitorOptions } from "./src/observe/monitor.ts";
export type { LongRequest, Monitored, MonitorSnapshot, RecentStats, ServerSnapshot } from "./src/observe/snapshot.ts";
export { fetchSnapshot, renderTop } from "./src/observe/top.ts";

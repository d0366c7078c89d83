/**
 * Servers seen while they run: {@linkcode monitor} shows them on a page, and this module, run as a program, in a terminal.
 *
 * ```sh
 * deno run -A jsr:@sockets/server/monitor unix:/run/my.sock          # every second, until Ctrl-C
 * deno run -A jsr:@sockets/server/monitor tcp://127.0.0.1:9001 --once
 * ```
 *
 * @module
 */
import "./mod.ts";
import { fetchSnapshot, renderTop } from "./src/observe/top.ts";

export { monitor, type MonitorOptions } from "./src/observe/monitor.ts";
export type { LongRequest, Monitored, MonitorSnapshot, RecentStats, ServerSnapshot } from "./src/observe/snapshot.ts";
export { fetchSnapshot, renderTop } from "./src/observe/top.ts";

async function main([address, ...options]: string[]): Promise<void> {
  const once = options[0] === "--once";
  if (address === undefined || options.length > (once ? 1 : 0)) throw new TypeError("usage: monitor ADDRESS [--once]");
  for (;;) {
    const text = renderTop(await fetchSnapshot(address));
    // From the top of a terminal, and nothing else is left on it; a pipe gets one after the other.
    process.stdout.write(process.stdout.isTTY && !once ? `\x1b[H\x1b[2J${text}` : text);
    if (once) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

if (import.meta.main) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}

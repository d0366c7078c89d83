/**
 * The terminal view of {@linkcode https://jsr.io/@sockets/server/doc/monitor | monitor()}, a program:
 *
 * ```sh
 * deno run -A jsr:@sockets/server/top unix:/run/my.sock          # every second, until Ctrl-C
 * deno run -A jsr:@sockets/server/top tcp://127.0.0.1:9001 --once
 * ```
 *
 * To import this module is to run it; `fetchSnapshot()` and `renderTop()` of `@sockets/server/monitor` are for programs.
 *
 * @module
 */
import "./mod.ts";
import { fetchSnapshot, renderTop } from "./src/observe/top.ts";

async function main([address, ...options]: string[]): Promise<void> {
  const once = options[0] === "--once";
  if (address === undefined || options.length > (once ? 1 : 0)) throw new TypeError("usage: top ADDRESS [--once]");
  // Whoever read it may be gone, as in `top … | head`.
  process.stdout.on("error", () => process.exit(0));
  for (;;) {
    const text = renderTop(await fetchSnapshot(address));
    // From the top of a terminal, and nothing else is left on it; a pipe gets one after the other.
    process.stdout.write(process.stdout.isTTY && !once ? `\x1b[H\x1b[2J${text}` : text);
    if (once) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});

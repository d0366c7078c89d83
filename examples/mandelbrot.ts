/**
 * The Mandelbrot set as text: a handler that computes.
 *
 *     deno run --allow-net=127.0.0.1 --allow-read=. examples/mandelbrot.ts --listen tcp://127.0.0.1:9000 --concurrency threading
 *     bun examples/mandelbrot.ts --listen tcp://127.0.0.1:9000 --concurrency forking
 *     node examples/mandelbrot.ts --listen unix:/tmp/mandelbrot.sock --concurrency async
 *
 * Then ask it: `nc 127.0.0.1 9000` and type `78 24`, or `echo 78 24 1000 | nc -N 127.0.0.1 9000`.
 *
 *     WIDTH HEIGHT [STEPS]   a line `mandelbrot WIDTH HEIGHT STEPS`, and HEIGHT lines of WIDTH characters
 *
 * STEPS, 100 by default, says how long to try with each character. What can't be done is answered with `ERROR` and the reason.
 *
 * While a handler computes it awaits nothing, so the event loop that it runs on is deaf. Ask for `200 100 300000` in one terminal and
 * for `78 24` in another: with `sequential` and `async` the second waits for the first, with `threading` and `forking` it doesn't.
 */
import { parseArgs } from "node:util";
import {
  AsyncTCPServer,
  AsyncUnixStreamServer,
  ForkingTCPServer,
  ForkingUnixStreamServer,
  formatAddress,
  handleSignals,
  LimitOverrunError,
  parseAddress,
  SocketError,
  StreamRequestHandler,
  TCPServer,
  ThreadingTCPServer,
  ThreadingUnixStreamServer,
  UnixStreamServer,
} from "../mod.ts";

/** The longest request, in bytes, its end included. */
export const MAX_LINE = 100;
/** The most characters of a picture. */
export const MAX_SIZE = 1_000_000;
/** The most steps of a request, all characters together: about a minute's work. */
export const MAX_STEPS = 20_000_000_000;
/** Requests that are computed at once. More than there are cores, so that a small picture gets its share beside large ones. */
const WORKERS = 8;

/** The picture: rows of `width` characters, each with its end of line. */
export function mandelbrot(width: number, height: number, steps: number): string {
  let picture = "";
  for (let y = 0; y < height; y++) {
    const im = 2.4 * (y + 0.5) / height - 1.2;
    for (let x = 0; x < width; x++) picture += character(2.6 * (x + 0.5) / width - 2, im, steps);
    picture += "\n";
  }
  return picture;
}

/** How soon z² + c leaves the circle of radius 2, the lighter the sooner; `@` when it has not after so many steps. */
function character(re: number, im: number, steps: number): string {
  let [a, b] = [0, 0];
  for (let step = 0; step < steps; step++) {
    const [aa, bb] = [a * a, b * b];
    // The whole part of the binary logarithm.
    if (aa + bb > 4) return " .:-=+*#%"[Math.min(8, 31 - Math.clz32(step))]!;
    b = 2 * a * b + im;
    a = aa - bb + re;
  }
  return "@";
}

/** One client's conversation: any number of pictures. */
export class MandelbrotHandler extends StreamRequestHandler {
  override timeout = 60_000;

  override async handle(): Promise<void> {
    for (;;) {
      let line: string | null;
      try {
        line = await this.rfile.readLine({ limit: MAX_LINE });
      } catch (error) {
        if (!(error instanceof LimitOverrunError)) throw error;
        return await this.wfile.write(`ERROR a line may have ${MAX_LINE} bytes\n`);
      }
      if (line === null) return;
      await this.#answer(line);
    }
  }

  async #answer(line: string): Promise<void> {
    const [, width, height, steps = "100"] = /^([1-9]\d*) ([1-9]\d*)(?: (\d+))?$/.exec(line) ?? [];
    if (width === undefined) return await this.wfile.write("ERROR usage: WIDTH HEIGHT [STEPS]\n");
    const size = Number(width) * Number(height);
    if (size > MAX_SIZE) return await this.wfile.write(`ERROR a picture may have ${MAX_SIZE} characters\n`);
    if (size * Number(steps) > MAX_STEPS) return await this.wfile.write(`ERROR a picture may take ${MAX_STEPS} steps\n`);
    await this.wfile.write(`mandelbrot ${width} ${height} ${steps}\n`);
    await this.wfile.write(mandelbrot(Number(width), Number(height), Number(steps)));
  }
}

/** The server classes, by what is asked for on the command line, and the options that each takes. */
const SERVERS = {
  sequential: { tcp: TCPServer, unix: UnixStreamServer, options: {} },
  async: { tcp: AsyncTCPServer, unix: AsyncUnixStreamServer, options: {} },
  threading: { tcp: ThreadingTCPServer, unix: ThreadingUnixStreamServer, options: { maxThreads: WORKERS } },
  forking: {
    tcp: ForkingTCPServer,
    unix: ForkingUnixStreamServer,
    // A handler leaves nothing behind that the next one could find, so a child may have any number of them.
    options: { maxChildren: WORKERS, requestsPerChild: Infinity, spareChildren: 2 },
  },
};

// deno-lint-ignore no-explicit-any
type AnyServer = new (...args: any[]) => TCPServer;

/** The server for an address. */
export function mandelbrotServer(listen: string, concurrency: string): TCPServer {
  if (!Object.hasOwn(SERVERS, concurrency)) {
    throw new TypeError(`--concurrency takes ${Object.keys(SERVERS).join(", ")}, got ${concurrency}`);
  }
  const { transport } = parseAddress(listen);
  if (transport !== "tcp" && transport !== "unix") {
    throw new TypeError(`--listen takes tcp://HOST:PORT or unix:PATH, got ${listen}`);
  }
  const { [transport]: Server, options } = SERVERS[concurrency as keyof typeof SERVERS];
  // A thread or a process finds the class in this module.
  const elsewhere = concurrency === "threading" || concurrency === "forking";
  const handler = elsewhere ? new URL("#MandelbrotHandler", import.meta.url) : MandelbrotHandler;
  const server = new (Server as AnyServer)(listen, handler, options);
  const { handleError } = server;
  // A client that vanishes is worth a line, not a stack.
  server.handleError = (request, clientAddress, error) => {
    if (request === null || !(error instanceof SocketError)) return handleError.call(server, request, clientAddress, error);
    console.error(error.message);
  };
  return server;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "tcp://127.0.0.1:0" },
      concurrency: { type: "string", default: "threading" },
    },
  });
  const server = mandelbrotServer(values.listen, values.concurrency);
  await server.activate();
  console.log(`listening ${formatAddress(server.serverAddress)}`);
  handleSignals(server, { drain: 1000 });
  await server.serveForever();
  await server.serverClose();
}

if (import.meta.main) {
  main().catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}

/**
 * A file server: HTTP/1.0 on a Unix socket or on TCP, for the files below a directory.
 *
 *     deno run --allow-net=127.0.0.1 --allow-read=. examples/files.ts --listen tcp://127.0.0.1:8080 --root .
 *     deno run --allow-net=unix:/tmp/files.sock --allow-read=.,/tmp --allow-write=/tmp examples/files.ts --listen unix:/tmp/files.sock --root .
 *     bun examples/files.ts --listen tcp://127.0.0.1:8080 --root . --concurrency threading
 *     node examples/files.ts --listen tcp://127.0.0.1:8080 --root . --concurrency forking
 *
 * Then ask it: `curl --unix-socket /tmp/files.sock http://localhost/README.md`, or open http://127.0.0.1:8080/ in a browser.
 *
 * It answers GET and HEAD; a directory is its `index.html`. Nothing outside of the root is served, also not through a symbolic
 * link. `--mode`, in octal, is the permissions of a Unix socket's file: 600 by default, 660 for the group of a proxy in front.
 *
 * With `--concurrency sequential` a client that reads slowly makes everybody else wait. `async`, the default, is enough for copying
 * files. `threading` and `forking` are for a server that does more with them, such as compressing: requests share nothing but the files,
 * so that each can be handled anywhere.
 */
import { realpathSync, type Stats } from "node:fs";
import { type FileHandle, open, realpath, stat } from "node:fs/promises";
import { extname, join, sep } from "node:path";
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

/** The longest request line or header, in bytes, its end included. */
export const MAX_LINE = 8192;
/** The most headers. */
export const MAX_HEADERS = 100;
/** Bytes of a file in memory, for each request. */
const CHUNK = 65_536;
/** Bytes per second that a request must come with, at least: a client that sends a header a minute would hold its connection for ever. */
const MIN_READ_RATE = 100;
/** Milliseconds that a client has to take the last of an answer and close. */
const LINGER = 1000;

const REASONS: Record<number, string> = {
  200: "OK",
  301: "Moved Permanently",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  414: "URI Too Long",
  431: "Request Header Fields Too Large",
};

const TYPES: Record<string, string> = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".jpg": "image/jpeg",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".md": "text/markdown; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};

/** What ends a request without a file. */
class HTTPError extends Error {
  readonly status: number;
  readonly headers: Record<string, string>;

  constructor(status: number, headers: Record<string, string> = {}) {
    super(REASONS[status]);
    this.status = status;
    this.headers = headers;
  }
}

/** What the handlers know of their server, also in a thread or a process. */
export interface FileServerData {
  /** The directory whose files are served, without symbolic links in its own path. */
  root: string;
}

/** One request: a connection has only one, as HTTP/1.0 has it. */
export class FileHandler extends StreamRequestHandler {
  override timeout = 30_000;
  #method = "GET";
  #answered = false;

  override async handle(): Promise<void> {
    try {
      await this.#answer(await this.#readTarget());
    } catch (error) {
      // In the middle of a file there is no room for an answer: the client gets less than was announced, which it notices.
      if (this.#answered) throw error;
      const { status, headers } = toHTTPError(error);
      const body = `${status} ${REASONS[status]}\n`;
      await this.#head(status, { "content-type": "text/plain", "content-length": body.length, ...headers });
      if (this.#method !== "HEAD") await this.wfile.write(body);
    }
    // Closed with input unread, as after a refused POST, TCP would reset it, and the answer could be lost.
    await this.request.close({ linger: LINGER });
  }

  /** Reads the request up to the empty line. Only its first line matters here. */
  async #readTarget(): Promise<string> {
    const [, method, target] = /^([A-Z]+) (\/\S*) HTTP\/1\.\d$/.exec(await this.#readLine(414)) ?? [];
    for (let headers = 0; await this.#readLine(431) !== ""; headers++) {
      if (headers === MAX_HEADERS) throw new HTTPError(431);
    }
    if (method === undefined) throw new HTTPError(400);
    if (method !== "GET" && method !== "HEAD") throw new HTTPError(405, { allow: "GET, HEAD" });
    this.#method = method;
    return target!;
  }

  async #readLine(tooLong: number): Promise<string> {
    try {
      const line = await this.rfile.readLine({ limit: MAX_LINE });
      if (line === null) throw new HTTPError(400);
      return line;
    } catch (error) {
      throw error instanceof LimitOverrunError ? new HTTPError(tooLong) : error;
    }
  }

  async #answer(target: string): Promise<void> {
    const [path, stats] = await find((this.server.data as FileServerData).root, target);
    const file = await open(path);
    try {
      await this.#head(200, {
        "content-type": TYPES[extname(path)] ?? "application/octet-stream",
        "content-length": stats.size,
        "last-modified": stats.mtime.toUTCString(),
      });
      if (this.#method === "GET") await this.#send(file, stats.size);
    } finally {
      await file.close();
    }
  }

  /** Sends as much as was announced. A file that has become shorter meanwhile leaves the client with less, which it notices. */
  async #send(file: FileHandle, size: number): Promise<void> {
    const buffer = new Uint8Array(Math.min(CHUNK, size));
    for (let sent = 0; sent < size;) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, size - sent), sent);
      if (bytesRead === 0) return;
      // The next part is read once the client has taken this one; only then may the buffer be used again.
      await this.wfile.write(buffer.subarray(0, bytesRead));
      sent += bytesRead;
    }
  }

  async #head(status: number, headers: Record<string, string | number>): Promise<void> {
    this.#answered = true;
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    await this.wfile.write(`HTTP/1.0 ${status} ${REASONS[status]}\r\nconnection: close\r\n${lines.join("")}\r\n`);
  }
}

/** The file that a target names, below the root. */
async function find(root: string, target: string): Promise<[path: string, stats: Stats]> {
  let names: string[];
  try {
    // Decoded after it was split: an encoded slash is no separator, and no file's name has one.
    names = target.split(/[?#]/)[0]!.split("/").map(decodeURIComponent);
  } catch {
    throw new HTTPError(400);
  }
  if (names.some((name) => name.includes("\0"))) throw new HTTPError(400);
  if (names.some((name) => name === ".." || name.includes("/") || name.includes(sep))) throw new HTTPError(403);
  let path = await realpath(join(root, ...names));
  let stats = await within(root, path);
  if (stats.isDirectory()) {
    // Without the slash at its end, the links of the page would lead elsewhere.
    if (names.at(-1) !== "") {
      throw new HTTPError(301, { location: `/${names.filter((name) => name !== "").map(encodeURIComponent).join("/")}/` });
    }
    path = await realpath(join(path, "index.html"));
    stats = await within(root, path);
  } else if (names.at(-1) === "") {
    throw new HTTPError(404);
  }
  // A device or a pipe could keep the reader waiting for ever.
  if (!stats.isFile()) throw new HTTPError(403);
  return [path, stats];
}

async function within(root: string, path: string): Promise<Stats> {
  if (path !== root && !path.startsWith(root.endsWith(sep) ? root : root + sep)) throw new HTTPError(403);
  return await stat(path);
}

/** What the client is told of an error; throws what it can't be told, since the connection is lost. */
function toHTTPError(error: unknown): HTTPError {
  if (error instanceof HTTPError) return error;
  const { code } = error as { code?: string };
  if (error instanceof SocketError) {
    if (error.code === "ETIMEDOUT" && error.syscall === "read") return new HTTPError(408);
    throw error;
  }
  if (code === "ENOENT" || code === "ENOTDIR" || code === "ENAMETOOLONG") return new HTTPError(404);
  if (code === "EACCES" || code === "EPERM" || code === "ELOOP") return new HTTPError(403);
  throw error;
}

/** The server classes, by what is asked for on the command line, and the options that each takes. */
const SERVERS = {
  sequential: { tcp: TCPServer, unix: UnixStreamServer, options: {} },
  async: { tcp: AsyncTCPServer, unix: AsyncUnixStreamServer, options: {} },
  threading: { tcp: ThreadingTCPServer, unix: ThreadingUnixStreamServer, options: {} },
  // A handler leaves nothing behind that the next one could find, so a child may have any number of them.
  forking: { tcp: ForkingTCPServer, unix: ForkingUnixStreamServer, options: { requestsPerChild: Infinity } },
};

// deno-lint-ignore no-explicit-any
type AnyServer = new (...args: any[]) => TCPServer;

/** What a server is to be. */
export interface FileServerOptions {
  /** `sequential`, `async`, `threading` or `forking`. */
  concurrency?: string;
  /** The permissions of a Unix socket's file. */
  mode?: number;
  /** The handler, where it need not be found in this module. */
  Handler?: typeof FileHandler;
}

/** A server for the files below a directory. */
export function makeServer(address: string, directory: string, options: FileServerOptions = {}): TCPServer {
  const { concurrency = "async", mode = 0o600, Handler = FileHandler } = options;
  if (!Object.hasOwn(SERVERS, concurrency)) {
    throw new TypeError(`--concurrency takes ${Object.keys(SERVERS).join(", ")}, got ${concurrency}`);
  }
  const { transport } = parseAddress(address);
  if (transport !== "tcp" && transport !== "unix") {
    throw new TypeError(`--listen takes tcp://HOST:PORT or unix:PATH, got ${address}`);
  }
  const { [transport]: Server, options: own } = SERVERS[concurrency as keyof typeof SERVERS];
  const elsewhere = concurrency === "threading" || concurrency === "forking";
  // A thread or a process finds the class in this module.
  const handler = elsewhere ? new URL(`#${FileHandler.name}`, import.meta.url) : Handler;
  const data: FileServerData = { root: realpathSync(directory) };
  const limits = { minReadRate: MIN_READ_RATE };
  const server = new (Server as AnyServer)(address, handler, {
    ...own,
    ...limits,
    ...(transport === "unix" ? { mode } : {}),
    data,
  });
  const { handleError } = server;
  // A client that vanishes is worth a line, not a stack; one that was closed here, at the end, nothing.
  server.handleError = (request, clientAddress, error) => {
    if (request === null || !(error instanceof SocketError)) return handleError.call(server, request, clientAddress, error);
    if (error.code !== "ECONNABORTED") console.error(error.message);
  };
  return server;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "tcp://127.0.0.1:0" },
      root: { type: "string", default: "." },
      mode: { type: "string", default: "600" },
      concurrency: { type: "string", default: "async" },
    },
  });
  if (!/^[0-7]{3,4}$/.test(values.mode)) throw new TypeError(`--mode takes octal digits such as 660, got ${values.mode}`);
  const { listen, root, mode, concurrency } = values;
  const server = makeServer(listen, root, { concurrency, mode: parseInt(mode, 8) });
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

/**
 * A file server: HTTP/1.0 on a Unix socket or on TCP, for the files below a directory.
 *
 *     deno run -A examples/files.ts --listen unix:/tmp/files.sock --root .
 *     bun examples/files.ts --listen tcp://127.0.0.1:8080 --root .
 *     node examples/files.ts --listen tcp://127.0.0.1:8080 --root .
 *
 * Then ask it: `curl --unix-socket /tmp/files.sock http://localhost/README.md`, or open http://127.0.0.1:8080/ in a browser.
 *
 * It answers GET and HEAD; a directory is its `index.html`. Nothing outside of the root is served, also not through a symbolic
 * link. `--mode`, in octal, is the permissions of a Unix socket's file: 600 by default, 660 for the group of a proxy in front.
 */
import { realpathSync, type Stats } from "node:fs";
import { type FileHandle, open, realpath, stat } from "node:fs/promises";
import { extname, join, sep } from "node:path";
import { parseArgs } from "node:util";
import {
  type Address,
  AsyncTCPServer,
  AsyncUnixStreamServer,
  type Connection,
  formatAddress,
  LimitOverrunError,
  parseAddress,
  SocketError,
  StreamRequestHandler,
  type TCPServer,
} from "../mod.ts";

/** The longest request line or header, in bytes, its end included. */
export const MAX_LINE = 8192;
/** The most headers. */
export const MAX_HEADERS = 100;
/** Bytes of a file in memory, for each request. */
const CHUNK = 65_536;
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

/** One request: a connection has only one, as HTTP/1.0 has it. */
export class FileHandler extends StreamRequestHandler {
  override timeout = 30_000;
  /** The directory whose files are served, without symbolic links in its own path. */
  root = "/var/empty";
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
    await this.#close();
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
    const [path, stats] = await find(this.root, target);
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

  /** Lets the client finish. Closed with input unread, as after a refused POST, TCP would reset it, and the answer could be lost. */
  async #close(): Promise<void> {
    await this.request.closeWrite();
    const timer = setTimeout(() => void this.request.close(), LINGER);
    try {
      while (await this.request.read() !== null);
    } catch (error) {
      // The client is gone, or its time was up: either way it has its answer.
      if (!(error instanceof SocketError)) throw error;
    } finally {
      clearTimeout(timer);
    }
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

/** A client that vanishes is worth a line, not a stack; one that was closed here, at the end, nothing. */
function report(request: Connection | null, error: unknown): boolean {
  if (request === null || !(error instanceof SocketError)) return false;
  if (error.code !== "ECONNABORTED") console.error(error.message);
  return true;
}

class TCPFileServer extends AsyncTCPServer {
  override handleError(request: Connection | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    if (!report(request, error)) return super.handleError(request, clientAddress, error);
  }
}

class UnixFileServer extends AsyncUnixStreamServer {
  override handleError(request: Connection | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    if (!report(request, error)) return super.handleError(request, clientAddress, error);
  }
}

/** A server for the files below a directory. */
export function makeServer(address: string, directory: string, mode = 0o600, Handler = FileHandler): TCPServer {
  const root = realpathSync(directory);
  class RootHandler extends Handler {
    override root = root;
  }
  switch (parseAddress(address).transport) {
    case "tcp":
      return new TCPFileServer(address, RootHandler);
    case "unix":
      return new UnixFileServer(address, RootHandler, { mode });
    default:
      throw new TypeError(`--listen takes tcp://HOST:PORT or unix:PATH, got ${address}`);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "tcp://127.0.0.1:0" },
      root: { type: "string", default: "." },
      mode: { type: "string", default: "600" },
    },
  });
  if (!/^[0-7]{3,4}$/.test(values.mode)) throw new TypeError(`--mode takes octal digits such as 660, got ${values.mode}`);
  const server = makeServer(values.listen, values.root, parseInt(values.mode, 8));
  await server.activate();
  console.log(`listening ${formatAddress(server.serverAddress)}`);
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => void server.shutdown({ drain: 1000 }));
  }
  await server.serveForever();
  await server.serverClose();
}

if (import.meta.main) {
  main().catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}

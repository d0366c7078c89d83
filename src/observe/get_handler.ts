import type { BaseServer } from "../base_server.ts";
import { LimitOverrunError, SocketError } from "../errors.ts";
import { StreamRequestHandler } from "../stream_request_handler.ts";

/** What a path is answered with. */
export interface Answer {
  /** The media type. */
  readonly type: string;
  readonly body: string;
}

/** The longest request line or header, in bytes, its end included. */
const MAX_LINE = 8192;
/** The most headers. */
const MAX_HEADERS = 100;
/** Bytes of an answer that are written at once. */
const PIECE_BYTES = 262_144;
/** Clients at once. One more, and another has to leave for it. */
const MAX_CLIENTS = 100;
/** Milliseconds that a client has to take the answer and close. */
const LINGER = 1000;
/** An IP address, a v6 one in brackets, or a name, and perhaps a port: RFC 9110, section 7.2. */
const HOST = /^(?:(\d+\.\d+\.\d+\.\d+|\[[\da-f:.]+\])|([^:/?#@[\]]+))(?::\d*)?$/;

const REASONS: Record<number, string> = {
  200: "OK",
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  421: "Misdirected Request",
  431: "Request Header Fields Too Large",
};

/**
 * For pages that are for nobody else's: nothing comes from elsewhere, nothing frames or reads them, nothing is kept.
 * `default-src` covers what is not named.
 */
const HEADERS = [
  "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy: same-origin",
  "x-content-type-options: nosniff",
  "referrer-policy: no-referrer",
  "cache-control: no-store",
  "connection: close",
].join("\r\n");

/**
 * Answers GET requests, one for each connection, as HTTP/1.0 has it.
 *
 * A web page elsewhere could have its own name resolve to this server's address, and then read what is here as if it were its own. The
 * Host header tells: it is an IP address, `localhost`, or a name that the subclass knows, or there is no answer.
 */
export abstract class GetHandler extends StreamRequestHandler {
  override timeout = 10_000;
  /** Milliseconds that a client has for the whole of its request, however many bytes it sends of it. */
  protected headerTimeout = 5000;
  /** Whether the answer is being made or sent: else the client has not asked yet, or has its answer. */
  #answering = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** What is at a path; `null` for nothing. */
  protected abstract answer(path: string): Answer | null | Promise<Answer | null>;

  /** Whether this is a name of the server's. */
  protected isOwnName(name: string): boolean {
    return name === "localhost";
  }

  /** Lets the client in, in place of the one that has been here longest without asking for anything, if there are too many. */
  override setup(): void {
    super.setup();
    const clients = clientsOf(this.server);
    if (clients.size >= MAX_CLIENTS) {
      const all = [...clients];
      (all.find((client) => !client.#answering) ?? all[0]!).#leave();
    }
    clients.add(this);
    this.#timer = setTimeout(() => this.#leave(), this.headerTimeout);
  }

  override finish(): void | Promise<void> {
    clearTimeout(this.#timer);
    clientsOf(this.server).delete(this);
    return super.finish();
  }

  override async handle(): Promise<void> {
    try {
      const asked = await this.#readRequest();
      this.#answering = true;
      clearTimeout(this.#timer);
      const answer = typeof asked === "string" ? await this.answer(asked) : null;
      const status = typeof asked === "number" ? asked : answer === null ? 404 : 200;
      const { type, body } = answer ?? { type: "text/plain; charset=utf-8", body: `${status} ${REASONS[status]}\n` };
      const allow = status === 405 ? "\r\nallow: GET" : "";
      const bytes = new TextEncoder().encode(body);
      await this.wfile.write(
        `HTTP/1.0 ${status} ${
          REASONS[status]
        }\r\n${HEADERS}${allow}\r\ncontent-type: ${type}\r\ncontent-length: ${bytes.length}\r\n\r\n`,
      );
      // In pieces, so that a long answer is no more in memory than its reader keeps up with.
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) await this.wfile.write(bytes.subarray(at, at + PIECE_BYTES));
      this.#answering = false;
      // Closed with input unread, as after a refused POST, TCP would reset it, and the answer could be lost.
      await this.request.close({ linger: LINGER });
    } catch (error) {
      // A client that vanishes or is too slow is nobody's affair.
      if (!(error instanceof SocketError)) throw error;
    }
  }

  #leave(): void {
    // Its handler may take a moment to notice.
    clientsOf(this.server).delete(this);
    this.request.abort();
  }

  /** The path that is asked for, or the status of a request that is none. */
  async #readRequest(): Promise<string | number> {
    let line: string | null;
    let host: string | null = null;
    const request = await this.#readLine();
    if (request === null) return 431;
    for (let headers = 0; (line = await this.#readLine()) !== ""; headers++) {
      if (line === null || headers === MAX_HEADERS) return 431;
      const [, value] = /^host:[ \t]*(.*?)[ \t]*$/i.exec(line) ?? [];
      if (value === undefined) continue;
      // RFC 9112, section 3.2: more than one is a bad request, and so is none.
      if (host !== null) return 400;
      host = value.toLowerCase();
    }
    const [, method, target] = /^([A-Z]+) (\/\S*) HTTP\/1\.\d$/.exec(request) ?? [];
    if (method === undefined || host === null) return 400;
    const [, ip, name] = HOST.exec(host) ?? [];
    if (ip === undefined && (name === undefined || !this.isOwnName(name))) return 421;
    if (method !== "GET") return 405;
    return target!.split("?")[0]!;
  }

  /** The next line; `null` when it is too long. The end of the stream ends the headers. */
  async #readLine(): Promise<string | null> {
    try {
      return await this.rfile.readLine({ limit: MAX_LINE }) ?? "";
    } catch (error) {
      if (error instanceof LimitOverrunError) return null;
      throw error;
    }
  }
}

/** The clients of each server, in the order in which they came. */
const clientsOfServers = new WeakMap<BaseServer, Set<GetHandler>>();

function clientsOf(server: BaseServer): Set<GetHandler> {
  let clients = clientsOfServers.get(server);
  if (clients === undefined) clientsOfServers.set(server, clients = new Set());
  return clients;
}

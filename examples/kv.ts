/**
 * A key-value store in memory, with a protocol of lines.
 *
 *     deno run --allow-net=127.0.0.1 examples/kv.ts --listen tcp://127.0.0.1:9000
 *     bun examples/kv.ts --listen tcp://127.0.0.1:9000
 *     node examples/kv.ts --listen tcp://127.0.0.1:9000
 *
 * Then talk to it: `nc 127.0.0.1 9000`, or `printf 'SET color dark red\nGET color\nQUIT\n' | nc 127.0.0.1 9000`.
 *
 *     SET key value   OK              the value is the rest of the line, spaces included
 *     GET key         the value       NONE without one
 *     DEL key         OK              NONE without one
 *     INCR key        the new number  a key without a value counts from 0
 *     KEYS            the keys        separated by spaces; NONE without one
 *     QUIT            OK              and the connection is closed
 *
 * Every reply is one line. What can't be done is answered with `ERROR` and the reason.
 */
import { parseArgs } from "node:util";
import {
  type Address,
  AsyncTCPServer,
  type Connection,
  formatAddress,
  handleSignals,
  LimitOverrunError,
  type RequestHandlerClass,
  SocketError,
  StreamRequestHandler,
  type TCPServerOptions,
} from "../mod.ts";

/** The longest line that is taken, in bytes, its end included. */
export const MAX_LINE = 4096;
/** The most keys that are kept. With `MAX_LINE` it bounds what the clients can make the server hold: about 40 MB of text. */
export const MAX_KEYS = 10_000;
/** The longest key, in UTF-16 code units, so that the reply to `KEYS` stays small as well. */
export const MAX_KEY = 64;
/** Milliseconds that a client has to take the last reply and close. */
const LINGER = 1000;

/** One client's conversation. There is an instance for each connection; what they share is the server's. */
export class KVHandler extends StreamRequestHandler {
  declare readonly server: KVServer;
  override timeout = 60_000;

  override async handle(): Promise<void> {
    for (;;) {
      let line: string | null;
      try {
        line = await this.rfile.readLine({ limit: MAX_LINE });
      } catch (error) {
        if (error instanceof LimitOverrunError) return this.#close(`ERROR a line may have ${MAX_LINE} bytes`);
        // Idle, that is, if the connection itself is still there.
        if (error instanceof SocketError && error.code === "ETIMEDOUT" && this.request.error === null) {
          return this.#close(`ERROR idle for ${this.timeout / 1000} seconds`);
        }
        throw error;
      }
      if (line === null) return;
      if (/^quit$/i.test(line)) return this.#close("OK");
      // Awaiting it keeps a client that sends much and reads nothing from filling the memory with replies.
      await this.wfile.write(this.server.execute(line) + "\n");
    }
  }

  /**
   * Sends the last reply and its end, then lets the client finish. Closed with input unread, the connection would be reset, and
   * the client could lose the reply.
   */
  async #close(reply: string): Promise<void> {
    await this.wfile.write(reply + "\n");
    await this.request.close({ linger: LINGER });
  }
}

/** The server, and the store that its clients share. */
export class KVServer extends AsyncTCPServer {
  /** Keys and values. Handlers take turns only where they await, so that a command, which doesn't, needs no lock. */
  readonly store: Map<string, string> = new Map();

  constructor(address: string | Address, Handler: RequestHandlerClass = KVHandler, options: TCPServerOptions = {}) {
    super(address, Handler, options);
  }

  /** Does what a line asks for and returns the reply. */
  execute(line: string): string {
    const [name = "", key = "", ...rest] = line.split(" ");
    const command = name.toUpperCase();
    switch (command) {
      case "SET":
        if (key === "" || rest.length === 0) return "ERROR usage: SET key value";
        return this.#put(key, rest.join(" ")) ?? "OK";
      case "GET":
      case "DEL":
      case "INCR":
        if (key === "" || rest.length > 0) return `ERROR usage: ${command} key`;
        if (command === "GET") return this.store.get(key) ?? "NONE";
        if (command === "DEL") return this.store.delete(key) ? "OK" : "NONE";
        return this.#increment(key);
      case "KEYS":
        if (line.length > command.length) return "ERROR usage: KEYS";
        return [...this.store.keys()].join(" ") || "NONE";
      default:
        return "ERROR commands: SET, GET, DEL, INCR, KEYS, QUIT";
    }
  }

  /** A client that vanishes is worth a line, not a stack; one that was closed here, at the end, nothing. */
  override handleError(request: Connection | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    if (request === null || !(error instanceof SocketError)) return super.handleError(request, clientAddress, error);
    if (error.code !== "ECONNABORTED") console.error(error.message);
  }

  #increment(key: string): string {
    const value = this.store.get(key) ?? "0";
    const sum = Number(value) + 1;
    if (!/^-?\d+$/.test(value) || !Number.isSafeInteger(sum)) return "ERROR not an integer, or too large a one";
    return this.#put(key, String(sum)) ?? String(sum);
  }

  /** Stores a value; the reply when it can't be. */
  #put(key: string, value: string): string | null {
    if (key.length > MAX_KEY) return `ERROR a key may have ${MAX_KEY} characters`;
    if (!this.store.has(key) && this.store.size >= MAX_KEYS) return `ERROR full: there are ${MAX_KEYS} keys`;
    this.store.set(key, value);
    return null;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { listen: { type: "string", default: "tcp://127.0.0.1:0" } } });
  const server = new KVServer(values.listen);
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

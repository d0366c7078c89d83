/** What the conformance cases run on: the running runtime's sockets, and memory; each with a client that is not ours where there is one. */
import { readFileSync } from "node:fs";
import { connect as netConnect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { connect as tlsConnect } from "node:tls";
import {
  type Address,
  connect,
  type Connection,
  getRuntime,
  type Runtime,
  type TCPServer,
  type TCPServerOptions,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { authority, certificate } from "./certificates.ts";

/** A client as a test sees it. */
export interface Client {
  /** Sends bytes or text; resolves when they have been taken. */
  write(data: Uint8Array | string): Promise<void>;
  /** Ends the sending side. */
  end(): Promise<void>;
  /** Ends the connection at once, with a reset. */
  reset(): void;
  /** Reads until at least so many bytes are there; fewer at the end of the stream. */
  read(size: number): Promise<string>;
  /** Reads to the end of the stream. */
  readAll(): Promise<Uint8Array>;
  /** Resolves when the connection is gone: with the code of what it died of, or `null`. */
  readonly gone: Promise<string | null>;
  /** The client's own port, as the server should see it; a Unix socket has none. */
  readonly port: number | undefined;
}

/** An adapter under test. */
export interface Adapter {
  readonly runtime: Runtime;
  readonly transport: "tcp" | "unix";
  /** What the names of the tests call it. */
  readonly name: string;
  /** What a server needs. */
  readonly options: TCPServerOptions;
  /** An address that nobody has, for the server. */
  freshAddress(): string;
  /** Connects a client to a server that listens; from an address of its own where there are any. */
  open(server: TCPServer, localAddress?: string): Promise<Client>;
  /** Connects our own. */
  connect(server: TCPServer): Promise<Connection>;
}

export const adapters: Adapter[] = [getRuntime(), memory].flatMap((runtime) => {
  const open = runtime === memory
    ? async (server: TCPServer) => wrap(await connect(server.serverAddress, { runtime }))
    : (server: TCPServer, localAddress?: string) => openSocket(server.serverAddress, localAddress);
  const common = {
    runtime,
    options: { runtime },
    open,
    connect: (server: TCPServer) => connect(server.serverAddress, { runtime }),
  };
  return [
    { ...common, transport: "tcp", name: "tcp", freshAddress: () => "tcp://127.0.0.1:0" },
    { ...common, transport: "unix", name: "unix", freshAddress: () => `unix:${freshPath()}` },
  ];
});

/** The same with TLS, which memory has not. */
export const tlsAdapters: Adapter[] = adapters.filter(({ runtime }) => runtime !== memory).map((adapter) => ({
  ...adapter,
  name: adapter.transport === "tcp" ? "tls" : "tls_unix",
  get options() {
    return { ...adapter.options, tls: certificate("localhost") };
  },
  open: (server) => openTlsSocket(server.serverAddress),
  connect: (server) => connect(server.serverAddress, { tls: { ca: authority().cert, servername: "localhost" } }),
}));

/** Bytes that are taken from a peer at most before its connection is read: 64 KiB, and the chunk that goes past it. */
export function mostTakenAhead(runtime: Runtime): number {
  // What each runtime reads at once.
  return 65_536 + { deno: 65_536, bun: 524_288, node: 65_536, memory: 0 }[runtime.name];
}

/** A path in the temporary directory that nobody has used. */
export function freshPath(): string {
  return `${tmpdir()}/sockets-${crypto.randomUUID()}`;
}

/** The port that a server is bound to. */
export function portOf(server: TCPServer): number {
  return "port" in server.serverAddress ? server.serverAddress.port : -1;
}

/** A client over `node:net`, which all three runtimes have. */
export function openSocket(address: Address, localAddress?: string): Promise<Client> {
  const where = "path" in address ? { path: address.path } : { port: address.port, host: address.hostname, localAddress };
  return new Promise((resolve, reject) => {
    const socket = netConnect({ ...where, allowHalfOpen: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(new SocketClient(socket));
    });
  });
}

/** The same over `node:tls`. */
export function openTlsSocket(address: Address): Promise<Client> {
  const where = "path" in address ? { path: address.path } : { port: address.port, host: address.hostname };
  return new Promise((resolve, reject) => {
    const below = netConnect({ ...where, allowHalfOpen: true });
    below.once("error", reject);
    const socket = tlsConnect({ socket: below, ca: readFileSync(authority().cert, "utf8"), servername: "localhost" });
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      socket.off("error", reject);
      resolve(new SocketClient(socket, below));
    });
  });
}

class SocketClient implements Client {
  readonly gone: Promise<string | null>;
  readonly port: number | undefined;
  #socket: Socket;
  /** The one that reaches the network. */
  #below: Socket;
  #received: Uint8Array[] = [];
  #size = 0;
  #ended = false;
  #wake = () => {};

  constructor(socket: Socket, below = socket) {
    this.#socket = socket;
    this.#below = below;
    this.port = below.localPort;
    let code: string | null = null;
    socket.on("error", (error: Error & { code?: string }) => code = error.code ?? "?");
    this.gone = new Promise((resolve) => {
      socket.on("close", () => {
        resolve(code);
        this.#finish();
      });
    });
    socket.on("end", () => this.#finish());
    socket.on("data", (chunk: Uint8Array) => {
      this.#received.push(chunk);
      this.#size += chunk.length;
      this.#wake();
    });
  }

  write(data: Uint8Array | string): Promise<void> {
    // Deno's TLS sockets never call back for nothing.
    if (data.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => this.#socket.write(data, (error) => error ? reject(error) : resolve()));
  }

  end(): Promise<void> {
    return new Promise((resolve) => this.#socket.end(() => resolve()));
  }

  reset(): void {
    if (this.port === undefined) this.#below.destroy();
    else this.#below.resetAndDestroy();
  }

  async read(size: number): Promise<string> {
    while (this.#size < size && !this.#ended) await this.#more();
    return new TextDecoder().decode(this.#take());
  }

  async readAll(): Promise<Uint8Array> {
    while (!this.#ended) await this.#more();
    return this.#take();
  }

  #more(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }

  #finish(): void {
    this.#ended = true;
    this.#wake();
  }

  #take(): Uint8Array {
    const all = Buffer.concat(this.#received);
    this.#received = [];
    this.#size = 0;
    return new Uint8Array(all);
  }
}

/** A client over our own connection: the only one that memory has. */
function wrap(connection: Connection): Client {
  const take = async (until: (size: number) => boolean) => {
    const received: Uint8Array[] = [];
    let size = 0;
    try {
      while (!until(size)) {
        const chunk = await connection.read();
        if (chunk === null) break;
        received.push(chunk);
        size += chunk.length;
      }
    } catch {
      // As with a socket: what arrived before the end is what was read; `gone` tells how it ended.
    }
    return new Uint8Array(Buffer.concat(received));
  };
  return {
    write: async (data) => await connection.write(data),
    end: () => connection.closeWrite(),
    reset: () => connection.abort(),
    read: async (wanted) => new TextDecoder().decode(await take((size) => size >= wanted)),
    readAll: () => take(() => false),
    gone: connection.closed.then(() => connection.error?.code ?? null),
    port: "port" in connection.localAddress ? connection.localAddress.port : undefined,
  };
}

/** Datagram clients that are not ours: `node:dgram` for UDP, Perl for Unix datagrams; in memory there is none but our own. */
import { bind, type DatagramSocket, formatAddress, type UDPServer } from "@sockets/server";
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket, type Socket } from "node:dgram";
import { fileURLToPath } from "node:url";
import { decodePath, encodePath } from "../../src/path_bytes.ts";
import { freshPath } from "./adapters.ts";

/** A datagram client as a test sees it. */
export interface DatagramClient {
  /** Its address as the server should see it, as text; `null` when it has none. */
  readonly address: string | null;
  /** Sends to the server. */
  send(data: Uint8Array | string): Promise<void>;
  /** The next datagram that it received, as bytes; `from` is its sender. */
  receive(): Promise<{ data: Uint8Array; from: string }>;
  close(): Promise<void>;
}

/** Opens the client that fits a server's address. */
export async function openDatagramClient(server: UDPServer): Promise<DatagramClient> {
  const { serverAddress: address, runtime } = server;
  if (runtime.name === "memory") {
    const from = "path" in address ? `unixgram:${freshPath()}` : "udp://127.0.0.1:0";
    return new MemoryClient(await bind(from, { runtime }), server);
  }
  if ("path" in address) return PerlClient.open(address.path, freshPath());
  return UdpClient.open(address.port, address.hostname.includes(":") ? "::1" : "127.0.0.1");
}

/** Milliseconds after which a datagram that a test waits for counts as lost. */
const LOST_AFTER_MS = 20_000;

/** What has been received and not been asked for. */
class Inbox<T> {
  #items: T[] = [];
  #wake = () => {};
  #what: string;

  /** @param what What a test waits for here. */
  constructor(what: string) {
    this.#what = what;
  }

  put(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  async take(): Promise<T> {
    while (this.#items.length === 0) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${this.#what} has not come within ${LOST_AFTER_MS} ms`)), LOST_AFTER_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#items.shift()!;
  }
}

export class UdpClient implements DatagramClient {
  readonly socket: Socket;
  #port: number;
  #host: string;
  #inbox = new Inbox<{ data: Uint8Array; from: string }>("a datagram");

  constructor(socket: Socket, port: number, host: string) {
    this.socket = socket;
    this.#port = port;
    this.#host = host;
    socket.on("message", (data, { address, port, family }) => {
      this.#inbox.put({
        data: new Uint8Array(data),
        from: family === "IPv6" ? `udp://[${address}]:${port}` : `udp://${address}:${port}`,
      });
    });
  }

  static open(port: number, host: string): Promise<UdpClient> {
    const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
    return new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.bind(0, host, () => resolve(new UdpClient(socket, port, host)));
    });
  }

  get address(): string {
    const { address, port } = this.socket.address();
    return address.includes(":") ? `udp://[${address}]:${port}` : `udp://${address}:${port}`;
  }

  send(data: Uint8Array | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.send(data, this.#port, this.#host, (error) => error ? reject(error) : resolve());
    });
  }

  receive(): Promise<{ data: Uint8Array; from: string }> {
    return this.#inbox.take();
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.socket.close(() => resolve()));
  }
}

/** A client in Perl, which every Debian has. */
export class PerlClient implements DatagramClient {
  readonly address: string | null;
  readonly path: string | null;
  #server: string;
  #child: ChildProcess;
  /** Resolves when the process is gone. */
  readonly exited: Promise<void>;
  #inbox = new Inbox<{ data: Uint8Array; from: string }>("a datagram");
  #answers = new Inbox<string>("Perl's answer");

  constructor(child: ChildProcess, server: string, path: string | null) {
    this.#child = child;
    this.#server = server;
    this.path = path;
    this.address = path === null ? null : `unixgram:${path}`;
    this.exited = new Promise((resolve) => child.once("exit", () => resolve()));
    let rest = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const [, from, data] = /^from (\S*) (\S*)$/.exec(line) ?? [];
        if (from === undefined) this.#answers.put(line);
        else {
          this.#inbox.put({
            data: new Uint8Array(Buffer.from(data!, "hex")),
            from: `unixgram:${decodePath(Buffer.from(from, "hex"))}`,
          });
        }
      }
    });
  }

  /** @param path The client's own; `null` for none. */
  static async open(server: string, path: string | null): Promise<PerlClient> {
    const program = fileURLToPath(new URL("./programs/unixgram.pl", import.meta.url));
    const child = spawn("perl", [program, ...(path === null ? [] : [hex(encodePath(path))])], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const client = new PerlClient(child, server, path);
    const ready = await client.#answers.take();
    if (ready !== "ready") throw new Error(`perl said ${ready}`);
    return client;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async send(data: Uint8Array | string): Promise<void> {
    const answer = await this.#command(`send ${hex(encodePath(this.#server))} ${hex(data)}`);
    if (answer !== "sent") throw new Error(`send ${answer}`);
  }

  /** Sends numbered datagrams as fast as the receiver takes them. */
  burst(count: number): Promise<string> {
    return this.#command(`burst ${hex(encodePath(this.#server))} ${count}`);
  }

  /** Receives nothing more, so that its queue fills. */
  quiet(): void {
    this.#child.stdin!.write("quiet\n");
  }

  receive(): Promise<{ data: Uint8Array; from: string }> {
    return this.#inbox.take();
  }

  async close(): Promise<void> {
    this.#child.stdin!.end();
    await this.exited;
    if (this.path !== null && !this.path.startsWith("\0")) process.getBuiltinModule("node:fs").rmSync(this.path, { force: true });
  }

  #command(line: string): Promise<string> {
    this.#child.stdin!.write(line + "\n");
    return this.#answers.take();
  }
}

function hex(data: Uint8Array | string): string {
  return Buffer.from(data).toString("hex");
}

class MemoryClient implements DatagramClient {
  readonly address: string;
  #socket: DatagramSocket;
  #server: UDPServer;

  constructor(socket: DatagramSocket, server: UDPServer) {
    this.#socket = socket;
    this.#server = server;
    this.address = formatAddress(socket.address);
  }

  async send(data: Uint8Array | string): Promise<void> {
    await this.#socket.send(data, this.#server.serverAddress);
  }

  async receive(): Promise<{ data: Uint8Array; from: string }> {
    const datagram = (await this.#socket.receive())!;
    return { data: datagram.data, from: formatAddress(datagram.address!) };
  }

  close(): Promise<void> {
    return this.#socket.close();
  }
}

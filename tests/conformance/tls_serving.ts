/** Servers with TLS, and their clients, for as long as a test does. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect as netConnect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from "node:tls";
import {
  type Address,
  AsyncTCPServer,
  type InetAddress,
  type RequestHandlerClass,
  type SocketError,
  StreamRequestHandler,
  type TCPServer,
  type TCPServerOptions,
  type TlsOptions,
} from "@sockets/server";
import { authority, certificate, type Files } from "./certificates.ts";
import { type Quiet, quiet } from "./serving.ts";

/** What a test's server has learnt. */
export interface Observed {
  port: number;
  failures: [code: string, message: string, address: Address | null][];
  errors: unknown[];
}

/** Serves with TLS while `use` runs. */
export async function serving(
  tls: TlsOptions,
  Handler: RequestHandlerClass,
  use: (server: TCPServer & Observed) => Promise<void>,
  Server: typeof TCPServer = AsyncTCPServer,
  options: TCPServerOptions = {},
): Promise<void> {
  class TlsServer extends (quiet(Server) as typeof TCPServer) {
    failures: unknown[] = [];
    get port() {
      return (this.serverAddress as InetAddress).port;
    }
    override handleHandshakeError(error: SocketError, address: Address | null): void {
      this.failures.push([error.code, error.message, address]);
    }
  }
  const server = new TlsServer("tls://127.0.0.1:0", Handler, { tls, shutdownTimeout: 0, ...options });
  await server.activate();
  const served = server.serveForever();
  try {
    await use(server as unknown as TCPServer & Observed);
  } finally {
    await server.serverClose();
    await served;
  }
}

/** A client over `node:tls`, once its handshake is done. */
export function open(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const ca = readFileSync(authority().cert, "utf8");
    const socket = tlsConnect({ port, host: "127.0.0.1", ca, servername: "localhost", ...options });
    socket.once("error", reject);
    socket.once("secureConnect", () => resolve(socket));
  });
}

export function plain(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = netConnect({ port, host: "127.0.0.1" });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

export const closed = (socket: Socket): Promise<void> => new Promise<void>((resolve) => socket.once("close", () => resolve()));
/** The certificate of most servers. */
export const local = (): Files => certificate("localhost");

/** As little of SMTP as STARTTLS takes (RFC 3207), then an echo of lines. */
export function mailHandler(tls: TlsOptions, seen: string[]): RequestHandlerClass {
  return class extends StreamRequestHandler {
    override async handle(): Promise<void> {
      await this.wfile.write("220 mail.test ready\r\n");
      for await (const line of this.rfile) {
        seen.push(`${this.request.tls === null ? "clear" : "secured"}: ${line}`);
        if (line.startsWith("EHLO")) await this.wfile.write("250-mail.test\r\n250 STARTTLS\r\n");
        else if (line !== "STARTTLS") await this.wfile.write(`${line}\r\n`);
        else {
          await this.wfile.write("220 go ahead\r\n");
          await this.request.startTls(tls);
        }
      }
    }
  };
}

export async function plainServing(
  Handler: RequestHandlerClass,
  use: (server: TCPServer & { port: number; errors: unknown[] }) => Promise<void>,
  Server: typeof TCPServer = AsyncTCPServer,
  options: TCPServerOptions = {},
): Promise<void> {
  const server = new (quiet(Server))("tcp://127.0.0.1:0", Handler, { shutdownTimeout: 0, ...options });
  await server.activate();
  const served = server.serveForever();
  try {
    await use(Object.assign(server as TCPServer & Quiet, { port: (server.serverAddress as InetAddress).port }));
  } finally {
    await server.serverClose();
    await served;
  }
}

export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "sockets-tls-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

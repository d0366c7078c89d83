import type * as net from "node:net";
import { type Address, inetAddress } from "../src/address.ts";
import { SocketError } from "../src/errors.ts";
import type { ConnectOptions, Listener, ListenOptions, RawConnection, Runtime } from "../src/runtime.ts";
import { AcceptQueue } from "./shared/accept_queue.ts";
import { EventedConnection } from "./shared/evented_connection.ts";
import { ignore, rejected } from "./shared/promises.ts";
import { resolveHost, toSocketError } from "./shared/translate.ts";

/** Node's sockets: `node:net`. */
export const node: Runtime = {
  name: "node",
  capabilities: { reset: true, reusePort: true, ipv6Only: true, keepAliveDelay: true },

  async listen(options: ListenOptions): Promise<Listener> {
    const { address, backlog, reusePort, ipv6Only, noDelay, keepAlive } = options;
    const host = await resolveHost(address, options.family);
    const server = process.getBuiltinModule("node:net").createServer({
      allowHalfOpen: true,
      noDelay,
      keepAlive: keepAlive !== false,
      keepAliveInitialDelay: typeof keepAlive === "number" ? keepAlive : 0,
    });
    const queue = new AcceptQueue(backlog);
    server.on("connection", (socket) => {
      const connection = new NodeConnection(socket);
      if (!queue.offer(connection)) connection.hold();
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) => reject(toSocketError(cause, "listen", address)));
      server.listen({ host, port: address.port, backlog, reusePort, ipv6Only }, resolve);
    });
    const bound = server.address() as net.AddressInfo;
    const local = inetAddress("tcp", bound.address, bound.port);
    server.removeAllListeners("error");
    server.on("error", (cause) => queue.fail(toSocketError(cause, "accept", local)));
    return {
      address: local,
      get refused() {
        return queue.refused;
      },
      accept: () => queue.accept(),
      interrupt: () => queue.interrupt(),
      close() {
        // The address is free at once; the callback of close() would wait for the connections as well.
        server.close();
        queue.close();
        return Promise.resolve();
      },
    };
  },

  connect({ address, noDelay }: ConnectOptions): Promise<RawConnection> {
    return new Promise((resolve, reject) => {
      const socket = process.getBuiltinModule("node:net").connect({
        host: address.hostname,
        port: address.port,
        noDelay,
        allowHalfOpen: true,
      });
      const failed = (cause: Error) => reject(toSocketError(cause, "connect", address));
      socket.once("error", failed);
      socket.once("connect", () => {
        socket.off("error", failed);
        resolve(new NodeConnection(socket));
      });
    });
  },
};

const EMPTY = new Uint8Array(0);
const CONNECTION = Symbol("connection");
type OwnedSocket = net.Socket & { [CONNECTION]: NodeConnection };

class NodeConnection extends EventedConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  #socket: net.Socket;
  #sendEnded = false;

  constructor(socket: net.Socket) {
    super();
    this.#socket = socket;
    this.localAddress = inetAddress("tcp", socket.localAddress, socket.localPort);
    this.remoteAddress = inetAddress("tcp", socket.remoteAddress, socket.remotePort);
    // The listeners are shared by all connections; a closure for each would cost more memory than the rest of this object.
    (socket as OwnedSocket)[CONNECTION] = this;
    socket.on("data", onData).on("end", onEnd).on("error", onError).on("close", onClose);
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("write"));
    if (this.#sendEnded) return rejected(this.#brokenPipe());
    this.#socket.write(bytes);
    // Zero when the kernel has taken it all. If not, an empty write behind it tells when it has.
    if (this.#socket.writableLength === 0) return;
    return this.#taken((callback) => this.#socket.write(EMPTY, callback));
  }

  closeWrite(): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("shutdown"));
    if (this.#sendEnded) return;
    this.#sendEnded = true;
    return this.#taken((callback) => this.#socket.end(callback));
  }

  setNoDelay(on: boolean): void {
    this.#socket.setNoDelay(on);
  }

  setKeepAlive(on: boolean | number): void {
    this.#socket.setKeepAlive(on !== false, typeof on === "number" ? on : 0);
  }

  protected finish(): void {
    this.#socket.destroySoon();
  }

  protected destroy(): void {
    this.#socket.resetAndDestroy();
  }

  protected pause(): void {
    this.#socket.pause();
  }

  protected resume(): void {
    this.#socket.resume();
  }

  #taken(start: (callback: (error?: Error | null) => void) => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(ignore);
    start((error) => {
      if (!error) resolve();
      else reject(this.dead ? this.closeError("write") : toSocketError(error, "write", this.remoteAddress, "EPIPE"));
    });
    return promise;
  }

  #brokenPipe(): SocketError {
    return new SocketError("EPIPE", { syscall: "write", address: this.remoteAddress });
  }
}

function onData(this: net.Socket, chunk: Uint8Array): void {
  (this as OwnedSocket)[CONNECTION].received(chunk);
}

function onEnd(this: net.Socket): void {
  (this as OwnedSocket)[CONNECTION].ended();
}

function onError(this: net.Socket, cause: Error): void {
  const connection = (this as OwnedSocket)[CONNECTION];
  connection.lost(toSocketError(cause, "read", connection.remoteAddress));
}

function onClose(this: net.Socket): void {
  (this as OwnedSocket)[CONNECTION].lost(null);
}

import { type Address, formatAddress, unnamedPeer } from "../address.ts";
import { type BaseRequestHandler, runHandler } from "../base_request_handler.ts";
import type { BaseServer, RequestHandlerClass } from "../base_server.ts";
import { Connection, endedHere, noteEnd } from "../connection.ts";
import { ConnectionWatch, Watcher } from "../connection_watch.ts";
import { Datagram } from "../datagram.ts";
import { DatagramSocket } from "../datagram_socket.ts";
import type { EndReason } from "../end_reason.ts";
import { SocketError } from "../errors.ts";
import { EventedConnection } from "../evented_connection.ts";
import { handled, rejected } from "../promises.ts";
import { parseProxyHeader } from "../proxy_protocol.ts";
import { afterPoll, type RawDatagramSocket, type WorkerStart } from "../runtime.ts";
import type { TlsInfo } from "../tls.ts";
import { SendQueue } from "../send_queue.ts";
import { idleClock, TimerWheel } from "../timer_wheel.ts";
import {
  CREDIT_STEP,
  decodeCredit,
  decodeError,
  decodeJson,
  decodeReason,
  decodeWithData,
  encodeCredit,
  encodeError,
  encodeJson,
  encodeWithData,
  FRAME,
  type Opened,
  REPLY_WINDOW,
  windowCost,
} from "./frames.ts";
import { toInspectable } from "../thrown.ts";
import type { Send } from "./host.ts";
import { loadExport } from "./load_export.ts";
import { MAX_PAYLOAD } from "./ring.ts";

/** The worker's end of the relay: runs handlers on requests that the server hands over. */
export class Guest {
  #send: Send;
  #Handler: RequestHandlerClass<never>;
  #server: BaseServer<never>;
  #connections = new Map<number, RemoteConnection>();
  #watcher: Watcher;
  #socket: RemoteDatagramSocket;
  #wrapped: DatagramSocket;

  private constructor(send: Send, Handler: RequestHandlerClass<never>, { serverAddress, data, limits }: WorkerStart) {
    this.#send = send;
    this.#Handler = Handler;
    // What a handler can know of a server that runs elsewhere.
    this.#server = { serverAddress, data } as unknown as BaseServer<never>;
    this.#socket = new RemoteDatagramSocket(serverAddress, send);
    this.#wrapped = new DatagramSocket(this.#socket);
    this.#watcher = new Watcher(
      {
        // The server, which has the socket, keeps these.
        idleTimeout: Infinity,
        requestTimeout: Infinity,
        writeTimeout: Infinity,
        minReadRate: limits?.minReadRate ?? 0,
        readRateWindow: limits?.readRateWindow ?? Infinity,
        readRateGrace: limits?.readRateGrace ?? Infinity,
        maxBackpressure: limits?.maxBackpressure ?? Infinity,
        maxTotalBackpressure: limits?.maxTotalBackpressure ?? Infinity,
      },
      new TimerWheel(idleClock),
      (connection, reason) => {
        noteEnd(connection, reason);
        connection.abort();
      },
    );
  }

  /** Loads the handler's module. */
  static async start(start: WorkerStart, send: Send): Promise<Guest> {
    const Handler = await loadExport(start.module, "a class with a handle() method", isHandler);
    return new Guest(send, Handler, start);
  }

  /** A frame has come from the server. */
  receive(channel: number, type: number, payload: Uint8Array): void {
    switch (type) {
      case FRAME.OPEN: {
        const opened = decodeJson<Opened>(payload);
        const connection = new RemoteConnection(opened, (type, payload) => this.#send(channel, type, payload));
        this.#connections.set(channel, connection);
        const watch = new ConnectionWatch(this.#watcher, connection);
        const proxy = opened.proxy === undefined ? null : parseProxyHeader(Uint8Array.from(opened.proxy));
        connection.request = new Connection(connection, watch, proxy);
        watch.begin(connection.request);
        return this.#run(channel, connection.request, opened.clientAddress);
      }
      case FRAME.DATAGRAM: {
        const [{ clientAddress, truncated }, data] = decodeWithData<Opened>(payload);
        const datagram = { data, address: clientAddress, truncated: truncated === true };
        return this.#run(channel, new Datagram(datagram, this.#wrapped), clientAddress);
      }
      case FRAME.SENT:
        return this.#socket.sent(channel, payload);
      case FRAME.PING:
        return this.#send(channel, FRAME.PONG);
      default:
        this.#connections.get(channel)?.onFrame(type, payload);
    }
  }

  #run(channel: number, request: Connection | Datagram, clientAddress: Address | null): void {
    const done = (error?: Uint8Array) => {
      this.#connections.get(channel)?.over();
      this.#connections.delete(channel);
      this.#send(channel, FRAME.DONE, error);
    };
    const failed = (error: unknown) => done(encodeError(toInspectable(error)));
    const finish = async () => {
      const connection = this.#connections.get(channel);
      // TLS that was begun here has bytes on their way to the connection, and its own end to send.
      if (connection !== undefined && connection.request.tls !== connection.tls) await connection.request.close();
      // What the handler has written and not awaited.
      await connection?.flushed();
      done();
    };
    try {
      const handler: BaseRequestHandler<never> = new this.#Handler(request as never, clientAddress, this.#server);
      Promise.resolve(runHandler(handler)).then(finish).catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

function isHandler(value: unknown): value is RequestHandlerClass<never> {
  return typeof value === "function" && typeof value.prototype?.handle === "function";
}

const LARGEST_DATAGRAM = 1 << 18;

/** A connection whose socket the server has. */
class RemoteConnection extends EventedConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  bytesWritten = 0;
  /** What the handler has of it. */
  request!: Connection;
  #tls: TlsInfo | null;
  #send: (type: number, payload?: Uint8Array) => void;
  #window = REPLY_WINDOW;
  #owed = 0;
  #holding = false;
  #arrivals: (() => void)[] = [];
  #unsent = new SendQueue();

  constructor({ localAddress, remoteAddress, tls }: Opened, send: (type: number, payload?: Uint8Array) => void) {
    super();
    this.localAddress = localAddress!;
    const unnamed = "path" in remoteAddress! && remoteAddress.path === "";
    this.remoteAddress = unnamed ? unnamedPeer(localAddress!) : remoteAddress!;
    this.#tls = tls ?? null;
    this.#send = send;
  }

  override get tls(): TlsInfo | null {
    return this.#tls;
  }

  get unsent(): number {
    return this.#unsent.size;
  }

  onFrame(type: number, payload: Uint8Array): void {
    switch (type) {
      case FRAME.DATA:
        this.#owed += windowCost(payload.length);
        this.received(payload);
        if (!this.#holding && this.#owed >= CREDIT_STEP) this.#giveCredit();
        return;
      case FRAME.CREDIT:
        this.#window += decodeCredit(payload);
        return this.#unsent.flush((bytes) => this.#take(bytes));
      case FRAME.END:
        return this.ended();
      case FRAME.ARRIVALS:
        // Promises of what has come before make their progress first.
        return afterPoll(this.#arrivals.shift()!);
      case FRAME.LOST:
        if (payload.length > 0) this.#note(decodeReason(payload));
        this.lost(payload.length === 0 ? null : decodeError(payload) as SocketError);
        this.#unsent.fail(this.closeError("write"));
    }
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("write"));
    if (this.sendEnded) return rejected(new SocketError("EPIPE", { syscall: "write", address: this.remoteAddress }));
    const sent = this.#unsent.empty ? this.#take(bytes) : 0;
    if (sent < bytes.length) return this.#unsent.push(bytes.subarray(sent));
  }

  protected endSend(): void | Promise<void> {
    if (this.#unsent.empty) return this.#send(FRAME.END);
    return this.#unsent.drained().then(() => this.#send(FRAME.END));
  }

  setNoDelay(on: boolean): void {
    this.#send(FRAME.OPTION, encodeJson({ noDelay: on }));
  }

  setKeepAlive(on: boolean | number): void {
    this.#send(FRAME.OPTION, encodeJson({ keepAlive: on }));
  }

  /** The server asks its socket, and answers behind what it has found. */
  afterArrivals(callback: () => void): void {
    if (this.dead) return afterPoll(callback);
    this.#arrivals.push(callback);
    this.#send(FRAME.ARRIVALS);
  }

  /** What keeps a worker running is not its connections. */
  unref(): void {}

  ref(): void {}

  /** Resolves when all that was written has been sent, or can't be any more. */
  async flushed(): Promise<void> {
    await this.#unsent.drained().catch(() => {});
  }

  /** The request is over, and the connection the server's again. */
  over(): void {
    this.lost(null);
    this.#unsent.fail(this.closeError("write"));
  }

  protected finish(): void {
    const close = () => {
      this.#send(FRAME.CLOSE);
      this.lost(null);
    };
    if (this.#unsent.empty) close();
    else this.#unsent.drained().then(close, () => {});
  }

  protected destroy(): void {
    this.#send(FRAME.ABORT, endedHere(this.request) ? encodeJson(this.request.endReason) : undefined);
    this.lost(null);
    this.#unsent.fail(this.closeError("write"));
  }

  protected pause(): void {
    this.#holding = true;
  }

  protected resume(): void {
    this.#holding = false;
    if (this.#owed > 0) this.#giveCredit();
  }

  #note(reason: EndReason | null): void {
    if (reason !== null) noteEnd(this.request, reason);
  }

  #giveCredit(): void {
    this.#send(FRAME.CREDIT, encodeCredit(this.#owed));
    this.#owed = 0;
  }

  #take(bytes: Uint8Array): number {
    let sent = 0;
    while (sent < bytes.length && this.#window > 0) {
      const size = Math.min(bytes.length - sent, this.#window, MAX_PAYLOAD);
      this.#window -= windowCost(size);
      this.#send(FRAME.DATA, size === bytes.length ? bytes : bytes.subarray(sent, sent + size));
      sent += size;
    }
    this.bytesWritten += sent;
    return sent;
  }
}

/** The server's datagram socket, as a worker has it: it sends from the server's address, and what comes there goes to the server. */
class RemoteDatagramSocket implements RawDatagramSocket {
  readonly address: Address;
  readonly dropped = 0;
  readonly queued = 0;
  #send: Send;
  #last = 0;
  #sending = new Map<number, PromiseWithResolvers<void>>();

  constructor(address: Address, send: Send) {
    this.address = address;
    this.#send = send;
  }

  send(bytes: Uint8Array, to: Address): Promise<void> {
    // More than any system takes in a datagram; it might not fit into the ring.
    if (bytes.length > LARGEST_DATAGRAM) return rejected(new SocketError("EMSGSIZE", { syscall: "send", address: to }));
    const done = Promise.withResolvers<void>();
    const channel = this.#last = this.#last + 1 | 0;
    this.#sending.set(channel, done);
    this.#send(channel, FRAME.SEND, encodeWithData(to, bytes));
    return handled(done.promise);
  }

  sent(channel: number, error: Uint8Array): void {
    const done = this.#sending.get(channel);
    this.#sending.delete(channel);
    if (error.length === 0) done?.resolve();
    else done?.reject(decodeError(error));
  }

  receive(): Promise<never> {
    return Promise.reject(this.#elsewhere());
  }

  interrupt(): void {}

  setMembership(): Promise<void> {
    return Promise.reject(this.#elsewhere());
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  unref(): void {}

  ref(): void {}

  #elsewhere(): TypeError {
    return new TypeError(`the socket of ${formatAddress(this.address)} is the server's: a worker only sends on it`);
  }
}

import type { Address } from "../address.ts";
import { Connection, endedHere, noteEnd, watchOf } from "../connection.ts";
import type { Datagram } from "../datagram.ts";
import type { EndReason } from "../end_reason.ts";
import { SocketError } from "../errors.ts";
import { ignore } from "../promises.ts";
import {
  CREDIT_STEP,
  decodeCredit,
  decodeError,
  decodeJson,
  decodeWithData,
  encodeCredit,
  encodeError,
  encodeJson,
  encodeWithData,
  FRAME,
  type Opened,
  WINDOW,
  windowCost,
} from "./frames.ts";
import { afterPoll } from "../runtime.ts";
import { MAX_PAYLOAD } from "./ring.ts";
import { type Patience, WorkerWatch } from "./worker_watch.ts";

/** Sends a frame to a worker. */
export type Send = (channel: number, type: number, payload?: Uint8Array) => void;

/** Sends a datagram from the server's own socket. */
export type SendDatagram = (data: Uint8Array, to: Address) => void | Promise<void>;

/** The server's end of the relay to one worker: hands it requests and carries their bytes. */
export class Host {
  #send: Send;
  #sendDatagram: SendDatagram;
  #requests = new Map<number, { request: unknown; done: PromiseWithResolvers<void>; relay: ConnectionRelay | null }>();
  #last = 0;
  /** Why the worker is gone. */
  #failure: Error | null = null;
  #requestTimeout: () => number;
  #watch: WorkerWatch;

  /**
   * @param send Sends a frame to the worker.
   * @param sendDatagram Sends a datagram from the server's own socket.
   * @param patience When the worker counts as stuck.
   */
  constructor(send: Send, sendDatagram: SendDatagram, patience: Patience) {
    this.#send = send;
    this.#sendDatagram = sendDatagram;
    this.#requestTimeout = patience.requestTimeout;
    this.#watch = new WorkerWatch(patience, () => send(0, FRAME.PING), () => this.active);
  }

  /** Requests that the worker has not finished. */
  get active(): number {
    return this.#requests.size;
  }

  /** Whether the worker was asked for a sign of life and has not given it yet. */
  get asked(): boolean {
    return this.#watch.waits;
  }

  /** Has the worker handle a request, of which `unread` was read already; resolves when its handler is done, rejects with what it threw. */
  run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const channel = this.#last = this.#last + 1 | 0;
    const done = Promise.withResolvers<void>();
    let relay: ConnectionRelay | null = null;
    if (request instanceof Connection) {
      const { localAddress, remoteAddress, tls, proxy } = request;
      const opened: Opened = { clientAddress, localAddress, remoteAddress, tls };
      if (proxy !== null) opened.proxy = [...proxy.bytes];
      this.#send(channel, FRAME.OPEN, encodeJson(opened));
      for (let sent = 0; unread !== undefined && sent < unread.length; sent += MAX_PAYLOAD) {
        this.#send(channel, FRAME.DATA, unread.subarray(sent, sent + MAX_PAYLOAD));
      }
      const begun = performance.now();
      const over = () => this.#isOver(channel, request, begun);
      relay = new ConnectionRelay(request, (type, payload) => this.#send(channel, type, payload), over);
    } else {
      const opened: Opened = { clientAddress, truncated: request.truncated };
      this.#send(channel, FRAME.DATAGRAM, encodeWithData(opened, request.data));
      // Nobody aborts a datagram, but its handler has no more time than that either.
      const timeout = this.#requestTimeout();
      if (timeout !== Infinity) this.#watch.expect(channel, timeout, "deadline");
    }
    this.#requests.set(channel, { request, done, relay });
    return done.promise;
  }

  /** A frame has come from the worker. */
  receive(channel: number, type: number, payload: Uint8Array): void {
    if (type === FRAME.SEND) return this.#sendFrom(channel, payload);
    if (type === FRAME.PONG) return this.#watch.answered();
    const request = this.#requests.get(channel);
    if (request === undefined) return;
    if (type !== FRAME.DONE) return request.relay?.receive(type, payload);
    this.#requests.delete(channel);
    this.#watch.done(channel);
    request.relay?.stop();
    if (payload.length === 0) request.done.resolve();
    else request.done.reject(decodeError(payload));
  }

  /** Makes the handler of a request fail soon, if it is here. */
  abort(request: unknown): void {
    for (const entry of this.#requests.values()) {
      if (entry.request === request) entry.relay?.lost(new SocketError("ECONNABORTED"));
    }
  }

  /** The worker is gone: its requests fail. */
  fail(error: Error): void {
    this.#failure = error;
    this.#watch.stop();
    for (const { done, relay } of this.#requests.values()) {
      relay?.stop();
      done.reject(error);
    }
    this.#requests.clear();
  }

  /** A connection is gone; its handler should be done soon. */
  #isOver(channel: number, connection: Connection, begun: number): void {
    if (!this.#requests.has(channel)) return;
    const reason = connection.endReason;
    if (reason !== null && endedHere(connection)) return this.#watch.expect(channel, 0, reason);
    // The peer has left, or the handler has closed it: it has the rest of the time that it would have had.
    const left = begun + this.#requestTimeout() - performance.now();
    this.#watch.expect(channel, Math.max(0, left), "deadline");
  }

  #sendFrom(channel: number, payload: Uint8Array): void {
    const [to, data] = decodeWithData<Address>(payload);
    const sent = (error?: unknown) => this.#send(channel, FRAME.SENT, error === undefined ? undefined : encodeError(error));
    try {
      const pending = this.#sendDatagram(data, to);
      if (pending === undefined) sent();
      else pending.then(() => sent(), sent);
    } catch (error) {
      sent(error);
    }
  }
}

/** Carries the bytes of one connection to a worker and back, in bounded memory. */
class ConnectionRelay {
  #connection: Connection;
  #send: (type: number, payload?: Uint8Array) => void;
  #window = WINDOW;
  #room: (() => void) | null = null;
  #owed = 0;
  /** The last write that the system has not taken at once, and what it takes of the window; `null` once it is done. */
  #writing: { promise: Promise<void>; cost: number } | null = null;
  #stopped = false;

  /**
   * @param connection The connection.
   * @param send Sends a frame to the worker.
   * @param over Called when the connection is gone.
   */
  constructor(connection: Connection, send: (type: number, payload?: Uint8Array) => void, over: () => void) {
    this.#connection = connection;
    this.#send = send;
    watchOf(connection)?.relayed();
    void this.#pump();
    // While nothing may be sent to the worker, nothing is read here, and this alone tells of a peer that is lost.
    void connection.closed.then(() => {
      if (connection.error !== null) this.lost(connection.error);
      else if (endedHere(connection)) this.lost(new SocketError("ECONNABORTED"));
      over();
    });
  }

  receive(type: number, payload: Uint8Array): void {
    const connection = this.#connection;
    switch (type) {
      case FRAME.DATA: {
        const pending = connection.write(payload);
        if (pending === undefined) this.#written(windowCost(payload.length));
        else this.#writeLater(pending, windowCost(payload.length));
        return;
      }
      case FRAME.CREDIT:
        this.#window += decodeCredit(payload);
        this.#room?.();
        return;
      case FRAME.END:
        connection.closeWrite().catch(ignore);
        return;
      case FRAME.CLOSE:
        void connection.close();
        return;
      case FRAME.ABORT:
        if (payload.length > 0) noteEnd(connection, decodeJson<EndReason>(payload));
        connection.abort();
        return;
      case FRAME.ARRIVALS:
        // What the pump has read by then is on its way before the answer.
        afterPoll(() => this.#stopped || this.#send(FRAME.ARRIVALS));
        return;
      case FRAME.OPTION: {
        const { noDelay, keepAlive } = decodeJson<{ noDelay?: boolean; keepAlive?: boolean | number }>(payload);
        if (noDelay !== undefined) connection.setNoDelay(noDelay);
        if (keepAlive !== undefined) connection.setKeepAlive(keepAlive);
      }
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#room?.();
  }

  async #pump(): Promise<void> {
    try {
      for await (const chunk of this.#connection) {
        for (let sent = 0; sent < chunk.length;) {
          while (this.#window <= 0 && !this.#stopped) await new Promise<void>((resolve) => this.#room = resolve);
          if (this.#stopped) return;
          const size = Math.min(chunk.length - sent, this.#window, MAX_PAYLOAD);
          this.#window -= windowCost(size);
          this.#send(FRAME.DATA, size === chunk.length ? chunk : chunk.subarray(sent, sent + size));
          sent += size;
        }
        if (this.#stopped) return;
      }
      if (!this.#stopped) this.#send(FRAME.END);
      await this.#connection.closed;
      this.lost(this.#connection.error);
    } catch (error) {
      this.lost(error);
    }
  }

  /** Gives credit for a write once it is done. Writes that were joined share their promise, and what waits for it. */
  #writeLater(promise: Promise<void>, cost: number): void {
    if (this.#writing?.promise === promise) return void (this.#writing.cost += cost);
    const writing = this.#writing = { promise, cost };
    promise.then(() => {
      if (this.#writing === writing) this.#writing = null;
      this.#written(writing.cost);
    }, (error) => this.lost(error));
  }

  #written(cost: number): void {
    this.#owed += cost;
    if (this.#owed < CREDIT_STEP || this.#stopped) return;
    this.#send(FRAME.CREDIT, encodeCredit(this.#owed));
    this.#owed = 0;
  }

  /** The connection is gone: with the reason when it was lost, `null` when it ended in order. */
  lost(error: unknown): void {
    if (this.#stopped) return;
    this.stop();
    this.#send(FRAME.LOST, error === null ? undefined : encodeError(error, this.#connection.endReason));
  }
}

import { type Address, toAddress, type Transport } from "./address.ts";
import { type BaseRequestHandler, runHandler } from "./base_request_handler.ts";
import { type Channels, openChannels } from "./channels.ts";
import { Connection, endedHere, noteEnd } from "./connection.ts";
import { checkTimeout, Deadline } from "./deadline.ts";
import { type EndCounts, type EndReason, noEnds } from "./end_reason.ts";
import { SocketError, SystemExit } from "./errors.ts";
import { reportOf } from "./error_report.ts";
import { Histogram } from "./histogram.ts";
import { checkOptions, checkSignal } from "./options.ts";
import { print } from "./print.ts";
import { Entry, RequestTable } from "./request_table.ts";
import { getRuntime, type Runtime } from "./runtime.ts";
import { isShortage, ShortageLog } from "./shortage_log.ts";
import type { ServerStats } from "./stats.ts";
import { toInspectable } from "./thrown.ts";
import type { WorkerKind } from "./worker.ts";
import { WorkerStopped } from "./worker_stopped.ts";

/** A class of request handlers, as a server is given it. */
export type RequestHandlerClass<R = Connection> = new (
  request: R,
  clientAddress: Address | null,
  server: BaseServer<R>,
) => BaseRequestHandler<R>;

/** What {@linkcode BaseServer.getRequest} brings: a request and who sent it, or `null` when the wait was interrupted. */
export type Taken<R> = [request: R, clientAddress: Address | null] | null;

/** Options that every server takes. Each but `runtime` sets the server's field of the same name. */
export interface ServerOptions {
  /** The sockets to use: the running runtime's by default, `memory` from `@sockets/server/testing` in tests. */
  runtime?: Runtime;
  /** See {@linkcode BaseServer.timeout}. */
  timeout?: number | null;
  /** See {@linkcode BaseServer.shutdownTimeout}. */
  shutdownTimeout?: number;
  /** See {@linkcode BaseServer.blockOnClose}. */
  blockOnClose?: boolean;
  /** See {@linkcode BaseServer.maxActiveRequests}. */
  maxActiveRequests?: number;
  /** See {@linkcode BaseServer.workerGrace}. */
  workerGrace?: number;
  /** See {@linkcode BaseServer.data}. */
  data?: unknown;
}

/** A request that a server has taken and not finished. */
export interface ActiveRequest {
  /** Who sent it; `null` when the sender has no address. */
  readonly clientAddress: Address | null;
  /** When it was taken, in milliseconds since the epoch; 50 of these too late at most. */
  readonly since: number;
  /** Whether its time was up and it was aborted; it stays in the table until its handler has noticed. */
  readonly aborted: boolean;
}

/** How to stop a server. */
export interface ShutdownOptions {
  /**
   * Milliseconds that the requests in progress have to finish before they are aborted. Without it `shutdown()` aborts nothing and waits
   * only for what `serveForever()` itself waits for, the one request of a plain server; `serverClose()` takes `shutdownTimeout`.
   */
  drain?: number;
}

/** Milliseconds that handlers get to notice that their request was aborted. */
const ABORT_GRACE = 1000;

/** The time of a request of which nobody takes it. */
const UNTIMED = -1;
/** Milliseconds to wait before the next request is asked for when there was none to be had. */
const PAUSE = 100;

/**
 * accept(2): "for reliable operation the application should detect the network errors … and treat them like EAGAIN", to which it adds
 * those that "various Linux kernels can return". ENOTCONN: it was reset before the runtime could ask whose it is. Datagrams: ICMP.
 */
const PASSING = new Set([
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "EINTR",
  "ENETDOWN",
  "ENETUNREACH",
  "ENONET",
  "ENOPROTOOPT",
  "ENOTCONN",
  "EOPNOTSUPP",
  "EPERM",
  "EPROTO",
  "EPROTONOSUPPORT",
  "ESOCKTNOSUPPORT",
  "ETIMEDOUT",
]);
/** The socket itself is no good any more. Everything else, as EMFILE, ENFILE, ENOBUFS and ENOMEM, may be better after a while. */
const FATAL = new Set(["EBADF", "EFAULT", "ENOTSOCK"]);

/**
 * What all servers have in common: the loop, the hooks and their order. `socketserver.BaseServer` in TypeScript.
 *
 * For the caller: the constructor, `activate()`, `serveForever()`, `handleRequest()`, `suspend()`, `resume()`, `shutdown()`,
 * `serverClose()`, `unref()`, `ref()`.
 *
 * To override: `serverBind()`, `serverActivate()`, `getRequest()`, `verifyRequest()`, `processRequest()`, `finishRequest()`,
 * `shutdownRequest()`, `closeRequest()`, `serviceActions()`, `handleTimeout()`, `handleError()`; each may be async. `handleEnd()`.
 *
 * For derived classes, beside these: `transport`, `concurrent`, `full`, `waiting`, `requestsShareSocket`, `stopListening()`,
 * `interrupt()`, `keepRunning()`, `abortRequest()`, `killRequests()`, `endRequest()`, `requestEnded()`, `countEnd()`,
 * `reportError()`, `workerStarted()`, `workerExited()`, `workerStuck()`, `validate()`.
 *
 * @typeParam R What a request is: a {@linkcode Connection} on the stream servers.
 */
export abstract class BaseServer<R = Connection> implements AsyncDisposable {
  /** The address given; once bound, the one bound, with the real port. */
  serverAddress: Address;
  /** The class whose instances handle the requests. */
  readonly RequestHandlerClass: RequestHandlerClass<R>;
  /** The sockets in use. */
  readonly runtime: Runtime;
  /** Milliseconds that `handleRequest()` waits for a request before it calls `handleTimeout()`; `null`, the default, waits for ever. */
  timeout: number | null = null;
  /**
   * Milliseconds that `serverClose()` gives to the requests in progress before it aborts them: 15,000 by default. `Infinity` waits for
   * ever, as `socketserver` does.
   */
  shutdownTimeout = 15_000;
  /** Whether `serverClose()` waits for the requests in progress at all: `true` by default. */
  blockOnClose = true;
  /**
   * The requests in progress at once: `Infinity` by default, 1024 on datagram servers. At that many, the next one waits where it is, in
   * the queue.
   */
  maxActiveRequests: number = Infinity;
  /**
   * Milliseconds in which a thread or process has to answer once a request of its is over, because a limit has ended it or because
   * `requestTimeout` has passed since it began: 1000 by default. One whose event loop doesn't turn, as when a handler computes without
   * end, is ended then, and replaced. What else ran there fails; therefore a thread that has requests which are not over gets ten times as
   * long. So does a process, or a thread of `spawnThread()`, that does answer, for its handler to be done. `Infinity` lets them go on.
   */
  workerGrace = 1000;
  /** Whatever the handlers need to know; in a thread, `this.server.data` is a clone of it that shares its `SharedArrayBuffer`s. */
  data: unknown = null;

  /** What the server speaks. */
  protected abstract get transport(): Transport;
  /** Whether the next request is taken while others are unfinished. A plain server finishes one first; the mix-ins don't. */
  protected readonly concurrent: boolean = false;
  /** One in so many requests is timed, and counts for all of them. */
  protected readonly timedOneIn: number = 1;

  #options: ServerOptions;
  /** Where it tells what happens. */
  #channels: Channels;
  #active = new RequestTable<R>();
  /** The request that is being handled and not in the table yet: one that is over without waiting for anything needs no entry. */
  #current: Entry<R> | null = null;
  #accepted = 0;
  #paused = 0;
  #ended: EndCounts = noEnds();
  #requestTime = new Histogram();
  /** How many had been accepted when the next one could not be, as when the system has run out of something. */
  #failedAt = -1;
  #shortages = new ShortageLog();
  #draining = 0;
  #rejected = 0;
  #aborted = 0;
  #errors = 0;
  #stuckWorkers = 0;
  #activated: Promise<void> | null = null;
  /** Whether somebody was told that it listens. */
  #announced = false;
  #shutdownRequested = false;
  #suspended = false;
  /** Whether `unref()` was called. */
  #unreferenced = false;
  /** The `timeout` of a `handleRequest()`. */
  #requestDeadline: Deadline | null = null;
  /** Whether the loop is to handle what waits before it ends. */
  #emptying = false;
  /** Whether more may come until it has stopped listening. */
  #stopping = false;
  /** Made when somebody asks for it. */
  #drainController: AbortController | null = null;
  /** What ends the loop with an error: a handler's {@linkcode SystemExit}, or what `handleError` threw. */
  #failure: { error: unknown } | null = null;
  #serving: Promise<void> | null = null;
  /** Lets the loop go on without the request that it waits for. */
  #release: (() => void) | null = null;
  /** Requests that their handlers have left to somebody else. */
  #detached = new Map<R, Promise<void>>();
  /** Resolves when no request is in progress; made when somebody waits for that. */
  #idle: PromiseWithResolvers<void> | null = null;
  /** Resolves when a request is over; made when the loop waits for that. */
  #left: PromiseWithResolvers<void> | null = null;

  /**
   * Checks the arguments. Nothing is bound yet: `activate()` does that, and `serveForever()` and `handleRequest()` when it has not
   * been done.
   *
   * @param address Where to serve.
   * @param RequestHandlerClass The class whose instances handle the requests.
   * @param options Values for the server's fields; they win over what a subclass sets.
   * @throws {TypeError} When the address is none, or the handler no class with a `handle()` method.
   * @throws {RangeError} When the port is no integer from 0 to 65535.
   */
  constructor(address: string | Address, RequestHandlerClass: RequestHandlerClass<R>, options: ServerOptions = {}) {
    this.serverAddress = toAddress(address);
    this.checkHandler(RequestHandlerClass);
    if (typeof options !== "object" || options === null) {
      throw new TypeError(`options must be an object, got ${String(options)}`);
    }
    this.RequestHandlerClass = RequestHandlerClass;
    this.runtime = options.runtime ?? getRuntime();
    this.#channels = openChannels(this.runtime);
    this.#options = options;
  }

  /** The table of unfinished requests. */
  get activeRequests(): ReadonlyMap<R, ActiveRequest> {
    this.#enter();
    return this.#active;
  }

  /** What the server has counted. */
  get stats(): ServerStats {
    return {
      accepted: this.#accepted,
      active: this.activeRequests.size,
      rejected: this.#rejected,
      aborted: this.#aborted,
      errors: this.#errors,
      refused: 0,
      handshaking: 0,
      truncated: 0,
      dropped: 0,
      paused: this.#paused,
      queued: 0,
      bytesRead: 0,
      bytesWritten: 0,
      unsent: 0,
      datagramsSent: 0,
      ended: { ...this.#ended },
      requestTime: this.#requestTime.copy(),
      threads: 0,
      children: 0,
      stuckWorkers: this.#stuckWorkers,
    };
  }

  /** Whether the server is stopping and gives the requests in progress time to finish. */
  get draining(): boolean {
    return this.#draining > 0;
  }

  /**
   * Fires when the server begins to drain: when it is stopping, and a handler should come to its end, as far as it can, before it is
   * aborted. `AbortSignal.any([this.server.drainSignal, this.request.signal])` fires too when the connection is gone.
   */
  get drainSignal(): AbortSignal {
    this.#drainController ??= new AbortController();
    if (this.draining) this.#drainController.abort();
    return this.#drainController.signal;
  }

  /** Whether `suspend()` keeps the server from taking requests. */
  get suspended(): boolean {
    return this.#suspended;
  }

  // Methods for the caller.

  /**
   * Binds the address and begins to listen, unless that has been done. After `serverClose()` it does so anew.
   *
   * @throws {TypeError} When an option has no such field, or a field a value of the wrong type; then nothing is bound.
   * @throws {RangeError} When a field has a value out of its range; then nothing is bound.
   * @throws {SocketError} When the address can't be bound: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, `ENOTFOUND`, `EMFILE`.
   * @throws {UnsupportedError} When the runtime can't do what a field asks for.
   */
  activate(): Promise<void> {
    return this.#activated ??= this.#activate().catch((error) => {
      this.#activated = null;
      throw error;
    });
  }

  /**
   * Handles requests until `shutdown()`, or `signal`, stops it. A plain server finishes the request that it is handling first.
   *
   * A `shutdown()` that came before makes it return at once, as in `socketserver`.
   *
   * @param options `signal`: stops the loop when it fires.
   * @throws {TypeError} When an option is unknown, or `signal` is no `AbortSignal`; then nothing is bound.
   * @throws {SystemExit} When a handler threw one.
   * @throws {SocketError} When the address can't be bound, or the listener fails for good.
   * @throws {Error} When requests are being served already, and whatever `handleError` throws.
   */
  async serveForever(options: { signal?: AbortSignal } = {}): Promise<void> {
    checkOptions("serveForever()", options, ["signal"]);
    const { signal } = options;
    checkSignal("serveForever()", signal);
    if (this.#serving !== null) throw new Error("the server is serving already");
    const stop = () => void this.shutdown();
    const done = Promise.withResolvers<void>();
    this.#serving = done.promise;
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) this.#shutdownRequested = true;
    try {
      if (!this.#shutdownRequested) await this.activate();
      while (!this.#isToEnd()) {
        const held = this.#suspended && !this.#emptying;
        if (held || this.full) {
          if (!held) this.#paused++;
          await this.#room();
          continue;
        }
        let taken: Taken<R> | symbol;
        try {
          // Only what is a promise is awaited: for a datagram, a turn each would cost more than all the rest.
          const next = this.takeRequest();
          taken = next instanceof Promise ? await next : next;
        } catch (error) {
          await this.#notTaken(error);
          continue;
        }
        if (taken === null || typeof taken === "symbol") continue;
        const handled = this.#handle(taken);
        if (handled !== undefined) await handled;
        const serviced = this.serviceActions();
        if (serviced !== undefined) await serviced;
      }
      this.#throwFailure();
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#shutdownRequested = false;
      this.#serving = null;
      done.resolve();
    }
  }

  /**
   * Handles one request, or calls `handleTimeout()` when none came within `timeout` milliseconds.
   *
   * @throws {SystemExit} When the handler threw one.
   * @throws {SocketError} When the address can't be bound, or the listener fails for good.
   * @throws {Error} When requests are being served already, and whatever `handleError` throws.
   */
  async handleRequest(): Promise<void> {
    if (this.#serving !== null) throw new Error("the server is serving already");
    const done = Promise.withResolvers<void>();
    this.#serving = done.promise;
    let timedOut = false;
    const deadline = this.#requestDeadline = new Deadline(true);
    if (this.#unreferenced) deadline.keepAlive(false);
    try {
      await this.activate();
      if (this.timeout !== null && this.timeout !== Infinity) {
        deadline.start(this.timeout, () => {
          timedOut = true;
          this.#wake();
        });
      }
      let taken: Taken<R> = null;
      do {
        try {
          if (this.#suspended) await this.#room();
          else taken = await this.getRequest();
        } catch (error) {
          await this.#notTaken(error);
        }
      } while (taken === null && !timedOut && !this.#shutdownRequested && this.#activated !== null);
      deadline.clear();
      if (taken !== null) await this.#handle(taken);
      else if (timedOut) await this.handleTimeout();
      this.#throwFailure();
    } finally {
      deadline.clear();
      this.#serving = null;
      done.resolve();
    }
  }

  /**
   * Takes no more requests until `resume()`. The address stays bound: what comes waits in the queue, and requests in progress go on.
   * Does nothing when the server is suspended already.
   */
  suspend(): void {
    this.#suspended = true;
    this.interrupt();
  }

  /** Takes requests again after `suspend()`; otherwise does nothing. */
  resume(): void {
    this.#suspended = false;
    this.#left?.resolve();
  }

  /**
   * Stops `serveForever()`; called before it, stops the next one. The address stays bound: what comes waits in the queue.
   *
   * A handler of a plain server must not await this, as the loop waits for the handler.
   *
   * @param options `drain`: milliseconds that the requests in progress have to finish before they are aborted.
   * @returns A promise that resolves once `serveForever()` has returned, and with `drain` once no request is in progress.
   */
  async shutdown(options: ShutdownOptions = {}): Promise<void> {
    const { drain } = options;
    if (drain !== undefined) checkTimeout("drain", drain);
    this.#shutdownRequested = true;
    // What waits stays in the queue, also when a serverClose() was about to handle it.
    if (drain !== undefined) this.#emptying = false;
    this.#wake();
    if (drain !== undefined) await this.#drain(drain);
    await this.#serving;
  }

  /**
   * Stops serving and frees the address. Requests in progress have `shutdownTimeout` milliseconds to finish and are aborted then;
   * with `blockOnClose` off, they are left to themselves. Does nothing the second time.
   *
   * The socket of a datagram server is closed after them, as their replies leave from it; datagrams that come meanwhile are handled no
   * more. With `blockOnClose` off it is closed at once, and a reply that comes later is `ECONNABORTED`.
   *
   * @param options `drain`: milliseconds that the requests in progress have in place of `shutdownTimeout`. Those of connections that have
   * been taken from the kernel and wait are handled within it too, where otherwise they are aborted.
   */
  async serverClose(options: ShutdownOptions = {}): Promise<void> {
    const { drain } = options;
    if (drain !== undefined) checkTimeout("drain", drain);
    const serving = this.#serving;
    if (serving !== null) this.#shutdownRequested = true;
    if (drain !== undefined) {
      this.#emptying = drain > 0 && serving !== null;
      this.#stopping = true;
      try {
        await this.#activated?.catch(() => {});
        await this.stopListening();
      } finally {
        this.#stopping = false;
        this.#wake();
      }
      await this.#drain(drain);
    }
    this.#wake();
    await this.#activated?.catch(() => {});
    const waits = drain === undefined && this.blockOnClose;
    // Closed first, the socket that all requests share would lose the answers that they have yet to send.
    if (waits && this.requestsShareSocket) await this.#drain(this.shutdownTimeout);
    this.#activated = null;
    await this.serverUnbind();
    if (waits && !this.requestsShareSocket) await this.#drain(this.shutdownTimeout);
    if (waits || drain !== undefined) await serving;
    if (!this.#announced) return;
    this.#announced = false;
    if (this.#channels.closed.hasSubscribers) this.#channels.closed.publish({ server: this });
  }

  /**
   * Leaves the process free to exit while the server listens and has nothing to do, until `ref()`; may be called at any time, and holds over
   * a restart. Open connections keep the process running as before, and so do workers that are busy; idle ones don't, however the server
   * stands. A program that ends like that ends without `serverClose()`. It must not await `serveForever()` at its top level, as the runtimes
   * take a module that can't go on for an error.
   *
   * @throws {UnsupportedError} When the runtime can't.
   */
  unref(): void {
    this.#unreferenced = true;
    this.#requestDeadline?.keepAlive(false);
    this.keepRunning(false);
  }

  /** Keeps the process running while the server listens, as it does from the beginning. */
  ref(): void {
    this.#unreferenced = false;
    this.#requestDeadline?.keepAlive(true);
    this.keepRunning(true);
  }

  /** The same as {@linkcode BaseServer.serverClose}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.serverClose();
  }

  // Methods that may be overridden.

  /** Binds the address and puts the one bound into `serverAddress`. The runtimes bind and listen in one step, so it does both. */
  abstract serverBind(): void | Promise<void>;

  /** Called by `activate()` after `serverBind()`. Does nothing by default. */
  serverActivate(): void | Promise<void> {}

  /** Frees what `serverBind()` took; `serverClose()` calls it. */
  abstract serverUnbind(): void | Promise<void>;

  /**
   * Waits for the next request.
   *
   * @returns The request and who sent it; `null` when `interrupt()` ended the wait, or what came was refused. Without a promise when
   * one is there already.
   */
  abstract getRequest(): Taken<R> | Promise<Taken<R>>;

  /**
   * Decides whether to handle a request. `true` by default.
   *
   * @param _request The request.
   * @param _clientAddress Who sent it.
   * @returns `false` to turn it away: `shutdownRequest` is called and nothing else.
   */
  verifyRequest(_request: R, _clientAddress: Address | null): boolean | Promise<boolean> {
    return true;
  }

  /**
   * Handles a request and shuts it down.
   *
   * @param request The request.
   * @param clientAddress Who sent it.
   */
  processRequest(request: R, clientAddress: Address | null): void | Promise<void> {
    const finished = this.finishRequest(request, clientAddress);
    if (!this.#mustClose(request)) return finished;
    if (finished === undefined && this.#detached.size === 0) return this.shutdownRequest(request);
    return Promise.resolve(finished).then(() => {
      if (request instanceof Connection) noteEnd(request, this.draining ? "drained" : "handler done");
      const rest = this.#finishedElsewhere(request);
      return rest === undefined ? this.shutdownRequest(request) : rest.then(() => this.shutdownRequest(request));
    });
  }

  /**
   * Makes an instance of `RequestHandlerClass` and takes it through `setup()`, `handle()` and `finish()`.
   *
   * @param request The request.
   * @param clientAddress Who sent it.
   */
  finishRequest(request: R, clientAddress: Address | null): void | Promise<void> {
    return runHandler(new this.RequestHandlerClass(request, clientAddress, this));
  }

  /**
   * Ends a request, whatever became of it. Calls `closeRequest`.
   *
   * @param request The request.
   */
  shutdownRequest(request: R): void | Promise<void> {
    return this.closeRequest(request);
  }

  /**
   * Frees what a request holds: closes a connection once what was written has left. Nothing, for a datagram.
   *
   * @param request The request.
   */
  closeRequest(request: R): void | Promise<void> {
    if (request instanceof Connection) return request.close();
  }

  /** Called by `serveForever()` after every request. `socketserver` polls and calls it twice a second too; nothing polls here. */
  serviceActions(): void | Promise<void> {}

  /** Called by `handleRequest()` when no request came in time. Does nothing by default. */
  handleTimeout(): void | Promise<void> {}

  /**
   * Deals with an error of a request; the server goes on. Throwing here ends `serveForever()` with what is thrown.
   *
   * By default prints to stderr, without ever ending the program: an error of the program's with its stack and who sent the request; what
   * the request's own peer did, and what the system has run out of, as one line (of the latter one a minute); and nothing when the peer
   * has only left, which `stats.ended` counts. Control characters are escaped, so that what a peer has chosen forges no line.
   *
   * @param request The request; `null` when the error came before there was one, as when the system is out of descriptors, or belongs
   * to none, as when a worker dies that has none.
   * @param clientAddress Who sent it.
   * @param error What was thrown.
   */
  handleError(request: R | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    const hidden = isShortage(error) ? this.#shortages.next() : 0;
    if (hidden === null) return;
    const report = reportOf(this.serverAddress, request, clientAddress, error);
    if (report !== null) print(hidden === 0 ? report : `${report} [${hidden} errors of this kind before were not shown]`);
  }

  /**
   * Called when a connection has ended, for whatever reason, and when one was refused. Does nothing by default. What it throws goes to
   * `handleError`.
   *
   * @param _request The connection; `null` when it was refused before there was one.
   * @param _clientAddress Who was there.
   * @param _reason Why it has ended.
   */
  handleEnd(_request: R | null, _clientAddress: Address | null, _reason: EndReason): void {}

  /**
   * Leaves the rest of a request to somebody else, as a handler's `fork()` and `spawnThread()` do: once the handler is done the next
   * request is taken, and this one is shut down when `rest` has settled. A rejection goes to `handleError`.
   *
   * @param request The request.
   * @param rest Settles when the request is over.
   * @param kill Ends the rest by force, when it has not noticed that the request was aborted; resolves when that is done.
   */
  detachRequest(request: R, rest: Promise<void>, kill: (() => Promise<void>) | null = null): void {
    rest.catch(() => {});
    this.#detached.set(request, rest);
    this.#enter();
    const entry = this.#active.get(request);
    if (entry !== undefined) entry.kill = kill;
  }

  // Methods for derived classes.

  /**
   * Checks the handler that the constructor was given, before the fields of a subclass are set.
   *
   * @param Handler What was given.
   * @throws {TypeError} When it is no class with a `handle()` method.
   */
  protected checkHandler(Handler: unknown): void {
    if (typeof Handler === "function" && typeof Handler.prototype?.handle === "function") return;
    throw new TypeError(
      `RequestHandlerClass must be a class with a handle() method, got ${
        typeof Handler === "function" ? "a function" : String(Handler)
      }; serve() takes a plain function`,
    );
  }

  /** Checks the fields before anything is bound. A subclass that overrides it calls `super.validate()`. */
  protected validate(): void {
    if (this.timeout !== null) checkTimeout("timeout", this.timeout);
    checkTimeout("shutdownTimeout", this.shutdownTimeout);
    checkTimeout("workerGrace", this.workerGrace);
    if (this.workerGrace === 0) throw new RangeError("workerGrace must be more than 0; Infinity switches it off");
    if (!(this.maxActiveRequests >= 1)) {
      throw new RangeError(`maxActiveRequests must be 1 or more, got ${String(this.maxActiveRequests)}`);
    }
  }

  /** Whether as many requests are in progress as may be: then the next one is not taken. */
  protected get full(): boolean {
    return this.#active.size >= this.maxActiveRequests;
  }

  /**
   * Whether the requests in progress send on the socket that `serverUnbind()` closes, so that `serverClose()` waits for them first: on
   * datagram servers. Connections outlive their listener, whose address is free at once.
   */
  protected get requestsShareSocket(): boolean {
    return false;
  }

  /** Stops listening where that can be done before `serverUnbind()`, and the requests that wait are still there then. */
  protected stopListening(): void | Promise<void> {}

  /** How many requests would be lost by `serverUnbind()`. */
  protected get waiting(): number {
    return 0;
  }

  /**
   * Says whether listening keeps the process running; nothing by default.
   *
   * @param _on Whether it does.
   */
  protected keepRunning(_on: boolean): void {}

  /** Makes a waiting `getRequest()` return `null`. */
  protected abstract interrupt(): void;

  /**
   * Makes the handler of a request fail soon; called when its time is up.
   *
   * @param _request The request.
   */
  protected abortRequest(_request: R): void {}

  /**
   * Ends the handlers of all requests by force, where that is possible; called when some have not noticed that they were aborted.
   *
   * @returns A promise that resolves when they are gone; without one, they are left to themselves.
   */
  protected killRequests(): void | Promise<void> {}

  /**
   * Passes an error that belongs to no request on to `handleError`.
   *
   * @param error What was thrown.
   */
  protected reportError(error: unknown): void {
    void this.#report(null, null, error);
  }

  /**
   * Aborts a request, unless that has been done.
   *
   * @param request The request.
   * @param reason Why.
   */
  protected endRequest(request: R, reason: EndReason): void {
    this.#enter();
    const entry = this.#active.get(request);
    if (entry === undefined || entry.aborted) return;
    entry.aborted = true;
    if (request instanceof Connection) noteEnd(request, reason);
    this.abortRequest(request);
  }

  /**
   * Called when a request is over.
   *
   * @param _request The request.
   * @param _clientAddress Who sent it.
   * @param _duration Milliseconds since it was taken; 0 for a datagram that was not timed.
   */
  protected requestEnded(_request: R, _clientAddress: Address | null, _duration: number): void {}

  /**
   * Counts the end of a connection and calls `handleEnd()`.
   *
   * @param request The connection; `null` when it was refused before there was one.
   * @param clientAddress Who was there.
   * @param reason Why it has ended.
   */
  protected countEnd(request: R | null, clientAddress: Address | null, reason: EndReason): void {
    this.#ended[reason]++;
    if (request === null && this.#channels.refused.hasSubscribers) {
      this.#channels.refused.publish({ server: this, clientAddress, reason });
    }
    try {
      this.handleEnd(request, clientAddress, reason);
    } catch (error) {
      void this.#report(request, clientAddress, error);
    }
  }

  /**
   * Tells that a worker has loaded the handler's module.
   *
   * @param kind Where it runs.
   * @param id Its thread id or process id.
   */
  protected workerStarted(kind: WorkerKind, id: number): void {
    const { workerStarted } = this.#channels;
    if (workerStarted.hasSubscribers) workerStarted.publish({ server: this, kind, id });
  }

  /**
   * Tells that a worker is gone.
   *
   * @param kind Where it ran.
   * @param id Its thread id or process id.
   * @param error What ended it; `null` when the server did.
   */
  protected workerExited(kind: WorkerKind, id: number, error: Error | null): void {
    const { workerExited } = this.#channels;
    if (workerExited.hasSubscribers) workerExited.publish({ server: this, kind, id, error });
  }

  /** Counts a worker that was ended because it did not answer. */
  protected workerStuck(): void {
    this.#stuckWorkers++;
  }

  async #activate(): Promise<void> {
    // Here and not in the constructor, where the fields of a subclass are not set yet.
    const { runtime: _, ...fields } = this.#options;
    for (const [name, value] of Object.entries(fields)) {
      if (!(name in this)) throw new TypeError(`unknown option: ${name}`);
      if (value !== undefined) (this as Record<string, unknown>)[name] = value;
    }
    this.validate();
    this.runtime.guardOutput();
    await this.serverBind();
    if (this.#unreferenced) this.keepRunning(false);
    try {
      await this.serverActivate();
    } catch (error) {
      await this.serverUnbind();
      throw error;
    }
    this.#announced = true;
    if (this.#channels.listening.hasSubscribers) this.#channels.listening.publish({ server: this });
  }

  /** What the loop takes next: what `getRequest()` gives, unless a server has a shorter way; a symbol when it has been handled already. */
  protected takeRequest(): Taken<R> | symbol | Promise<Taken<R> | symbol> {
    return this.getRequest();
  }

  /** Whether requests are handled in the turn in which they arrive; not where a subclass has something to do between two. */
  protected get handlesArrived(): boolean {
    return this.concurrent && this.serviceActions === BaseServer.prototype.serviceActions;
  }

  /**
   * Handles a request of a concurrent server in the turn in which it arrives.
   *
   * @returns Whether the loop may go on waiting; else it has to look at the server's state.
   */
  protected handleArrived(taken: [R, Address | null]): boolean {
    void this.#handle(taken);
    return !this.#shutdownRequested && !this.#suspended && !this.full && this.#failure === null && this.#activated !== null;
  }

  /** Whether the loop has nothing more to do. */
  #isToEnd(): boolean {
    if (this.#failure !== null || this.#activated === null) return true;
    return this.#shutdownRequested && !(this.#emptying && (this.#stopping || this.waiting > 0));
  }

  /** Passes over an error of `getRequest()` that says nothing of the next request. */
  async #notTaken(error: unknown): Promise<void> {
    if (!(error instanceof SocketError) || FATAL.has(error.code)) throw error;
    if (PASSING.has(error.code)) return;
    // Once for each time that it begins: a log that grows by ten lines a second would be the next shortage.
    if (this.#failedAt !== this.#accepted) {
      this.#failedAt = this.#accepted;
      await this.#noteError(null, null, error);
    }
    // Asking again at once would spin until somebody frees something.
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }

  /** Enters the current request into the table, unless that has been done. */
  #enter(): void {
    if (this.#current === null) return;
    this.#active.add(this.#current);
    this.#current = null;
  }

  /** Handles a request from first to last; a promise only when there is something to wait for before the next one is taken. */
  #handle(taken: [R, Address | null]): void | Promise<void> {
    const begun = this.#accepted++ % this.timedOneIn === 0 ? performance.now() : UNTIMED;
    const entry = this.#current = new Entry(taken[0], taken[1], begun);
    const handled = this.#see(entry);
    if (handled === undefined) return;
    this.#enter();
    if (this.concurrent) return;
    // Not `return handled`: a request that doesn't end even when aborted must not keep shutdown() from ending the loop.
    return new Promise((resolve) => {
      this.#release = resolve;
      void handled.then(resolve);
    });
  }

  /** Sees a request through. Never throws or rejects; without a promise when none of the hooks makes one. */
  #see(entry: Entry<R>): void | Promise<void> {
    try {
      const verified = this.verifyRequest(entry.request, entry.clientAddress);
      const seen = typeof verified === "boolean"
        ? this.#proceed(verified, entry)
        : Promise.resolve(verified).then((verified) => this.#proceed(verified, entry));
      if (seen !== undefined) return this.#settle(seen, entry);
    } catch (error) {
      return this.#failed(entry, error);
    }
    return this.#done(entry);
  }

  #settle(seen: Promise<void>, entry: Entry<R>): Promise<void> {
    return Promise.resolve(seen).then(() => this.#done(entry), (error) => this.#failed(entry, error));
  }

  /** The handler is done; the request is over when nobody else has the rest of it. */
  #done(entry: Entry<R>): void | Promise<void> {
    const rest = this.#detached.size === 0 ? undefined : this.#finishedElsewhere(entry.request);
    if (rest === undefined) return this.#leave(entry);
    return rest.then(() => this.#leave(entry), (error) => this.#failed(entry, error));
  }

  /** Whether there is something to do when a request is over: not for a datagram, unless a subclass has something. */
  #mustClose(request: R): boolean {
    const { shutdownRequest, closeRequest } = BaseServer.prototype;
    return request instanceof Connection || this.shutdownRequest !== shutdownRequest || this.closeRequest !== closeRequest;
  }

  #finishedElsewhere(request: R): Promise<void> | undefined {
    const rest = this.#detached.get(request);
    if (rest === undefined) return;
    this.#detached.delete(request);
    this.#release?.();
    return rest;
  }

  #proceed(verified: boolean, { request, clientAddress }: Entry<R>): void | Promise<void> {
    if (verified) return this.processRequest(request, clientAddress);
    this.#rejected++;
    if (request instanceof Connection) noteEnd(request, "rejected");
    return this.shutdownRequest(request);
  }

  async #failed(entry: Entry<R>, thrown: unknown): Promise<void> {
    const { request, clientAddress } = entry;
    const error = toInspectable(thrown);
    if (request instanceof Connection) noteEnd(request, reasonOf(error));
    await this.#report(request, clientAddress, error);
    try {
      await this.shutdownRequest(request);
    } catch (second) {
      await this.#report(request, clientAddress, second);
    }
    this.#leave(entry);
  }

  #leave(entry: Entry<R>): void {
    const { request, clientAddress, begun } = entry;
    const duration = begun === UNTIMED ? 0 : performance.now() - begun;
    if (begun !== UNTIMED) this.#requestTime.record(duration, this.timedOneIn);
    if (this.#current !== null) {
      // It never was in the table, and nobody can be waiting.
      this.#current = null;
      return this.requestEnded(request, clientAddress, duration);
    }
    this.#active.remove(entry);
    this.requestEnded(request, clientAddress, duration);
    this.#left?.resolve();
    this.#left = null;
    if (this.#active.size > 0) return;
    this.#idle?.resolve();
    this.#idle = null;
  }

  /** Makes the loop look at the server's state, whatever it waits for. */
  #wake(): void {
    this.interrupt();
    this.#left?.resolve();
  }

  /** Waits until a request is over, or the loop is to look at the server's state. */
  async #room(): Promise<void> {
    this.#left = Promise.withResolvers();
    await this.#left.promise;
  }

  async #report(request: R | null, clientAddress: Address | null, thrown: unknown): Promise<void> {
    const error = toInspectable(thrown);
    try {
      if (error instanceof SystemExit) throw error;
      // That a request failed which was aborted here is no news.
      if (error instanceof WorkerStopped || (request !== null && this.#active.get(request)?.killed)) return;
      if (error instanceof SocketError && this.#expected(request, error.code)) return;
      await this.#noteError(request, clientAddress, error);
    } catch (failure) {
      this.#failure ??= { error: failure };
      this.#wake();
    }
  }

  /** Whether it is no news that a request fails like this. */
  #expected(request: R | null, code: string): boolean {
    if (code === "ECONNABORTED") return this.#abortedHere(request);
    // A load balancer's health check says whose it is, nothing else, and resets.
    const silent = request instanceof Connection && request.proxy !== null && request.bytesRead === 0;
    return silent && (code === "ECONNRESET" || code === "EPIPE");
  }

  #noteError(request: R | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    this.#errors++;
    if (this.#channels.error.hasSubscribers) this.#channels.error.publish({ server: this, request, clientAddress, error });
    return this.handleError(request, clientAddress, error);
  }

  #abortedHere(request: R | null): boolean {
    return request instanceof Connection ? endedHere(request) : request !== null && this.#active.get(request)?.aborted === true;
  }

  #throwFailure(): void {
    const failure = this.#failure;
    this.#failure = null;
    if (failure !== null) throw failure.error;
  }

  /** Waits until no request is in progress, for `ms` milliseconds; then aborts those that are. */
  async #drain(ms: number): Promise<void> {
    this.#enter();
    this.#draining++;
    this.#drainController?.abort();
    try {
      await this.#drainNow(this.#emptying ? await this.#empty(ms) : ms);
    } finally {
      this.#draining--;
      if (this.#draining === 0) this.#drainController = null;
    }
  }

  /** Has the loop handle what waits, for `ms` milliseconds; what is left of these. */
  async #empty(ms: number): Promise<number> {
    const begun = performance.now();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      if (ms !== Infinity) timer = setTimeout(resolve, ms);
    });
    await Promise.race([this.#serving, late]);
    clearTimeout(timer);
    this.#emptying = false;
    return Math.max(0, ms - (performance.now() - begun));
  }

  async #drainNow(ms: number): Promise<void> {
    const inTime = () => [...this.#active.values()].some(({ aborted }) => !aborted);
    if (ms !== 0 && inTime() && await this.#drained(ms)) return;
    if (inTime()) {
      for (const [request, entry] of this.#active) {
        if (entry.aborted) continue;
        this.#aborted++;
        this.endRequest(request, "aborted");
      }
      if (!await this.#drained(ABORT_GRACE)) await this.#kill();
    }
    this.#release?.();
    // Another drain, such as that of serverClose(), need not wait for those that have not noticed.
    this.#idle?.resolve();
    this.#idle = null;
  }

  async #kill(): Promise<void> {
    const killing: Promise<void>[] = [];
    const killed = this.killRequests();
    if (killed !== undefined) killing.push(killed);
    for (const entry of this.#active.values()) {
      entry.killed = killed !== undefined || entry.kill !== null;
      if (entry.kill !== null) killing.push(entry.kill());
    }
    if (killing.length === 0) return;
    await Promise.all(killing);
    await this.#drained(ABORT_GRACE);
  }

  #drained(ms: number): Promise<boolean> {
    if (this.#active.size === 0) return Promise.resolve(true);
    const idle = (this.#idle ??= Promise.withResolvers<void>()).promise;
    return new Promise((resolve) => {
      const timer = ms === Infinity ? undefined : setTimeout(() => resolve(false), ms);
      idle.then(() => {
        clearTimeout(timer);
        resolve(true);
      });
    });
  }
}

/** Why a connection ends whose request has failed. */
function reasonOf(error: unknown): EndReason {
  if (error instanceof SystemExit) return "handler done";
  return error instanceof WorkerStopped ? "aborted" : "handler error";
}

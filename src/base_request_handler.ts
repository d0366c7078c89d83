import type { Address } from "./address.ts";
import type { BaseServer } from "./base_server.ts";
import { Connection, noteEnd } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { SystemExit } from "./errors.ts";
import { handOver } from "./hand_over.ts";
import { describe, isInstance } from "./thrown.ts";
import { ignore } from "./promises.ts";
import type { WorkerKind } from "./worker.ts";
import { checkWorkerData } from "./worker_data.ts";
import { checkHandlerUrl, checkWorkers } from "./worker_handler.ts";

/**
 * The class that every request handler derives from: one instance for each request, `setup()` → `handle()` → `finish()`.
 *
 * Override `handle()`. Each of the three may be async. `finish()` always runs, also when `setup()` or `handle()` threw
 * (`socketserver` leaves it out when `setup()` raises).
 *
 * @typeParam R What a request is: a {@linkcode Connection} on the stream servers.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler } from "@sockets/server";
 *
 * class Daytime extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     await this.request.write(new Date().toISOString() + "\r\n");
 *   }
 * }
 * ```
 */
export class BaseRequestHandler<R = Connection> {
  /** The request. */
  readonly request: R;
  /** Who sent it; `null` when the sender has no address. */
  readonly clientAddress: Address | null;
  /** The server that took it. */
  readonly server: BaseServer<R>;

  /**
   * Called by the server's `finishRequest`.
   *
   * @param request The request.
   * @param clientAddress Who sent it.
   * @param server The server that took it.
   */
  constructor(request: R, clientAddress: Address | null, server: BaseServer<R>) {
    this.request = request;
    this.clientAddress = clientAddress;
    this.server = server;
  }

  /** Prepares for `handle()`. Does nothing by default. */
  setup(): void | Promise<void> {}

  /** Does the work of the service. Does nothing by default. */
  handle(): void | Promise<void> {}

  /** Cleans up after `handle()`. Does nothing by default. */
  finish(): void | Promise<void> {}

  /**
   * Hands the request over to a child process, which finishes it while this server goes on to the next one: what an `os.fork()` inside
   * of `handle()` is to `socketserver`. The child gets what nobody has read yet; this handler must not touch the request any more.
   *
   * @param module The URL of the module that exports the handler for the rest; a fragment names an export other than `default`.
   * @param data What that handler has as `this.server.data`, by way of JSON; the server's `data` by default.
   * @throws {TypeError} When `module` is no URL, when `data` can't be carried, or when this handler runs in a worker itself.
   * @throws {UnsupportedError} When the program is compiled: a child process would be the same program, and not the handler.
   */
  fork(module: URL | string, data: unknown = this.server.data): void {
    this.#handOver("process", module, data);
  }

  /**
   * Hands the request over to a thread of its own; otherwise as {@linkcode BaseRequestHandler.fork}.
   *
   * @param module The URL of the module that exports the handler for the rest; a fragment names an export other than `default`.
   * @param data What that handler has as `this.server.data`, cloned; the server's `data` by default.
   * @throws {TypeError} When `module` is no URL, when `data` can't be carried, or when this handler runs in a worker itself.
   * @throws {UnsupportedError} When the program is compiled in a way that leaves no modules for a thread to load.
   */
  spawnThread(module: URL | string, data: unknown = this.server.data): void {
    this.#handOver("thread", module, data);
  }

  /** What has been read of the request and not been used: it goes to the one that the request is handed over to. */
  protected unread(): Uint8Array | Promise<Uint8Array> {
    return new Uint8Array(0);
  }

  #handOver(kind: WorkerKind, module: URL | string, data: unknown): void {
    const { server, clientAddress } = this;
    if (typeof server.detachRequest !== "function") {
      throw new TypeError(
        "this handler runs in a worker itself: only one that runs in the server's own thread can hand a request over",
      );
    }
    checkHandlerUrl(module, "worker");
    checkWorkerData(kind, data);
    checkWorkers(kind, server.runtime);
    const opening = handOver(kind, { server, module: String(module), data });
    const finish = async () => {
      const pool = await opening;
      try {
        await pool.run(this.request as Connection | Datagram, clientAddress, await this.unread());
      } finally {
        await pool.close(true);
      }
    };
    // Where nothing could be opened, `finish` says so, and there is nothing to close.
    const kill = () => opening.then((pool) => pool.close(true), ignore);
    server.detachRequest(this.request, finish(), kill);
  }
}

/**
 * Takes a handler through its three steps; without a promise when none of them makes one. In Python the handler's constructor does it; a
 * JavaScript constructor can't wait.
 */
export function runHandler<R>(handler: BaseRequestHandler<R>): void | Promise<void> {
  try {
    const ready = handler.setup();
    if (ready !== undefined) return finishing(handler, Promise.resolve(ready).then(() => handler.handle()));
    const handled = handler.handle();
    // It may return anything: who writes JavaScript is not kept from that.
    if (handled !== undefined) return finishing(handler, Promise.resolve(handled));
  } catch (error) {
    return finishing(handler, Promise.reject(error));
  }
  noteDone(handler);
  return handler.finish();
}

/** The promise that the handler has finished: its own, where no `finish()` is to see why the connection ends, which the server notes. */
function finishing<R>(handler: BaseRequestHandler<R>, handled: Promise<void>): Promise<void> {
  if (handler.finish === BaseRequestHandler.prototype.finish) return handled;
  // Without `async`, as three promises more for each request would be noticed.
  return handled.then(() => {
    noteDone(handler);
    return handler.finish();
  }, (error) => finishFailed(handler, error));
}

async function finishFailed<R>(handler: BaseRequestHandler<R>, error: unknown): Promise<never> {
  const { request } = handler;
  const exit = isInstance(error, SystemExit);
  if (request instanceof Connection && !exit) noteEnd(request, "handler error");
  try {
    await handler.finish();
  } catch (second) {
    if (!exit) throw new AggregateError([error, second], `a handler failed, and so did its finish(): ${describe(error)}`);
  }
  throw error;
}

/** For `finish()` to see, the reason why the connection ends now. */
function noteDone<R>({ request, server }: BaseRequestHandler<R>): void {
  // A handler that derives from none of this package's need not keep its server.
  if (request instanceof Connection) noteEnd(request, server?.draining ? "drained" : "handler done");
}

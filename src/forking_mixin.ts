import type { Address } from "./address.ts";
import type { ServerClass } from "./async_mixin.ts";
import type { ShutdownOptions } from "./base_server.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { checkTimeout } from "./deadline.ts";
import { patienceOf, senderOf } from "./hand_over.ts";
import { handlerLimits } from "./limits.ts";
import type { ProcessPool } from "./process_pool.ts";
import type { ServerStats } from "./stats.ts";
import { checkWorkerData } from "./worker_data.ts";
import { checkCount, checkHandlerUrl, checkWorkers } from "./worker_handler.ts";

/** Options that a forking server takes beside those of the class it is made of. Each sets the server's field of the same name. */
export interface ForkingOptions {
  /** See {@linkcode ForkingFields.maxChildren}. */
  maxChildren?: number;
  /** See {@linkcode ForkingFields.spareChildren}. */
  spareChildren?: number;
  /** See {@linkcode ForkingFields.requestsPerChild}. */
  requestsPerChild?: number;
  /** See {@linkcode ForkingFields.childTimeout}. */
  childTimeout?: number;
}

/** The fields and methods that {@linkcode ForkingMixIn} adds to a server. */
export interface ForkingFields {
  /** Child processes that may run at once: 40 by default, as in `socketserver`. With all of them busy, requests wait in the queue. */
  maxChildren: number;
  /** Children that are started ahead, so that a request doesn't wait for a process to start: 1 by default. */
  spareChildren: number;
  /** Requests that a child handles, one after the other: 1 by default, so that what a handler changes never reaches the next. */
  requestsPerChild: number;
  /**
   * Milliseconds that a child beyond the spare ones may be idle before it is ended: 300,000 by default, the time after which
   * `socketserver` looks for children to collect when no request comes.
   */
  childTimeout: number;
  /** The process ids of the children that are running. */
  readonly activeChildren: ReadonlySet<number>;
  /** Ends the children that are idle beyond the spare ones. Called after `childTimeout` too. */
  collectChildren(): Promise<void>;
}

/** The class that {@linkcode ForkingMixIn} makes: its handler is named by the URL of a module. */
export type ForkingServerClass<B extends ServerClass> = new (
  address: string | Address,
  handler: URL | string,
  options?: ConstructorParameters<B>[2] & ForkingOptions,
) => InstanceType<B> & ForkingFields;

/**
 * Handles each request in a child process, by default a fresh one.
 *
 * JavaScript can't copy a running program as `fork(2)` does: a child starts the handler's module anew, and `this.server` has
 * `serverAddress` and `data` there, a copy by way of JSON. The sockets stay in the server's process, which hands their bytes over. A
 * child that dies takes its own request with it, and one whose server dies ends by itself. What children print to standard error
 * comes out of the server's, marked with their process id.
 *
 * @param Base The server class to derive from.
 * @returns A class derived from it.
 *
 * @example
 * ```ts
 * import { ForkingMixIn, TCPServer } from "@sockets/server";
 *
 * class ReportServer extends ForkingMixIn(TCPServer) {}
 *
 * // report_handler.ts exports the handler class as `default`; "./handlers.ts#ReportHandler" would name another export.
 * const server = new ReportServer("tcp://127.0.0.1:0", new URL("./report_handler.ts", import.meta.url), { maxChildren: 10 });
 * await server.serverClose();
 * ```
 */
export function ForkingMixIn<B extends ServerClass>(Base: B): ForkingServerClass<B> {
  abstract class ForkingServer extends (Base as ServerClass) implements ForkingFields {
    protected override readonly concurrent = true;
    maxChildren = 40;
    spareChildren = 1;
    requestsPerChild = 1;
    childTimeout = 300_000;
    #pool: ProcessPool | null = null;

    get activeChildren(): ReadonlySet<number> {
      return this.#pool?.pids ?? new Set();
    }

    async collectChildren(): Promise<void> {
      await this.#pool?.collect();
    }

    override get stats(): ServerStats {
      return { ...super.stats, children: this.activeChildren.size };
    }

    protected override checkHandler(handler: unknown): void {
      checkHandlerUrl(handler, "child process");
    }

    protected override validate(): void {
      checkCount("maxChildren", this.maxChildren, 1);
      checkCount("spareChildren", this.spareChildren, 0);
      checkCount("requestsPerChild", this.requestsPerChild, 1);
      checkTimeout("childTimeout", this.childTimeout);
      checkWorkerData("process", this.data);
      checkWorkers("process", this.runtime);
      // More requests than children would only wait here, where nobody counts them.
      this.maxActiveRequests = Math.min(this.maxActiveRequests, this.maxChildren);
      super.validate();
    }

    override async serverActivate(): Promise<void> {
      await super.serverActivate();
      const { runtime, serverAddress, data, maxChildren, spareChildren, requestsPerChild, childTimeout } = this;
      const { ProcessPool } = await import("./process_pool.ts");
      const pool = new ProcessPool({
        runtime,
        start: { entry: "handler", module: String(this.RequestHandlerClass), serverAddress, data, limits: handlerLimits(this) },
        maxChildren,
        spareChildren,
        requestsPerChild,
        childTimeout,
        sendDatagram: senderOf(this),
        ...patienceOf(this),
        onStart: (id) => this.workerStarted("process", id),
        onExit: (id, error) => this.workerExited("process", id, error),
        onError: (error) => this.reportError(error),
      });
      try {
        await pool.warm();
      } catch (error) {
        await pool.close(true);
        throw error;
      }
      this.#pool = pool;
    }

    override finishRequest(request: Connection | Datagram, clientAddress: Address | null): void | Promise<void> {
      return this.#pool!.run(request, clientAddress);
    }

    protected override abortRequest(request: Connection | Datagram): void {
      super.abortRequest(request);
      this.#pool?.abort(request);
    }

    protected override killRequests(): void | Promise<void> {
      return this.#pool?.kill();
    }

    override async serverClose(options?: ShutdownOptions): Promise<void> {
      await super.serverClose(options);
      // Whoever is still busy has been told to stop and had time to; or, with blockOnClose off, is left to finish.
      await this.#pool?.close(this.blockOnClose);
    }
  }
  Object.defineProperty(ForkingServer, "name", { value: `Forking${Base.name}` });
  return ForkingServer as unknown as ForkingServerClass<B>;
}

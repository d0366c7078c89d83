import type { Address } from "./address.ts";
import type { ServerClass } from "./async_mixin.ts";
import type { ShutdownOptions } from "./base_server.ts";
import { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { patienceOf, senderOf } from "./hand_over.ts";
import { handlerLimits } from "./limits.ts";
import type { ServerStats } from "./stats.ts";
import type { ThreadPool } from "./thread_pool.ts";
import { checkWorkerData } from "./worker_data.ts";
import { checkCount, checkHandlerUrl, checkWorkers } from "./worker_handler.ts";

/** Options that a threading server takes beside those of the class it is made of. Each sets the server's field of the same name. */
export interface ThreadingOptions {
  /** See {@linkcode ThreadingFields.maxThreads}. */
  maxThreads?: number;
  /** See {@linkcode ThreadingFields.spareThreads}. */
  spareThreads?: number;
  /** See {@linkcode ThreadingFields.maxRequestsPerThread}. */
  maxRequestsPerThread?: number;
  /** See {@linkcode ThreadingFields.daemonThreads}. */
  daemonThreads?: boolean;
}

/** The fields that {@linkcode ThreadingMixIn} adds to a server. */
export interface ThreadingFields {
  /** Threads that may run at once: by default as many as there are cores. Each handles any number of requests, interleaved. */
  maxThreads: number;
  /** Threads that `activate()` starts ahead, 1 by default: what is wrong with the handler's module shows there. */
  spareThreads: number;
  /** Requests after which a thread is replaced by a fresh one: `Infinity` by default. */
  maxRequestsPerThread: number;
  /**
   * Whether the process may exit while threads handle requests: `false` by default, as in `socketserver`: it doesn't end before they
   * have.
   */
  daemonThreads: boolean;
  /** Threads that are running. */
  readonly threads: number;
}

/** The class that {@linkcode ThreadingMixIn} makes: its handler is named by the URL of a module. */
export type ThreadingServerClass<B extends ServerClass> = new (
  address: string | Address,
  handler: URL | string,
  options?: ConstructorParameters<B>[2] & ThreadingOptions,
) => InstanceType<B> & ThreadingFields;

/**
 * Handles each request in a worker thread, so that one that computes doesn't make the others wait.
 *
 * A thread has its own memory: it can't be given a class, so the handler is named by the URL of the module that exports it, which every
 * thread loads once. The sockets stay in the main thread, which hands their bytes over; the connection that a handler has keeps every
 * promise of {@linkcode Connection}. `this.server` has `serverAddress` and `data` there. `verifyRequest` and the other hooks run in the
 * main thread.
 *
 * @param Base The server class to derive from.
 * @returns A class derived from it.
 *
 * @example
 * ```ts
 * import { TCPServer, ThreadingMixIn } from "@sockets/server";
 *
 * class HashServer extends ThreadingMixIn(TCPServer) {}
 *
 * // hash_handler.ts exports the handler class as `default`; "./handlers.ts#HashHandler" would name another export.
 * const server = new HashServer("tcp://127.0.0.1:0", new URL("./hash_handler.ts", import.meta.url), { maxThreads: 4 });
 * await server.serverClose();
 * ```
 */
export function ThreadingMixIn<B extends ServerClass>(Base: B): ThreadingServerClass<B> {
  abstract class ThreadingServer extends (Base as ServerClass) implements ThreadingFields {
    protected override readonly concurrent = true;
    maxThreads: number = this.runtime.capabilities.cores;
    spareThreads = 1;
    maxRequestsPerThread = Infinity;
    daemonThreads = false;
    #pool: ThreadPool | null = null;

    get threads(): number {
      return this.#pool?.size ?? 0;
    }

    override get stats(): ServerStats {
      return { ...super.stats, threads: this.threads };
    }

    protected override checkHandler(handler: unknown): void {
      checkHandlerUrl(handler, "thread");
    }

    protected override validate(): void {
      super.validate();
      checkCount("maxThreads", this.maxThreads, 1);
      checkCount("spareThreads", this.spareThreads, 0);
      checkCount("maxRequestsPerThread", this.maxRequestsPerThread, 1);
      checkWorkerData("thread", this.data);
      checkWorkers("thread", this.runtime);
    }

    override async serverActivate(): Promise<void> {
      await super.serverActivate();
      const { runtime, serverAddress, data, maxThreads, maxRequestsPerThread, daemonThreads: daemon } = this;
      const { ThreadPool } = await import("./thread_pool.ts");
      const pool = new ThreadPool({
        runtime,
        start: { entry: "handler", module: String(this.RequestHandlerClass), serverAddress, data, limits: handlerLimits(this) },
        maxThreads,
        maxRequestsPerThread,
        daemon,
        sendDatagram: senderOf(this),
        ...patienceOf(this),
        onStart: (id) => this.workerStarted("thread", id),
        onExit: (id, error) => this.workerExited("thread", id, error),
        onError: (error) => this.reportError(error),
      });
      try {
        await pool.warm(this.spareThreads);
      } catch (error) {
        await pool.close(true);
        throw error;
      }
      this.#pool = pool;
    }

    override finishRequest(request: Connection | Datagram, clientAddress: Address | null): void | Promise<void> {
      // Its socket would keep the process from exiting as a thread does.
      if (this.daemonThreads && request instanceof Connection) request.unref();
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
  Object.defineProperty(ThreadingServer, "name", { value: `Threading${Base.name}` });
  return ThreadingServer as unknown as ThreadingServerClass<B>;
}

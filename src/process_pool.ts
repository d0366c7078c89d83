import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { ignore } from "./promises.ts";
import { Host, type SendDatagram } from "./relay/host.ts";
import { type ChildProcess, type Runtime, setIdleTimer, type WorkerStart } from "./runtime.ts";
import { WorkerStopped } from "./worker_stopped.ts";

/** How a pool runs its child processes. */
export interface ProcessPoolOptions {
  readonly runtime: Runtime;
  /** What every child is started with. */
  readonly start: WorkerStart;
  readonly maxChildren: number;
  readonly spareChildren: number;
  readonly requestsPerChild: number;
  readonly childTimeout: number;
  readonly sendDatagram: SendDatagram;
  /** See `BaseServer.workerGrace`. */
  readonly workerGrace: () => number;
  /** See `ConnectionLimits.requestTimeout`. */
  readonly requestTimeout: () => number;
  /** Told of a child that was ended because it was not done in time. */
  readonly onStuck: () => void;
  /** Told of a child that has loaded the handler's module. */
  readonly onStart: (id: number) => void;
  /** Told of it when it is gone, with what ended it, or `null` when the pool did. */
  readonly onExit: (id: number, error: Error | null) => void;
  /** Gets what goes wrong with a child while it has no request. */
  readonly onError: (error: Error) => void;
}

/** Milliseconds for which no spare child is started after one could not be: what the system lacks may be there again then. */
const SPARE_RETRY_MS = 1000;

/** Child processes that handle a request at a time each. */
export class ProcessPool {
  #options: ProcessPoolOptions;
  #children = new Set<PooledProcess>();
  /** Those that wait for a request, the one that waits longest first. */
  #idle: PooledProcess[] = [];
  #waiting: PromiseWithResolvers<PooledProcess>[] = [];
  #warm = false;
  #closed = false;
  /**
   * Idle children that have died since the last request was handled, `Infinity` when one could not load the handler. Spares are not
   * started again and again for nothing.
   */
  #failures = 0;
  /** When the system last had nothing left to start a spare child with. */
  #spareFailedAt = -Infinity;

  /** @param options How to run the children; none is started yet. */
  constructor(options: ProcessPoolOptions) {
    this.#options = options;
  }

  /** The process ids of the children that are running. */
  get pids(): Set<number> {
    // One that could not be started has none.
    return new Set([...this.#children].map(({ pid }) => pid).filter((pid) => pid > 0));
  }

  /** Starts the spare children, and waits until they have loaded the handler's module. */
  async warm(): Promise<void> {
    while (this.#idle.length < Math.min(this.#options.spareChildren, this.#options.maxChildren)) this.#idle.push(this.#spawn());
    await Promise.all([...this.#children].map((child) => child.ready));
    this.#warm = true;
  }

  /** Has a child handle a request; resolves when its handler is done, rejects with what it threw or what ended the child. */
  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    const child = this.#idle.shift() ?? (this.#children.size < this.#options.maxChildren ? this.#spawn() : await this.#free());
    try {
      await child.run(request, clientAddress, unread);
    } catch (error) {
      throw child.stopped ? new WorkerStopped(error) : error;
    } finally {
      this.#release(child);
    }
  }

  /** Makes the handler of a request fail soon. */
  abort(request: unknown): void {
    for (const child of this.#children) child.abort(request);
  }

  /** Ends the children that have requests, at once, and turns away the requests that wait for a child. Resolves when they are gone. */
  async kill(): Promise<void> {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(new WorkerStopped());
    await this.#end([...this.#children].filter(({ busy }) => busy));
  }

  /** Ends the children that nobody needs: those that are idle beyond the spare ones. Resolves when they are gone. */
  async collect(): Promise<void> {
    await this.#end(this.#idle.splice(0, Math.max(0, this.#idle.length - this.#options.spareChildren)));
  }

  /** Ends the children: those that are busy when their requests are done, or at once. */
  async close(atOnce: boolean): Promise<void> {
    this.#closed = true;
    const idle = this.#idle.splice(0);
    if (atOnce) await Promise.all([this.kill(), this.#end([...this.#children])]);
    else await this.#end(idle);
  }

  async #end(children: PooledProcess[]): Promise<void> {
    for (const child of children) {
      child.stopped = true;
      child.end();
    }
    await Promise.all(children.map(({ ended }) => ended));
  }

  #spawn(): PooledProcess {
    const child = new PooledProcess(this.#options);
    this.#children.add(child);
    child.ready.catch((error) => {
      // Ended here before it was ready.
      if (child.ending) return;
      child.end();
      this.#idle = this.#idle.filter((idle) => idle !== child);
      if (this.#warm && !child.busy) this.#fail(Infinity, error);
      this.#failures = Infinity;
    });
    void child.ended.then((error) => {
      this.#children.delete(child);
      this.#idle = this.#idle.filter((idle) => idle !== child);
      if (error !== null) this.#fail(1, error);
      this.#spawnForWaiting();
      if (this.#waiting.length === 0) this.#keepSpares();
    });
    return child;
  }

  /** Starts a child for the request that waits longest. */
  #spawnForWaiting(): void {
    for (let next; (next = this.#waiting.shift()) !== undefined;) {
      try {
        return next.resolve(this.#spawn());
      } catch (error) {
        next.reject(error);
        // The others wait for the end of another child, as long as there is one.
        if (this.#children.size > 0) return;
      }
    }
  }

  #free(): Promise<PooledProcess> {
    const waiting = Promise.withResolvers<PooledProcess>();
    this.#waiting.push(waiting);
    return waiting.promise;
  }

  #release(child: PooledProcess): void {
    if (child.ending) return;
    this.#failures = 0;
    if (child.served >= this.#options.requestsPerChild) return child.end();
    const next = this.#waiting.shift();
    if (next !== undefined) return next.resolve(child);
    if (this.#closed) return child.end();
    this.#idle.push(child);
    child.wait(this.#options.childTimeout, () => void this.collect());
    this.#keepSpares();
  }

  #fail(failures: number, error: Error): void {
    this.#failures += failures;
    this.#options.onError(error);
  }

  #keepSpares(): void {
    const { spareChildren, maxChildren } = this.#options;
    if (performance.now() - this.#spareFailedAt < SPARE_RETRY_MS) return;
    try {
      // As many as there were may all have been killed by somebody. More: they die of themselves.
      while (
        !this.#closed && this.#failures <= spareChildren && this.#idle.length < spareChildren && this.#children.size < maxChildren
      ) {
        this.#idle.push(this.#spawn());
      }
    } catch (error) {
      this.#spareFailedAt = performance.now();
      this.#options.onError(error as Error);
    }
  }
}

class PooledProcess {
  readonly pid: number;
  readonly ready: Promise<void>;
  /** Resolves when the process is gone: with the reason, if it had no request and nobody has ended it. */
  readonly ended: Promise<Error | null>;
  served = 0;
  /** Whether the pool has ended it without being told to by a request or by a failure: its requests fail of that, and nobody hears of it. */
  stopped = false;
  /** Whether it has a request. */
  busy = false;
  /** Whether it must get no other. */
  ending = false;
  #child: ChildProcess;
  #host: Host;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Why it was ended by force. */
  #stuck: Error | null = null;

  constructor(options: ProcessPoolOptions) {
    const { runtime, start, sendDatagram, onStart, onExit, onStuck, workerGrace: grace, requestTimeout } = options;
    const child = this.#child = runtime.spawnProcess({
      start,
      onFrame: (channel, type, payload) => this.#host.receive(channel, type, payload),
    });
    const stuck = (error: Error) => {
      this.#stuck = new Error(`process ${child.pid} was ended: ${error.message}`);
      onStuck();
      this.end();
    };
    const patience = { grace, requestTimeout, exclusive: true, stuck, answered: ignore };
    this.#host = new Host((channel, type, payload) => child.send(channel, type, payload), sendDatagram, patience);
    this.pid = child.pid;
    this.ready = child.ready;
    // Before anybody takes it for ended.
    const gone = child.exited.then((error) => this.#stuck ?? (this.ending ? null : error));
    this.ready.then(() => {
      if (!this.busy && !this.ending) child.keepAlive(false);
      onStart(child.pid);
      void gone.then((error) => onExit(child.pid, error));
    }, ignore);
    this.ended = child.exited.then((error) => {
      clearTimeout(this.#timer);
      const unasked = !this.busy && !this.ending;
      this.ending = true;
      const cause = this.#stuck ?? error;
      this.#host.fail(new Error(`the process that handled the request is gone: ${cause.message}`, { cause }));
      return unasked ? new Error(`a process that had no request is gone: ${error.message}`, { cause: error }) : null;
    });
  }

  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    clearTimeout(this.#timer);
    this.served++;
    this.busy = true;
    this.#child.keepAlive(true);
    try {
      await this.ready;
      await this.#host.run(request, clientAddress, unread);
    } finally {
      this.busy = false;
    }
  }

  /** Nobody needs it for now. */
  wait(ms: number, tooLong: () => void): void {
    // One that nobody needs leaves the process free to exit, as an idle thread does.
    this.#child.keepAlive(false);
    if (ms !== Infinity) this.#timer = setIdleTimer(tooLong, ms) as ReturnType<typeof setTimeout>;
  }

  abort(request: unknown): void {
    this.#host.abort(request);
  }

  /** Ends it at once. SIGKILL ends one that is stopped, too. */
  end(): void {
    this.ending = true;
    clearTimeout(this.#timer);
    // Until it is gone, somebody may wait for that.
    this.#child.keepAlive(true);
    this.#child.terminate();
  }
}

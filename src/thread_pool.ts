import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { Host, type SendDatagram } from "./relay/host.ts";
import type { Runtime, WorkerStart } from "./runtime.ts";
import { startThread, type ThreadWorker } from "./worker.ts";
import { WorkerStopped } from "./worker_stopped.ts";

/** How a pool runs its threads. */
export interface ThreadPoolOptions {
  readonly runtime: Runtime;
  /** What every thread is started with. */
  readonly start: WorkerStart;
  readonly maxThreads: number;
  readonly maxRequestsPerThread: number;
  /** Whether threads that are busy leave the process free to exit. */
  readonly daemon: boolean;
  readonly sendDatagram: SendDatagram;
  /** See `BaseServer.workerGrace`. */
  readonly workerGrace: () => number;
  /** See `ConnectionLimits.requestTimeout`. */
  readonly requestTimeout: () => number;
  /** Told of a thread that was ended because it did not answer. */
  readonly onStuck: () => void;
  /** Told of a thread that has loaded the handler's module. */
  readonly onStart: (id: number) => void;
  /** Told of it when it is gone, with what ended it, or `null` when the pool did. */
  readonly onExit: (id: number, error: Error | null) => void;
  /** Gets what goes wrong with a thread while it has no request. */
  readonly onError: (error: Error) => void;
}

/** Milliseconds for which no further thread is started after one could not be: what the system lacks may be there again then. */
const START_RETRY_MS = 1000;

/** Worker threads that handle requests: the least loaded one gets the next. Those that die are replaced when they are needed. */
export class ThreadPool {
  #options: ThreadPoolOptions;
  #workers = new Set<PooledThread>();
  /** Requests for which there is no thread: all have had as many as they may have, and are not done with them. */
  #waiting: PromiseWithResolvers<PooledThread>[] = [];
  #closed = false;
  /** When the system last had nothing left to start a thread with. */
  #startFailedAt = -Infinity;

  /** @param options How to run the threads; none is started yet. */
  constructor(options: ThreadPoolOptions) {
    this.#options = options;
  }

  /** The threads that are running. */
  get size(): number {
    return this.#workers.size;
  }

  /** Starts threads until so many are running, and waits until they have loaded the handler's module. */
  async warm(count: number): Promise<void> {
    while (this.#workers.size < Math.min(count, this.#options.maxThreads)) this.#spawn();
    await Promise.all([...this.#workers].map((worker) => worker.thread.ready));
  }

  /** Has a thread handle a request; resolves when its handler is done, rejects with what it threw or what ended the thread. */
  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    const worker = this.#choose() ?? await this.#free();
    try {
      await worker.run(request, clientAddress, unread);
    } catch (error) {
      throw worker.stopped ? new WorkerStopped(error) : error;
    } finally {
      if (worker.served >= this.#options.maxRequestsPerThread || this.#closed) this.#retire(worker);
    }
  }

  /** Makes the handler of a request fail soon. */
  abort(request: unknown): void {
    for (const worker of this.#workers) worker.abort(request);
  }

  /** Ends the threads that have requests, at once, and turns away the requests that wait for a thread. Resolves when they are gone. */
  async kill(): Promise<void> {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(new WorkerStopped());
    await this.#end([...this.#workers].filter(({ active }) => active > 0));
  }

  /** Ends the threads: those that are busy when their requests are done, or at once. */
  async close(atOnce: boolean): Promise<void> {
    this.#closed = true;
    if (atOnce) await Promise.all([this.kill(), this.#end([...this.#workers])]);
    else for (const worker of this.#workers) this.#retire(worker);
  }

  async #end(workers: PooledThread[]): Promise<void> {
    for (const worker of workers) {
      worker.stopped = true;
      worker.end();
    }
    await Promise.all(workers.map(({ ended }) => ended));
  }

  /** The thread for the next request; `null` when it has to wait for one. */
  #choose(): PooledThread | null {
    let least: PooledThread | null = null;
    let leastStalled = false;
    for (const worker of this.#workers) {
      // One that computes without end, perhaps, is not to get a request that another could handle.
      if (worker.served >= this.#options.maxRequestsPerThread || worker.asked) continue;
      const stalled = worker.stalled;
      const better = least === null || (stalled === leastStalled ? worker.active < least.active : leastStalled);
      if (better) [least, leastStalled] = [worker, stalled];
    }
    if (least === null || least.active > 0) least = this.#another() ?? least;
    least?.take();
    return least;
  }

  /** A further thread; `null` when there are as many as may be, or when the others have to do without it for a while. */
  #another(): PooledThread | null {
    const { size } = this.#workers;
    if (size >= this.#options.maxThreads) return null;
    if (size > 0 && performance.now() - this.#startFailedAt < START_RETRY_MS) return null;
    try {
      return this.#spawn();
    } catch (error) {
      if (size === 0) throw error;
      this.#startFailedAt = performance.now();
      this.#options.onError(error as Error);
      return null;
    }
  }

  #free(): Promise<PooledThread> {
    const waiting = Promise.withResolvers<PooledThread>();
    this.#waiting.push(waiting);
    return waiting.promise;
  }

  #spawn(): PooledThread {
    const worker = new PooledThread(this.#options, () => this.#serveWaiting());
    this.#workers.add(worker);
    worker.thread.ready.catch(() => this.#remove(worker));
    void worker.ended.then((error) => {
      this.#remove(worker);
      if (error !== null) this.#options.onError(error);
    });
    return worker;
  }

  /** Lets go of a thread as soon as it has nothing to do. */
  #retire(worker: PooledThread): void {
    if (worker.active > 0) return;
    worker.end();
    this.#remove(worker);
  }

  #remove(worker: PooledThread): void {
    this.#workers.delete(worker);
    this.#serveWaiting();
  }

  #serveWaiting(): void {
    try {
      for (let next; this.#waiting.length > 0 && (next = this.#choose()) !== null;) this.#waiting.shift()!.resolve(next);
    } catch (error) {
      // No thread could be started.
      for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    }
  }
}

/** Milliseconds after which a thread that reads nothing of what it was sent counts as one that computes. */
const STALL_MS = 20;

class PooledThread {
  readonly thread: ThreadWorker;
  /** Resolves when the thread is gone: with the reason, if it had no request and nobody has ended it. */
  readonly ended: Promise<Error | null>;
  served = 0;
  /** Whether the pool has ended it without being told to by a request or by a failure: its requests fail of that, and nobody hears of it. */
  stopped = false;
  /** Requests that were given to it and are not finished, those that wait for it to be ready included. */
  active = 0;
  #host: Host;
  #daemon: boolean;
  #ending = false;
  /** Why it was ended by force. */
  #stuck: Error | null = null;
  /** What it had read when somebody last looked, while it had not read all, and since when it is no more. */
  #read: number | null = null;
  #readSince = 0;

  /**
   * @param options How to run it.
   * @param answered Called when it can get requests again.
   */
  constructor(options: ThreadPoolOptions, answered: () => void) {
    const { runtime, start, daemon, sendDatagram, onStart, onExit, onStuck, workerGrace: grace, requestTimeout } = options;
    this.#daemon = daemon;
    const thread = this.thread = startThread(
      runtime,
      start,
      (channel, type, payload) => this.#host.receive(channel, type, payload),
    );
    const stuck = (error: Error) => {
      this.#stuck = new Error(`thread ${thread.id} was ended: ${error.message}`);
      onStuck();
      thread.terminate();
    };
    const exclusive = options.maxThreads === 1 && options.maxRequestsPerThread === 1;
    const patience = { grace, requestTimeout, exclusive, stuck, answered };
    this.#host = new Host((channel, type, payload) => thread.send(channel, type, payload), sendDatagram, patience);
    // One that could not load the handler may go on running, with a timer of the module's say.
    // Before anybody takes it for ended.
    const gone = thread.exited.then((error) => this.#stuck ?? (this.#ending ? null : error));
    this.thread.ready.then(() => {
      this.#idle();
      onStart(thread.id);
      void gone.then((error) => onExit(thread.id, error));
    }, () => this.end());
    this.ended = this.thread.exited.then((error) => {
      const unasked = this.active === 0 && !this.#ending;
      const cause = this.#stuck ?? error;
      this.#host.fail(new Error(`the thread that handled the request is gone: ${cause.message}`, { cause }));
      return unasked ? new Error(`a thread that had no request is gone: ${error.message}`, { cause: error }) : null;
    });
  }

  /** Whether it was asked for a sign of life and has not given it yet. */
  get asked(): boolean {
    return this.#host.asked;
  }

  /** Whether it has not read for a while what it was sent, as while it computes. */
  get stalled(): boolean {
    const read = this.thread.unread;
    const now = performance.now();
    if (read === null || read !== this.#read) this.#readSince = now;
    this.#read = read;
    return now - this.#readSince >= STALL_MS;
  }

  /** Counts a request that it is to handle. */
  take(): void {
    this.served++;
    this.active++;
  }

  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    try {
      await this.thread.ready;
      if (!this.#daemon) this.thread.keepAlive(true);
      await this.#host.run(request, clientAddress, unread);
    } finally {
      this.active--;
      this.#idle();
    }
  }

  abort(request: unknown): void {
    this.#host.abort(request);
  }

  end(): void {
    this.#ending = true;
    // Until it is gone, somebody may wait for that.
    this.thread.keepAlive(true);
    this.thread.terminate();
  }

  /** A thread with nothing to do leaves the process free to exit. */
  #idle(): void {
    if (this.active === 0 || this.#daemon) this.thread.keepAlive(false);
  }
}

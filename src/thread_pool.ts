import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { ignore } from "./promises.ts";
import { Host, type SendDatagram } from "./relay/host.ts";
import { makeRing, readRing, RingWriter } from "./relay/ring.ts";
import type { Runtime, Thread, WorkerStart } from "./runtime.ts";

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
}

/** Worker threads that handle requests: the least loaded one gets the next. Those that die are replaced when they are needed. */
export class ThreadPool {
  #options: ThreadPoolOptions;
  #workers = new Set<PooledThread>();
  #closed = false;

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
    const worker = this.#choose();
    try {
      await worker.run(request, clientAddress, unread);
    } finally {
      if (worker.served >= this.#options.maxRequestsPerThread || this.#closed) this.#retire(worker);
    }
  }

  /** Makes the handler of a request fail soon. */
  abort(request: unknown): void {
    for (const worker of this.#workers) worker.abort(request);
  }

  /** Ends the threads: those that are busy when their requests are done, or at once. */
  async close(atOnce: boolean): Promise<void> {
    this.#closed = true;
    const workers = [...this.#workers];
    for (const worker of workers) {
      if (atOnce) worker.end();
      else this.#retire(worker);
    }
    if (atOnce) await Promise.all(workers.map(({ ended }) => ended));
  }

  #choose(): PooledThread {
    let least: PooledThread | null = null;
    for (const worker of this.#workers) {
      if (worker.served >= this.#options.maxRequestsPerThread) continue;
      if (least === null || worker.active < least.active) least = worker;
    }
    if (least === null || (least.active > 0 && this.#workers.size < this.#options.maxThreads)) return this.#spawn();
    return least;
  }

  #spawn(): PooledThread {
    const worker = new PooledThread(this.#options);
    this.#workers.add(worker);
    void worker.ended.then(() => this.#workers.delete(worker));
    return worker;
  }

  /** Lets go of a thread as soon as it has nothing to do. */
  #retire(worker: PooledThread): void {
    if (worker.active > 0) return;
    this.#workers.delete(worker);
    worker.end();
  }
}

class PooledThread {
  readonly thread: Thread;
  /** Resolves when the thread is gone. */
  readonly ended: Promise<void>;
  served = 0;
  /** Requests that were given to it and are not finished, those that wait for it to be ready included. */
  active = 0;
  #host: Host;
  #writer: RingWriter;
  #reading: RingWriter;
  #daemon: boolean;

  constructor({ runtime, start, daemon, sendDatagram }: ThreadPoolOptions) {
    const toThread = makeRing();
    const fromThread = makeRing();
    this.#writer = new RingWriter(toThread);
    // Only to close the ring that is read here.
    this.#reading = new RingWriter(fromThread);
    this.#daemon = daemon;
    this.thread = runtime.spawnThread({ start, toThread, fromThread });
    this.#host = new Host((channel, type, payload) => this.#writer.write(channel, type, payload), sendDatagram);
    void readRing(fromThread, (channel, type, payload) => this.#host.receive(channel, type, payload));
    this.thread.ready.then(() => this.#idle(), ignore);
    this.ended = this.thread.exited.then((error) => {
      this.#host.fail(new Error(`the thread that handled the request is gone: ${error.message}`, { cause: error }));
      this.#writer.close();
      this.#reading.close();
    });
  }

  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    this.served++;
    this.active++;
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
    // Until it is gone, somebody may wait for that.
    this.thread.keepAlive(true);
    this.thread.terminate();
  }

  /** A thread with nothing to do leaves the process free to exit. */
  #idle(): void {
    if (this.active === 0 || this.#daemon) this.thread.keepAlive(false);
  }
}

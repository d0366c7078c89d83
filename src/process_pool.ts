import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import { Host, type SendDatagram } from "./relay/host.ts";
import type { ChildProcess, Runtime, WorkerStart } from "./runtime.ts";

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
}

/** Child processes that handle a request at a time each. */
export class ProcessPool {
  #options: ProcessPoolOptions;
  #children = new Set<PooledProcess>();
  /** Those that wait for a request, the one that waits longest first. */
  #idle: PooledProcess[] = [];
  #waiting: ((child: PooledProcess) => void)[] = [];
  #closed = false;
  /** Why the last child could not load its handler; spares are not started again and again for the same reason. */
  #broken = false;

  /** @param options How to run the children; none is started yet. */
  constructor(options: ProcessPoolOptions) {
    this.#options = options;
  }

  /** The process ids of the children that are running. */
  get pids(): Set<number> {
    return new Set([...this.#children].map(({ pid }) => pid));
  }

  /** Starts the spare children, and waits until they have loaded the handler's module. */
  async warm(): Promise<void> {
    this.#keepSpares();
    await Promise.all([...this.#children].map((child) => child.ready));
  }

  /** Has a child handle a request; resolves when its handler is done, rejects with what it threw or what ended the child. */
  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    const child = this.#idle.shift() ?? (this.#children.size < this.#options.maxChildren ? this.#spawn() : await this.#free());
    child.rest();
    try {
      await child.run(request, clientAddress, unread);
    } finally {
      this.#release(child);
    }
  }

  /** Makes the handler of a request fail soon. */
  abort(request: unknown): void {
    for (const child of this.#children) child.abort(request);
  }

  /** Ends the children that nobody needs: those that are idle beyond the spare ones. Resolves when they are gone. */
  async collect(): Promise<void> {
    const surplus = this.#idle.splice(0, Math.max(0, this.#idle.length - this.#options.spareChildren));
    for (const child of surplus) child.end();
    await Promise.all(surplus.map(({ ended }) => ended));
  }

  /** Ends the children: those that are busy when their requests are done, or at once. */
  async close(atOnce: boolean): Promise<void> {
    this.#closed = true;
    const children = atOnce ? [...this.#children] : this.#idle.splice(0);
    for (const child of children) child.end();
    await Promise.all(children.map(({ ended }) => ended));
  }

  #spawn(): PooledProcess {
    const child = new PooledProcess(this.#options);
    this.#children.add(child);
    child.ready.then(() => this.#broken = false, () => this.#broken = true);
    void child.ended.then(() => {
      this.#children.delete(child);
      this.#idle = this.#idle.filter((idle) => idle !== child);
      const next = this.#closed ? undefined : this.#waiting.shift();
      if (next !== undefined) next(this.#spawn());
      else this.#keepSpares();
    });
    return child;
  }

  #free(): Promise<PooledProcess> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #release(child: PooledProcess): void {
    if (!this.#children.has(child)) return;
    if (this.#closed || child.served >= this.#options.requestsPerChild) return child.end();
    const next = this.#waiting.shift();
    if (next !== undefined) return next(child);
    this.#idle.push(child);
    child.wait(this.#options.childTimeout, () => void this.collect());
  }

  #keepSpares(): void {
    const { spareChildren, maxChildren } = this.#options;
    while (!this.#closed && !this.#broken && this.#idle.length < spareChildren && this.#children.size < maxChildren) {
      this.#idle.push(this.#spawn());
    }
  }
}

class PooledProcess {
  readonly pid: number;
  readonly ready: Promise<void>;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  served = 0;
  #child: ChildProcess;
  #host: Host;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor({ runtime, start, sendDatagram }: ProcessPoolOptions) {
    const child = this.#child = runtime.spawnProcess({
      start,
      onFrame: (channel, type, payload) => this.#host.receive(channel, type, payload),
    });
    this.#host = new Host((channel, type, payload) => child.send(channel, type, payload), sendDatagram);
    this.pid = child.pid;
    this.ready = child.ready;
    this.ended = child.exited.then((error) => {
      clearTimeout(this.#timer);
      this.#host.fail(new Error(`the process that handled the request is gone: ${error.message}`, { cause: error }));
    });
  }

  async run(request: Connection | Datagram, clientAddress: Address | null, unread?: Uint8Array): Promise<void> {
    this.served++;
    await this.ready;
    await this.#host.run(request, clientAddress, unread);
  }

  /** Nobody needs it for now. */
  wait(ms: number, tooLong: () => void): void {
    if (ms !== Infinity) this.#timer = setTimeout(tooLong, ms);
  }

  /** Somebody needs it. */
  rest(): void {
    clearTimeout(this.#timer);
  }

  abort(request: unknown): void {
    this.#host.abort(request);
  }

  end(): void {
    this.#child.terminate();
  }
}

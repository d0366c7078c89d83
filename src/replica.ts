import type { Address } from "./address.ts";
import type { Backoff } from "./backoff.ts";
import { SystemExit } from "./errors.ts";
import { ignore } from "./promises.ts";
import type { OnFrame } from "./relay/ring.ts";
import { ServerHost } from "./relay/server_host.ts";
import { type ServerStats, statsOfTheGone, sumStats } from "./stats.ts";
import { LONGEST } from "./timer_wheel.ts";
import type { Worker, WorkerKind } from "./worker.ts";

/**
 * What a replica does: it loads its module and binds the address; it has the address bound; it waits to be started again; or it is
 * gone and nobody starts it.
 */
export type ReplicaState = "starting" | "running" | "pausing" | "stopped";

/** One of a server's {@linkcode Replicas}: the same one from start to start, whichever worker it runs in. */
export interface Replica {
  /** Its number, from 0. */
  readonly index: number;
  /** Where it runs. */
  readonly kind: WorkerKind;
  /** The id of the process or thread that it runs in; `null` when it is in none. */
  readonly id: number | null;
  /** What it does. */
  readonly state: ReplicaState;
  /** How often it has been started again. */
  readonly restarts: number;
  /** Milliseconds that it waits to be started again, in all; `null` when it doesn't. */
  readonly pause: number | null;
}

/** What a replica needs of those who supervise it. */
export interface Supervision {
  readonly index: number;
  readonly kind: WorkerKind;
  /** Whether the requests are connections. */
  readonly connections: boolean;
  /** How long it waits to be started again. */
  readonly backoff: Backoff;
  /** Starts the worker. */
  spawn(onFrame: OnFrame): Worker;
  /** It was running and is gone; `lasted` is for how many milliseconds it had been. */
  gone(replica: SupervisedReplica, error: unknown, lasted: number): void;
  /** It stopped serving because one of its handlers wanted that: with a {@linkcode SystemExit}, or by the server's `shutdown()`. */
  ended(error: SystemExit | null): void;
}

/** Milliseconds beyond its time after which a replica that does not answer is ended; its server takes up to one second to abort. */
const GRACE = 3000;

/** A replica as its supervisor has it. */
export class SupervisedReplica implements Replica {
  readonly index: number;
  readonly kind: WorkerKind;
  state: ReplicaState = "stopped";
  restarts = 0;
  pause: number | null = null;
  /** Starts that have failed since one has not. */
  failedStarts = 0;
  #supervision: Supervision;
  #host: ServerHost | null = null;
  /** What its workers that are gone have counted, and what the present one is known to have counted. */
  #past: ServerStats | null = null;
  #present: ServerStats | null = null;
  /** Why the worker is being ended. */
  #cause: { error: unknown } | null = null;
  #runningSince = 0;
  /** Settles when it has stopped serving; there while it is meant to serve. */
  #served: Promise<void> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param supervision What it needs of its supervisor. */
  constructor(supervision: Supervision) {
    this.index = supervision.index;
    this.kind = supervision.kind;
    this.#supervision = supervision;
  }

  get id(): number | null {
    return this.#host?.id ?? null;
  }

  /** Starts a worker that binds the address; resolves with the one bound, rejects, once the worker is gone, with what went wrong. */
  async start(address: Address): Promise<Address> {
    this.wake();
    this.state = "starting";
    this.#cause = null;
    try {
      return await this.#run(address);
    } catch (error) {
      this.failedStarts++;
      this.#fail(error);
      const { error: first } = this.#cause!;
      await this.#host?.exited;
      this.state = "stopped";
      throw first;
    }
  }

  /** Has it serve, until {@linkcode SupervisedReplica.shutdown}. */
  serve(): void {
    const host = this.#host!;
    const served = this.#served = host.serveForever();
    served.then(() => {
      if (this.#served === served) this.#supervision.ended(null);
    }, (error) => {
      if (this.#host !== host) return;
      if (error instanceof SystemExit) this.#supervision.ended(error);
      else this.#fail(error);
    });
  }

  /** Stops it serving; see `BaseServer.shutdown()`. */
  async shutdown(drain: number | undefined): Promise<void> {
    const served = this.#served;
    this.#served = null;
    if (this.state !== "running") return;
    await this.#within(drain ?? Infinity, (host) => host.shutdown(drain));
    await served?.catch(ignore);
  }

  /** Ends it; resolves once the worker is gone. */
  async close(shutdownTimeout: number, drains: boolean): Promise<void> {
    this.wake();
    this.#served = null;
    const host = this.#host;
    if (host === null) return;
    let stats: ServerStats | null = null;
    if (this.state === "starting") this.#fail(new Error("the replicas were closed while they were being started"));
    else stats = await this.#within(shutdownTimeout, (host) => host.serverClose(shutdownTimeout, drains));
    // As it was asked to: nobody needs to hear of it.
    if (stats !== null) {
      this.state = "stopped";
      if (this.#host === host) this.#present = stats;
    }
    host.terminate();
    await host.exited;
  }

  /** What its servers have counted, as far as that is known. The totals of what this gives never become less. */
  get counted(): readonly ServerStats[] {
    return [this.#past, this.#present].filter((stats) => stats !== null);
  }

  /** Asks what its server has counted; the answer is in {@linkcode SupervisedReplica.counted}. */
  async count(): Promise<void> {
    const host = this.#host;
    if (host === null || this.state !== "running") return;
    const stats = await host.stats().catch(() => null);
    if (stats !== null && this.#host === host) this.#present = stats;
  }

  /** Calls `then` after a pause, whose length depends on how long it went well. */
  sleep(lasted: number, then: () => void): void {
    this.state = "pausing";
    this.pause = this.#supervision.backoff.next(lasted);
    this.#timer = setTimeout(then, this.pause);
  }

  /** Ends the pause, if it is pausing. */
  wake(): void {
    clearTimeout(this.#timer);
    this.pause = null;
    if (this.state === "pausing") this.state = "stopped";
  }

  async #run(address: Address): Promise<Address> {
    const host: ServerHost = this.#host = new ServerHost((onFrame) => this.#supervision.spawn(onFrame), (stats) => {
      if (this.#host === host) this.#present = stats;
    });
    void host.exited.then((error) => this.#gone(error));
    const bound = await host.activate(address);
    // Gone, or ended by close(), in the same moment.
    if (this.#host !== host || this.#cause !== null) throw await host.exited;
    this.state = "running";
    this.failedStarts = 0;
    this.#runningSince = performance.now();
    return bound;
  }

  /** Has it do something, and ends it when that fails or takes too long; then its end tells why. */
  async #within<T>(ms: number, act: (host: ServerHost) => Promise<T>): Promise<T | null> {
    const host = this.#host!;
    const late = () => this.#fail(new Error(`the replica did not answer within ${ms} ms and ${GRACE} more, and was ended`));
    const timer = ms === Infinity ? undefined : setTimeout(late, Math.min(ms + GRACE, LONGEST));
    try {
      return await act(host);
    } catch (error) {
      if (this.#host === host) this.#fail(error);
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  #fail(error: unknown): void {
    this.#cause ??= { error };
    this.#host?.terminate();
  }

  #gone(error: Error): void {
    this.#host = null;
    if (this.#present !== null) {
      const present = statsOfTheGone(this.#present, this.#supervision.connections);
      this.#past = this.#past === null ? present : sumStats([this.#past, present]);
      this.#present = null;
    }
    const wasRunning = this.state === "running";
    this.state = "stopped";
    const lasted = performance.now() - this.#runningSince;
    if (wasRunning) this.#supervision.gone(this, this.#cause === null ? error : this.#cause.error, lasted);
  }
}

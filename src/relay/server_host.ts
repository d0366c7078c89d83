import type { Address } from "../address.ts";
import type { ServerStats } from "../stats.ts";
import { ignore } from "../promises.ts";
import type { Worker } from "../worker.ts";
import { type Call, decodeError, decodeJson, encodeJson, FRAME } from "./frames.ts";

/** A server that runs in a worker, as its supervisor has it: the methods that it has there, each of which may fail as the worker ends. */
export class ServerHost {
  #worker: Worker;
  #calls = new Map<number, PromiseWithResolvers<unknown>>();
  #last = 0;
  #ended: Error | null = null;
  #onStats: (stats: ServerStats) => void;

  /**
   * @param spawn Starts the worker, which sends its frames to what it is given.
   * @param onStats Told now and then what the server has counted.
   */
  constructor(
    spawn: (onFrame: (channel: number, type: number, payload: Uint8Array) => void) => Worker,
    onStats: (stats: ServerStats) => void,
  ) {
    this.#onStats = onStats;
    this.#worker = spawn((channel, type, payload) => this.#receive(channel, type, payload));
    void this.#worker.exited.then((error) => {
      this.#ended = error;
      for (const { reject } of this.#calls.values()) reject(error);
      this.#calls.clear();
    });
  }

  /** The worker's process id or thread id. */
  get id(): number {
    return this.#worker.id;
  }

  /** Resolves when the worker has ended, with the reason. */
  get exited(): Promise<Error> {
    return this.#worker.exited;
  }

  /** Binds the address; resolves with the one bound. */
  async activate(address: Address): Promise<Address> {
    await this.#worker.ready;
    return await this.#call({ method: "activate", address }) as Address;
  }

  /** Serves until {@linkcode ServerHost.shutdown}. */
  async serveForever(): Promise<void> {
    await this.#call({ method: "serveForever" });
  }

  /** Stops serving. */
  async shutdown(drain: number | undefined): Promise<void> {
    await this.#call({ method: "shutdown", ...(drain === undefined ? {} : { drain: finite(drain) }) });
  }

  /** Frees the address, or `drains` for so long; resolves with what the server has counted in all. */
  async serverClose(shutdownTimeout: number, drains: boolean): Promise<ServerStats> {
    return await this.#call({ method: "serverClose", shutdownTimeout: finite(shutdownTimeout), drains }) as ServerStats;
  }

  /** What the server has counted. */
  async stats(): Promise<ServerStats> {
    return await this.#call({ method: "stats" }) as ServerStats;
  }

  /** Ends the worker at once. */
  terminate(): void {
    this.#worker.terminate();
  }

  #call(call: Call): Promise<unknown> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    const channel = this.#last = this.#last + 1 | 0;
    const answer = Promise.withResolvers<unknown>();
    // Who doesn't wait for the answer hears of the worker's end in another way.
    answer.promise.catch(ignore);
    this.#calls.set(channel, answer);
    this.#worker.send(channel, FRAME.CALL, encodeJson(call));
    return answer.promise;
  }

  #receive(channel: number, type: number, payload: Uint8Array): void {
    if (type === FRAME.STATS) return this.#onStats(decodeJson(payload));
    const answer = this.#calls.get(channel);
    this.#calls.delete(channel);
    if (type === FRAME.RETURNED) answer?.resolve(decodeJson(payload));
    else answer?.reject(decodeError(payload));
  }
}

function finite(ms: number): number | null {
  return ms === Infinity ? null : ms;
}

import type { Address } from "./address.ts";
import type { ActiveRequest } from "./base_server.ts";
import { type Clock, idleClock } from "./timer_wheel.ts";

/** Milliseconds until an entry takes the time. */
const PRECISION = 50;

/** What a server knows of a request that it has taken. */
export class Entry<R> implements ActiveRequest {
  readonly request: R;
  readonly clientAddress: Address | null;
  /** When its handling began, by `performance.now()`; negative when nobody takes the time. */
  readonly begun: number;
  #since = 0;
  aborted = false;
  /** Whether it was ended by force afterwards. */
  killed = false;
  /** Ends by force whoever finishes it in the handler's place. */
  kill: (() => Promise<void>) | null = null;
  /** Its place in the table; -1 outside. */
  place = -1;

  constructor(request: R, clientAddress: Address | null, begun: number) {
    this.request = request;
    this.clientAddress = clientAddress;
    this.begun = begun;
  }

  /** The time at which somebody first looked. */
  get since(): number {
    return this.#since ||= Date.now();
  }
}

/**
 * The table of unfinished requests. An array, as a `Map` costs a server of datagrams more than all else that it does; the `Map` is made
 * when somebody looks for a single request, and lasts until the table is empty.
 */
export class RequestTable<R> implements ReadonlyMap<R, ActiveRequest> {
  #entries: Entry<R>[] = [];
  #index: Map<R, Entry<R>> | null = null;
  #clock: Clock;
  #looking = false;
  /** Has those that are still there take the time. Most are gone by then, and have not paid for reading the clock. */
  #look = (): void => {
    this.#looking = false;
    for (const entry of this.#entries) void entry.since;
  };

  constructor(clock: Clock = idleClock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#entries.length;
  }

  add(entry: Entry<R>): void {
    entry.place = this.#entries.push(entry) - 1;
    this.#index?.set(entry.request, entry);
    if (this.#looking) return;
    this.#looking = true;
    this.#clock.set(this.#look, PRECISION);
  }

  remove(entry: Entry<R>): void {
    const last = this.#entries.pop()!;
    if (last !== entry) {
      this.#entries[entry.place] = last;
      last.place = entry.place;
    }
    entry.place = -1;
    if (this.#entries.length === 0) this.#index = null;
    else this.#index?.delete(entry.request);
  }

  get(request: R): Entry<R> | undefined {
    this.#index ??= new Map(this.#entries.map((entry) => [entry.request, entry]));
    return this.#index.get(request);
  }

  has(request: R): boolean {
    return this.get(request) !== undefined;
  }

  forEach(callback: (entry: ActiveRequest, request: R, table: ReadonlyMap<R, ActiveRequest>) => void): void {
    for (const entry of this.values()) callback(entry, entry.request, this);
  }

  // Each iterates over a copy, so that requests may begin and end meanwhile.

  keys(): ArrayIterator<R> {
    return this.#entries.map(({ request }) => request).values();
  }

  values(): ArrayIterator<Entry<R>> {
    return this.#entries.slice().values();
  }

  entries(): ArrayIterator<[R, Entry<R>]> {
    return this.#entries.map((entry): [R, Entry<R>] => [entry.request, entry]).values();
  }

  [Symbol.iterator](): ArrayIterator<[R, Entry<R>]> {
    return this.entries();
  }
}

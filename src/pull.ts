import { alreadyReading } from "./connection.ts";
import type { Receiver } from "./runtime.ts";

/** What tells a receiver of its next chunk, as {@linkcode RawConnection.receive} does. */
export interface ChunkSource {
  receive(receiver: Receiver, into?: Uint8Array): Uint8Array | null | undefined;
}

type Pulled = Uint8Array | null | IteratorResult<Uint8Array> | number;
/** What a promise is resolved with for a chunk. */
type As = (chunk: Uint8Array | null) => Pulled;

const DONE: IteratorResult<Uint8Array> = { done: true, value: undefined };

/** What a source receives, as promises. */
export class Pull implements Receiver {
  #source: ChunkSource;
  /** Of the promise that waits. It is rejected through it too: one closure less for each. */
  #resolve: ((result: Pulled | Promise<never>) => void) | null = null;
  #as: As = asIs;

  /** @param source Where the chunks come from. */
  constructor(source: ChunkSource) {
    this.#source = source;
  }

  /** The next chunk, or `null` at the end of the stream. */
  read(): Promise<Uint8Array | null> {
    return this.#pull(asIs) as Promise<Uint8Array | null>;
  }

  /** The same for a `for await` loop: resolving the loop's own result saves a promise and a turn for every chunk. */
  next(): Promise<IteratorResult<Uint8Array>> {
    return this.#pull(toResult) as Promise<IteratorResult<Uint8Array>>;
  }

  /** What `as` makes of the next chunk, which may have been put into `into`. */
  readInto(into: Uint8Array, as: (chunk: Uint8Array | null) => number | null): Promise<number | null> {
    return this.#pull(as, into) as Promise<number | null>;
  }

  /** The chunk has come. */
  received(chunk: Uint8Array | null): void {
    this.#settle(this.#as(chunk));
  }

  /** None will come. */
  failed(error: unknown): void {
    this.#settle(Promise.reject(error));
  }

  #pull(as: As, into?: Uint8Array): Promise<Pulled> {
    if (this.#resolve !== null) return Promise.reject(alreadyReading());
    try {
      const chunk = this.#source.receive(this, into);
      if (chunk !== undefined) return Promise.resolve(as(chunk));
    } catch (error) {
      return Promise.reject(error);
    }
    this.#as = as;
    return new Promise((resolve) => this.#resolve = resolve);
  }

  #settle(result: Pulled | Promise<never>): void {
    const resolve = this.#resolve;
    this.#resolve = null;
    resolve?.(result);
  }
}

/** What `read()` gives for a chunk. */
export function asIs(chunk: Uint8Array | null): Uint8Array | null {
  return chunk;
}

/** What an iterator's `next()` gives for a chunk. */
export function toResult(chunk: Uint8Array | null): IteratorResult<Uint8Array> {
  return chunk === null ? DONE : { done: false, value: chunk };
}

/**
 * Calls back for each chunk until the stream ends. It is called in the same turn in which the runtime brings the chunk; only where it
 * returns a promise is there something to wait for.
 *
 * @param source Where the chunks come from.
 * @param callback What is called. What it throws, or its promise rejects with, ends it.
 */
export function forEachChunk(source: ChunkSource, callback: (chunk: Uint8Array) => void | Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const receiver = {
      received(chunk: Uint8Array | null): void {
        try {
          for (let next: Uint8Array | null | undefined = chunk; next !== undefined; next = source.receive(receiver)) {
            if (next === null) return resolve();
            const pending = callback(next);
            if (pending !== undefined) return void pending.then(goOn, reject);
          }
        } catch (error) {
          reject(error);
        }
      },
      failed: reject,
    };
    const goOn = (): void => {
      try {
        const chunk = source.receive(receiver);
        if (chunk !== undefined) receiver.received(chunk);
      } catch (error) {
        reject(error);
      }
    };
    goOn();
  });
}

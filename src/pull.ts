import { alreadyReading } from "./connection.ts";
import { SocketError } from "./errors.ts";
import { ignore, rejected } from "./promises.ts";
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
  /** The promise itself, which counts as handled when it is rejected. */
  #promise: Promise<Pulled> | null = null;
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
    this.#promise?.catch(ignore);
    this.#settle(Promise.reject(error));
  }

  /**
   * Drops all that comes from now on; nobody can pull any more.
   *
   * @param error What a promise that waits is rejected with.
   * @returns Resolves when nothing more can come.
   */
  discard(error: unknown): Promise<void> {
    const over = Promise.withResolvers<void>();
    const waiting = this.#resolve !== null;
    if (waiting) this.failed(error);
    const drop = (): void => {
      try {
        let chunk = this.#source.receive(this);
        while (chunk != null) chunk = this.#source.receive(this);
        if (chunk === null) over.resolve();
      } catch {
        over.resolve();
      }
    };
    this.received = (chunk) => chunk === null ? over.resolve() : drop();
    this.failed = () => over.resolve();
    if (!waiting) drop();
    return over.promise;
  }

  #pull(as: As, into?: Uint8Array): Promise<Pulled> {
    if (this.#resolve !== null) return rejected(alreadyReading());
    try {
      const chunk = this.#source.receive(this, into);
      if (chunk !== undefined) return Promise.resolve(as(chunk));
    } catch (error) {
      return rejected(error);
    }
    this.#as = as;
    return this.#promise = new Promise((resolve) => this.#resolve = resolve);
  }

  #settle(result: Pulled | Promise<never>): void {
    const resolve = this.#resolve;
    this.#resolve = this.#promise = null;
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
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  /** What the connection was lost of shows elsewhere too. */
  const failed = (error: unknown): void => {
    promise.catch(ignore);
    reject(error);
  };
  /** So does what the callback's writes fail with; all else that it throws is the program's own, and shows only here. */
  const thrown = (error: unknown): void => error instanceof SocketError ? failed(error) : reject(error);
  const receive = (): Uint8Array | null | undefined => {
    try {
      return source.receive(receiver);
    } catch (error) {
      failed(error);
    }
  };
  const receiver = {
    received(chunk: Uint8Array | null): void {
      try {
        for (let next: Uint8Array | null | undefined = chunk; next !== undefined; next = receive()) {
          if (next === null) return resolve();
          const pending = callback(next);
          if (pending !== undefined) return void pending.then(goOn, thrown);
        }
      } catch (error) {
        thrown(error);
      }
    },
    failed,
  };
  const goOn = (): void => {
    const chunk = receive();
    if (chunk !== undefined) receiver.received(chunk);
  };
  goOn();
  return promise;
}

import { handled } from "./promises.ts";
import { afterPoll } from "./runtime.ts";

/** What a connection does for its `readable`. */
export interface ReadableSide {
  read(): Promise<Uint8Array | null>;
  /** Drops what comes from now on. */
  cancel(): void;
  /** Whether the connection is being closed, or is closed, by the program itself. */
  closing(): boolean;
}

/** What a connection does for its `writable`. */
export interface WritableSide {
  write(chunk: Uint8Array): void | Promise<void>;
  closeWrite(): Promise<void>;
  abort(): void;
  /** Whether the connection is being closed, or is closed, by the program itself. */
  closing(): boolean;
}

/**
 * The receiving side of a connection as a web stream. Promises of it that nobody awaits never become unhandled rejections. Closing the
 * connection ends the stream in order: who closed it has what he wanted.
 */
export function readableOf(side: ReadableSide): ReadableStream<Uint8Array> {
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      let chunk: Uint8Array | null;
      try {
        chunk = await side.read();
      } catch (error) {
        if (!side.closing()) throw error;
        chunk = null;
      }
      if (cancelled) return;
      if (chunk === null) controller.close();
      else controller.enqueue(withOwnBuffer(chunk));
    },
    cancel() {
      cancelled = true;
      side.cancel();
    },
  }, { highWaterMark: 0 });
  handleRejections(stream, "cancel", "pipeTo");
  const getReader = stream.getReader.bind(stream) as (...args: unknown[]) => object;
  override(stream, "getReader", (...args) => handleRejections(getReader(...args), "read", "cancel"));
  return stream;
}

/** The chunk with a buffer that holds nothing else: libraries take the `buffer` of a web stream's chunk for the chunk. */
function withOwnBuffer(chunk: Uint8Array): Uint8Array {
  return chunk.length === chunk.buffer.byteLength ? chunk : chunk.slice();
}

/** The sending side of a connection as a web stream. */
export class WritableOf {
  /** The stream. */
  readonly stream: WritableStream<Uint8Array>;
  /** Whether a write is under way. While the stream has any left, one is, but for the moment between two. */
  #writing = false;

  /**
   * Promises of the stream that nobody awaits never become unhandled rejections. Once the program itself has closed the connection,
   * what can't be sent is dropped without an error: there is nobody left who could be told, and `node:stream` would end the program.
   *
   * @param side The connection.
   */
  constructor(side: WritableSide) {
    const unlessClosing = (error: unknown): void => {
      if (!side.closing()) throw error;
    };
    const stream = this.stream = new WritableStream<Uint8Array>({
      write: (chunk) => {
        const pending = side.write(chunk);
        if (pending === undefined) return;
        this.#writing = true;
        return pending.catch(unlessClosing).finally(() => this.#writing = false);
      },
      close: () => side.closeWrite().catch(unlessClosing),
      abort: () => side.closing() ? undefined : side.abort(),
    });
    handleRejections(stream, "close", "abort");
    const getWriter = stream.getWriter.bind(stream);
    override(stream, "getWriter", () => handleRejections(getWriter(), "write", "close", "abort"));
  }

  /**
   * Resolves when what was written to the stream has been handed on. What is behind `Writable.fromWeb()` comes one turn after the other, so it
   * is over only when a turn brings nothing more.
   *
   * @param ms Milliseconds to wait at most.
   * @param isOver Whether to wait no longer.
   */
  async flushed(ms: number, isOver: () => boolean): Promise<void> {
    const until = performance.now() + ms;
    do await new Promise<void>(afterPoll); while (this.#writing && !isOver() && performance.now() < until);
  }
}

/** Has the promises that methods return count as handled. */
function handleRejections<T extends object>(target: T, ...names: string[]): T {
  const methods = target as Record<string, (...args: unknown[]) => Promise<unknown>>;
  for (const name of names) {
    const method = methods[name]!.bind(target);
    override(target, name, (...args) => handled(method(...args)));
  }
  return target;
}

/** Of this object alone. */
function override(target: object, name: string, method: (...args: unknown[]) => unknown): void {
  Object.defineProperty(target, name, { value: method, configurable: true, writable: true });
}

/** What `read()` or `next()` of a connection resolves with. */
export type Pulled = Uint8Array | null | IteratorResult<Uint8Array>;

/** What `next()` gives at the end of the stream. */
export const DONE: IteratorResult<Uint8Array> = { done: true, value: undefined };

/** For a rejection that is reported elsewhere too. */
export function ignore(): void {}

/** The promise, counting as handled: a send that nobody awaits must not end the program when it fails. */
export function handled(promise: Promise<void>): Promise<void> {
  promise.catch(ignore);
  return promise;
}

/** A promise that is rejected and counts as handled: a write that nobody awaits must not end the program. */
export function rejected(error: Error): Promise<never> {
  const promise = Promise.reject(error);
  promise.catch(ignore);
  return promise;
}

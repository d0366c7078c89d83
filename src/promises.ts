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

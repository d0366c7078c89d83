/** For a rejection that is reported elsewhere too. */
export function ignore(): void {}

/** The promise, counting as handled: one that nobody awaits must not end the program when it rejects. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore);
  return promise;
}

/** A promise that is rejected and counts as handled. */
export function rejected(error: unknown): Promise<never> {
  return handled(Promise.reject(error));
}

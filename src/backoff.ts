/** Pauses that grow from one failure to the next, and start over after a success that has lasted. */
export class Backoff {
  #first: number;
  #longest: number;
  #pause = 0;

  /**
   * @param first The first pause, in milliseconds.
   * @param longest The longest, in milliseconds. What has lasted as long counts as a success.
   */
  constructor(first: number, longest: number) {
    this.#first = first;
    this.#longest = longest;
  }

  /** The pause after a failure, in milliseconds; `lasted` is how long it went well before. */
  next(lasted: number): number {
    const startOver = this.#pause === 0 || lasted >= this.#longest;
    return this.#pause = Math.min(this.#longest, startOver ? this.#first : this.#pause * 2);
  }
}

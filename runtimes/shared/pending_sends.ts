/** Milliseconds that closing a socket waits for the kernel to take what was sent: a network that is down must not hold it up for ever. */
const CLOSE_TIMEOUT_MS = 5000;

/** The datagrams that a socket was given and the kernel had no room for: the socket is closed after them. */
export class PendingSends {
  #count = 0;
  /** Made by `over()`; `null` before. */
  #over: PromiseWithResolvers<void> | null = null;

  /** One more has begun. */
  begin(): void {
    this.#count++;
  }

  /** One of them has settled. */
  end = (): void => {
    if (--this.#count === 0) this.#over?.resolve();
  };

  /** Whether there are any. */
  get any(): boolean {
    return this.#count > 0;
  }

  /** Counts a promise in until it settles. Its rejection counts as handled. */
  add(sending: Promise<void>): Promise<void> {
    this.begin();
    void sending.then(this.end, this.end);
    return sending;
  }

  /** Resolves when there are none, after five seconds at the latest. */
  async over(): Promise<void> {
    if (!this.any) return;
    const { promise, resolve } = this.#over = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    await promise;
    clearTimeout(timer);
  }
}

/** A clock that stands still until a test moves it. */
import type { Clock } from "../../src/timer_wheel.ts";

export class FakeClock implements Clock {
  /** The calls that have been asked for and have not come. */
  readonly calls = new Map<number, { at: number; callback: () => void }>();
  #now = 1000;
  #last = 0;

  now(): number {
    return this.#now;
  }

  set(callback: () => void, ms: number): number {
    const handle = ++this.#last;
    // As the runtimes do: not now, and not in a fraction of a millisecond.
    this.calls.set(handle, { at: this.#now + Math.max(1, Math.trunc(ms)), callback });
    return handle;
  }

  clear(handle: unknown): void {
    this.calls.delete(handle as number);
  }

  /** What the system has is delivered by the test itself. */
  afterPoll(callback: () => void): void {
    callback();
  }

  /** Lets time pass in which the program is held up: what is due happens only at its end. */
  stall(ms: number): void {
    this.#now += ms;
    this.pass(0);
  }

  /** Lets time pass, and what is due happen when it is. */
  pass(ms: number): void {
    const until = this.#now + ms;
    for (;;) {
      const [next] = [...this.calls].sort(([, one], [, other]) => one.at - other.at);
      if (next === undefined || next[1].at > until) break;
      this.calls.delete(next[0]);
      this.#now = Math.max(this.#now, next[1].at);
      next[1].callback();
    }
    this.#now = until;
  }
}

import { isError, propertyOf } from "./thrown.ts";

/** What the system may have no more of for a while: descriptors, memory, buffers. */
const SHORTAGES = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]);
/** Milliseconds for which the errors of a shortage are counted, and not shown, after one has been. */
const QUIET_MS = 60_000;
/** Errors that are looked at in a chain of causes. */
const MAX_CAUSES = 8;

/** Whether an error says that the system has run out of something, or was caused by one that does. */
export function isShortage(error: unknown): boolean {
  for (let i = 0, cause = error; i < MAX_CAUSES && isError(cause); i++, cause = propertyOf(cause, "cause")) {
    const [code, syscall, message] = ["code", "syscall", "message"].map((name) => propertyOf(cause, name));
    if (SHORTAGES.has(code as string)) return true;
    // No more processes may be started; of a socket this code says something else.
    if (code === "EAGAIN" && syscall === "spawn") return true;
    // A module that could not be opened: not every runtime gives a code to that.
    if (typeof message === "string" && /^could not load .*(EMFILE|ENFILE|too many open files)/i.test(message)) return true;
  }
  return false;
}

/** Chooses the errors of a shortage that are shown: each request fails of it, and a log that grows with them is the next shortage. */
export class ShortageLog {
  #shownAt = -Infinity;
  #hidden = 0;

  /**
   * Whether to show the next error of a shortage.
   *
   * @param now Milliseconds, of a clock that only goes forward.
   * @returns The number of errors that were not shown before it; `null` when this one is not to be shown either.
   */
  next(now: number = performance.now()): number | null {
    if (now - this.#shownAt < QUIET_MS) {
      this.#hidden++;
      return null;
    }
    const hidden = this.#hidden;
    this.#shownAt = now;
    this.#hidden = 0;
    return hidden;
  }
}

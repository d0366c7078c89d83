import { getRuntime } from "./runtime.ts";

/** Characters that may wait for a reader of standard error; beyond them, texts are dropped and counted. */
const MAX_WAITING_CHARACTERS = 1 << 20;

let waiting = 0;
let dropped = 0;

/**
 * Prints text to standard error, as everything does that this package prints. It never throws, and never ends the program: a text that
 * can't be printed, because the reader is gone or takes nothing any more, is dropped.
 *
 * @param text One or several lines, without the last one's end.
 */
export function print(text: string): void {
  if (waiting > MAX_WAITING_CHARACTERS) {
    dropped++;
    return;
  }
  const size = text.length;
  waiting += size;
  const printed = () => {
    waiting -= size;
    if (waiting > 0 || dropped === 0) return;
    const lost = dropped;
    dropped = 0;
    print(`${lost} messages were not printed, as nobody read standard error`);
  };
  try {
    getRuntime().print(`${text}\n`).then(printed, printed);
  } catch {
    printed();
  }
}

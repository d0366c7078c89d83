/**
 * What programs write without awaiting it piles up behind a peer that reads more slowly than another sends. While it does, reading is held
 * up for a moment after each mebibyte, on all connections of this thread, so that the event loop sees what the peers have taken meanwhile:
 * Deno looks at a socket that was full only every 61st time that it looks for anything, which is after 4 MiB of another's, and Bun reads
 * up to 5 MiB of one connection in a row. A peer that reads all the time would be ended for that.
 */

/** With more than this waiting for a peer, what is written to it piles up. */
const BACKLOG_BYTES = 262_144;
/** So much may pile up before reading is held up. */
const PILED_UP_BYTES = 1_048_576;

/** Whether reading is to be held up: a variable, as every read asks. */
export let isPiledUp = false;
let piledUpBytes = 0;
const heldUp: (() => void)[] = [];

/** Counts bytes that are to be sent behind so many others. */
export function countBehind(bytes: number, backlog: number): void {
  if (backlog <= BACKLOG_BYTES) return;
  piledUpBytes += bytes;
  isPiledUp = piledUpBytes >= PILED_UP_BYTES;
}

/** Calls back when reading may go on. It takes a timer: only that has Deno look at all sockets first. */
export function afterPileUp(callback: () => void): void {
  if (heldUp.push(callback) > 1) return;
  setTimeout(() => {
    piledUpBytes = 0;
    isPiledUp = false;
    for (const goOn of heldUp.splice(0)) goOn();
  }, 0);
}

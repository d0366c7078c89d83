/** Keeps a thread busy without end, as far as the server can tell. */

/** Milliseconds after which it ends all the same, for a test that has failed before it could say so. */
const LONGEST_MS = 60_000;

/**
 * Computes until the test is over. Deno can't end a thread that computes: it would take the tests after it a processor.
 *
 * @param data The server's data: `stop` is shared memory that the test sets to 1 when it is over. A process is killed, and needs none.
 */
export function spin(data: unknown): void {
  const stop = (data as { stop?: unknown } | null)?.stop;
  const words = stop instanceof SharedArrayBuffer ? new Int32Array(stop) : null;
  const end = performance.now() + LONGEST_MS;
  while (performance.now() < end && (words === null || Atomics.load(words, 0) === 0));
}

const encoder = new TextEncoder();

/** Short texts are encoded into a pool that they share: a buffer for each would cost more than sending it. */
const POOL = 16_384;
const LONGEST = 1024;
/** The most bytes that a UTF-16 unit can take in UTF-8. */
const MOST_BYTES = 3;
let pool = new Uint8Array(POOL);
let used = 0;

/**
 * What a program may write, as bytes. Those of a text must not be changed.
 *
 * @throws {TypeError} When it is neither bytes nor text.
 */
export function toBytes(data: Uint8Array | string): Uint8Array {
  if (typeof data === "string") return data.length <= LONGEST ? encodeShort(data) : encoder.encode(data);
  if (data instanceof Uint8Array) return data;
  throw new TypeError(`data must be a Uint8Array or a string, got ${Object.prototype.toString.call(data)}`);
}

/** Chunks as one. A single one is returned as it is. */
export function concat(chunks: readonly Uint8Array[]): Uint8Array {
  if (chunks.length === 1) return chunks[0]!;
  let size = 0;
  for (const { length } of chunks) size += length;
  const all = new Uint8Array(size);
  let filled = 0;
  for (const chunk of chunks) {
    all.set(chunk, filled);
    filled += chunk.length;
  }
  return all;
}

function encodeShort(text: string): Uint8Array {
  if (used + text.length * MOST_BYTES > POOL) {
    pool = new Uint8Array(POOL);
    used = 0;
  }
  const start = used;
  used += encoder.encodeInto(text, pool.subarray(start)).written;
  return pool.subarray(start, used);
}

/** Chunks of fewer bytes are merged while nobody reads: the objects of each would cost more memory than its bytes. */
const SMALL_BYTES = 4096;
/** Bytes of the smallest buffer that chunks are merged in. */
const SMALLEST_BUFFER_BYTES = 256;
/** A chunk that is less than this part of its buffer is copied, so that it doesn't keep the buffer. */
const PART = 8;

/** Chunks that were received and that nobody has read yet. What it holds is in proportion to their bytes, however small they are. */
export class ChunkQueue {
  #chunks: Uint8Array[] = [];
  #size = 0;
  /** Bytes of the last chunk that are filled, when it is a buffer to merge others in; 0 when it is a chunk as it came. */
  #filled = 0;

  /** How many bytes are waiting. */
  get size(): number {
    return this.#size;
  }

  /** How many chunks are waiting. */
  get length(): number {
    return this.#chunks.length;
  }

  /** Adds a chunk at the end. */
  push(chunk: Uint8Array): void {
    this.#size += chunk.length;
    if (chunk.length < SMALL_BYTES && this.#merge(chunk)) return;
    this.#seal();
    this.#chunks.push(chunk.buffer.byteLength > Math.max(SMALLEST_BUFFER_BYTES, chunk.length * PART) ? chunk.slice() : chunk);
  }

  /** Adds a chunk at the beginning. */
  unshift(chunk: Uint8Array): void {
    this.#size += chunk.length;
    this.#chunks.unshift(chunk);
  }

  /** Takes the first chunk, which is the caller's; `undefined` when none is waiting. */
  shift(): Uint8Array | undefined {
    if (this.#chunks.length === 1) this.#seal();
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) this.#size -= chunk.length;
    return chunk;
  }

  /** Takes all of them as one. */
  take(): Uint8Array {
    const all = new Uint8Array(this.#size);
    let filled = 0;
    for (let chunk; (chunk = this.shift()) !== undefined; filled += chunk.length) all.set(chunk, filled);
    return all;
  }

  /** Copies a small chunk behind the last one; `false` when that is a large one. */
  #merge(chunk: Uint8Array): boolean {
    const last = this.#chunks.at(-1);
    if (last === undefined || (this.#filled === 0 && last.length >= SMALL_BYTES)) return false;
    const held = this.#filled === 0 ? last.length : this.#filled;
    const size = held + chunk.length;
    let buffer = last;
    if (this.#filled === 0 || size > last.length) {
      buffer = new Uint8Array(Math.max(SMALLEST_BUFFER_BYTES, 2 * size));
      buffer.set(this.#filled === 0 ? last : last.subarray(0, held));
      this.#chunks[this.#chunks.length - 1] = buffer;
    }
    buffer.set(chunk, held);
    this.#filled = size;
    return true;
  }

  /** Makes a chunk of what was merged. */
  #seal(): void {
    if (this.#filled === 0) return;
    const last = this.#chunks.length - 1;
    this.#chunks[last] = this.#chunks[last]!.subarray(0, this.#filled);
    this.#filled = 0;
  }
}

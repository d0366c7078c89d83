/**
 * One direction of a channel between two threads: frames in a ring of shared memory. The writer never waits and copies once; the reader
 * sleeps in `Atomics.waitAsync`, which costs no thread and, while frames keep coming, no wake-up.
 */

// Words at the start of the memory. Positions count bytes and wrap around at 2^32.
const HEAD = 0;
const TAIL = 1;
/** 1 while the reader sleeps on HEAD, so that a writer need not wake one that is awake. */
const READER_SLEEPS = 2;
/** 1 while the writer waits on TAIL for room. */
const WRITER_WAITS = 3;
const CLOSED = 4;
const WORDS = 8;

/** Length, channel and type of a frame, a word each. */
const HEADER = 12;
/** Bytes a reader takes before it gives the event loop a turn. */
const TURN = 1 << 20;

/** The memory for one direction. */
export function makeRing(capacity = 1 << 20): SharedArrayBuffer {
  return new SharedArrayBuffer(WORDS * 4 + capacity);
}

/** The largest payload of one frame that is sent in one piece. */
export const MAX_PAYLOAD = 1 << 16;
/** Set in the type of a piece that another piece of the same frame follows. */
const CONTINUED = 1 << 30;

/** What a frame is: the channel it belongs to, what it means, and its bytes, which the receiver owns. */
export type OnFrame = (channel: number, type: number, payload: Uint8Array) => void;

const EMPTY = new Uint8Array(0);

/** The writing end. */
export class RingWriter {
  #words: Int32Array;
  #bytes: Uint8Array;
  #mask: number;
  /** Bytes of the largest piece. */
  #most: number;
  #schedule: (wake: () => void) => void;
  #scheduled = false;
  // Made once: it is needed for every turn.
  #wake = (): void => {
    this.#scheduled = false;
    if (Atomics.exchange(this.#words, READER_SLEEPS, 0) === 1) Atomics.notify(this.#words, HEAD);
  };
  #pending: { channel: number; type: number; payload: Uint8Array }[] = [];

  /**
   * @param memory What {@linkcode makeRing} made.
   * @param schedule Calls back soon. Waking a thread costs more than a frame, so a writer of many puts it off until it has written what
   * it had at hand; the reader is woken at once by default, whatever the writer does next.
   */
  constructor(memory: SharedArrayBuffer, schedule: (wake: () => void) => void = (wake) => wake()) {
    this.#schedule = schedule;
    this.#words = new Int32Array(memory);
    this.#bytes = new Uint8Array(memory, WORDS * 4);
    this.#mask = this.#bytes.length - 1;
    this.#most = Math.min(MAX_PAYLOAD, this.#bytes.length >> 2);
  }

  /** Sends a frame; the payload may be changed afterwards. What the ring has no room for waits here, so the caller bounds that. */
  write(channel: number, type: number, payload: Uint8Array = EMPTY): void {
    if (payload.length <= this.#most) return this.#write(channel, type, payload);
    // One that is longer than the ring would never fit, and hold up all that come after it.
    for (let at = 0; at < payload.length; at += this.#most) {
      const end = at + this.#most;
      this.#write(channel, end < payload.length ? type | CONTINUED : type, payload.subarray(at, end));
    }
  }

  #write(channel: number, type: number, payload: Uint8Array): void {
    if (this.#pending.length === 0 && this.#put(channel, type, payload)) return;
    this.#pending.push({ channel, type, payload: payload.slice() });
    if (this.#pending.length === 1) void this.#flush();
  }

  /** How far the reader has come, while there is something to read for it; else `null`. */
  get unread(): number | null {
    const tail = Atomics.load(this.#words, TAIL);
    return tail === this.#words[HEAD] ? null : tail;
  }

  /** Ends both ends: the reader stops once it has read what is there. */
  close(): void {
    this.#pending = [];
    Atomics.store(this.#words, CLOSED, 1);
    Atomics.notify(this.#words, HEAD);
    Atomics.notify(this.#words, TAIL);
  }

  #put(channel: number, type: number, payload: Uint8Array): boolean {
    const words = this.#words;
    const head = words[HEAD]!;
    const size = HEADER + (payload.length + 3 & ~3);
    if ((head - Atomics.load(words, TAIL) | 0) + size > this.#bytes.length) return false;
    const at = WORDS + ((head & this.#mask) >> 2);
    const end = this.#words.length;
    const next = (word: number) => word + 1 === end ? WORDS : word + 1;
    words[at] = payload.length;
    const second = next(at);
    words[second] = channel;
    words[next(second)] = type;
    const start = head + HEADER & this.#mask;
    const first = Math.min(payload.length, this.#bytes.length - start);
    this.#bytes.set(first === payload.length ? payload : payload.subarray(0, first), start);
    if (first < payload.length) this.#bytes.set(payload.subarray(first), 0);
    Atomics.store(words, HEAD, head + size | 0);
    if (this.#scheduled) return true;
    this.#scheduled = true;
    this.#schedule(this.#wake);
    return true;
  }

  async #flush(): Promise<void> {
    const words = this.#words;
    while (this.#pending.length > 0) {
      const tail = Atomics.load(words, TAIL);
      Atomics.store(words, WRITER_WAITS, 1);
      const { channel, type, payload } = this.#pending[0]!;
      if (this.#put(channel, type, payload)) {
        this.#pending.shift();
        continue;
      }
      const waited = Atomics.waitAsync(words, TAIL, tail);
      if (waited.async) await waited.value;
      if (Atomics.load(words, CLOSED) === 1) return;
    }
    Atomics.store(words, WRITER_WAITS, 0);
  }
}

/** Reads frames until the ring is closed. */
export async function readRing(memory: SharedArrayBuffer, onFrame: OnFrame): Promise<void> {
  const words = new Int32Array(memory);
  const bytes = new Uint8Array(memory, WORDS * 4);
  const mask = bytes.length - 1;
  let turn = 0;
  /** The pieces of a frame whose last one has not come. */
  let pieces: Uint8Array[] = [];
  for (;;) {
    const head = Atomics.load(words, HEAD);
    let tail = words[TAIL]!;
    while (tail !== head) {
      const at = WORDS + ((tail & mask) >> 2);
      const second = at + 1 === words.length ? WORDS : at + 1;
      const third = second + 1 === words.length ? WORDS : second + 1;
      const length = words[at]!;
      const start = tail + HEADER & mask;
      const payload = new Uint8Array(length);
      const first = Math.min(length, bytes.length - start);
      payload.set(bytes.subarray(start, start + first));
      if (first < length) payload.set(bytes.subarray(0, length - first), first);
      const [channel, type] = [words[second]!, words[third]!];
      const size = HEADER + (length + 3 & ~3);
      tail = tail + size | 0;
      turn += size;
      // Before the frame is acted upon: that may fill the ring.
      Atomics.store(words, TAIL, tail);
      if (Atomics.load(words, WRITER_WAITS) === 1) Atomics.notify(words, TAIL);
      if ((type & CONTINUED) !== 0) {
        pieces.push(payload);
      } else if (pieces.length === 0) {
        onFrame(channel, type, payload);
      } else {
        pieces.push(payload);
        const whole = join(pieces);
        pieces = [];
        onFrame(channel, type, whole);
      }
    }
    if (turn > TURN) {
      turn = 0;
      await new Promise((resolve) => setTimeout(resolve, 0));
      continue;
    }
    const waited = Atomics.waitAsync(words, HEAD, head);
    if (waited.async) {
      // Only now: a writer that took the mark back before the wait was there would have woken nobody, and the next one would see no mark.
      Atomics.store(words, READER_SLEEPS, 1);
      // Whoever wrote between the two saw none either.
      if (Atomics.load(words, HEAD) !== head || Atomics.load(words, CLOSED) === 1) Atomics.notify(words, HEAD);
      await waited.value;
      turn = 0;
    }
    if (Atomics.load(words, CLOSED) === 1 && Atomics.load(words, HEAD) === head) return;
  }
}

function join(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
